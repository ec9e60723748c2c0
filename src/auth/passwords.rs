//! The password file: a line `NAME:HASH` for each user, as `ringmq passwd` and `mosquitto_passwd` write it; and the same for
//! client identifiers. A name may hold colons, as addresses of devices do: what begins as a hash does is behind the last one
//! that is none of the hash's own.
//!
//! A million users must neither take long to load nor much memory, so the text stays as it was read, and an index
//! of 4 bytes per user finds the line of a name. Names and forms are checked on loading, with the line in errors.

use super::Secret;
use super::hash::{EXPECTED, Hash};
use super::scram::{self, Verifier};
use crate::limits::{AUTH_NAME_BYTES_MAX, AUTH_PASSWORD_FILE_BYTES_MAX, SCRAM_ROUNDS_MIN};
use hashbrown::HashTable;
use std::fmt::{Debug, Formatter};
use std::num::NonZeroU32;

/// Users with the hashes of their passwords.
pub struct Passwords {
    text: Box<str>,
    /// Where lines begin, by name.
    index: HashTable<u32>,
    /// Rounds of the first verifier of SCRAM.
    rounds: Option<NonZeroU32>,
    hasher: ahash::RandomState,
}

impl Debug for Passwords {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "Passwords({})", self.len())
    }
}

/// Name and hash. Where nothing begins as a hash does, the first colon counts.
fn split(line: &str) -> Option<(&str, &str)> {
    let begins = |at: &usize| {
        let behind = &line[at + 1..];
        behind.starts_with(['$', '{']) || behind.starts_with(scram::PREFIX)
    };
    let at = line.rmatch_indices(':').map(|(at, _)| at).find(begins).or_else(|| line.find(':'))?;
    Some((&line[..at], &line[at + 1..]))
}

/// The name and the hash of a line; `None` for an empty line and a comment.
fn parts(line: &str) -> Option<Result<(&str, &str), String>> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.trim().is_empty() || line.starts_with('#') {
        return None;
    }
    // What came is not told: it may be a password.
    let expected = || Err("expected NAME:HASH".to_owned());
    let Some((name, hash)) = split(line).filter(|(name, _)| !name.is_empty()) else {
        return Some(expected());
    };
    if name.len() > AUTH_NAME_BYTES_MAX {
        return Some(Err(format!(
            "expected a name of at most {AUTH_NAME_BYTES_MAX} bytes, got {}",
            name.len()
        )));
    }
    Some(Ok((name, hash.trim_end())))
}

impl Passwords {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is wrong: its number, what was expected, and what came where that is no secret.
    pub fn read(text: String) -> Result<Passwords, String> {
        if text.len() > AUTH_PASSWORD_FILE_BYTES_MAX {
            return Err(format!("expected at most {AUTH_PASSWORD_FILE_BYTES_MAX} bytes, got {}", text.len()));
        }
        let hasher = ahash::RandomState::new();
        let (mut index, mut at, mut rounds) = (HashTable::new(), 0, None);
        for (number, line) in text.split('\n').enumerate() {
            let fault = |what: String| format!("line {}: {what}", number + 1);
            let start = at;
            at += line.len() + 1;
            let Some(parts) = parts(line) else { continue };
            let (name, hash) = parts.map_err(fault)?;
            match Hash::read(hash) {
                Some(Hash::Scram(verifier)) => rounds = rounds.or(Some(verifier.rounds())),
                Some(_) => {}
                None => return Err(fault(format!("the password of {name:?}: expected {EXPECTED}"))),
            }
            let same = |other: &u32| name_at(&text, *other) == name;
            if index.find(hasher.hash_one(name), same).is_some() {
                return Err(fault(format!("{name:?} is there twice")));
            }
            let hash_of = |other: &u32| hasher.hash_one(name_at(&text, *other));
            // The bound on the file is below that of the index.
            index.insert_unique(hasher.hash_one(name), start as u32, hash_of);
        }
        Ok(Passwords { text: text.into(), index, rounds, hasher })
    }

    /// The hash of a user's password, as it is written.
    pub fn hash_of(&self, name: &str) -> Option<&str> {
        let same = |at: &u32| name_at(&self.text, *at) == name;
        let at = *self.index.find(self.hasher.hash_one(name), same)?;
        parts(line_at(&self.text, at))?.ok().map(|(_, hash)| hash)
    }

    /// The verifier of a user for SCRAM, and whether there is one; else one that nobody can tell from it.
    pub fn verifier_of(&self, name: &str, secret: &Secret) -> (Verifier, bool) {
        let known = self.hash_of(name).and_then(Verifier::read);
        let is_known = known.is_some();
        // Made in any case, so that both take as long.
        let rounds = self.rounds.unwrap_or(const { NonZeroU32::new(SCRAM_ROUNDS_MIN).expect("some rounds") });
        let stand_in = Verifier::stand_in(secret.bytes(), name, rounds);
        (known.unwrap_or(stand_in), is_known)
    }

    /// Any of the hashes, for a check that is to cost what one of a user's would.
    pub fn any_hash(&self) -> Option<&str> {
        let at = *self.index.iter().next()?;
        parts(line_at(&self.text, at))?.ok().map(|(_, hash)| hash)
    }

    /// Users.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

const _: () = assert!(AUTH_PASSWORD_FILE_BYTES_MAX <= u32::MAX as usize, "lines are found by 32 bits");

fn line_at(text: &str, at: u32) -> &str {
    let rest = &text[at as usize..];
    rest.split_once('\n').map_or(rest, |(line, _)| line)
}

fn name_at(text: &str, at: u32) -> &str {
    split(line_at(text, at)).map_or("", |(name, _)| name)
}

/// The text with this user's line added or put in the place of the old one, or taken out where `hash` is `None`;
/// everything else stays as it is, comments as well. Whether there was one is told beside it.
///
/// # Errors
/// What is wrong with the name.
pub fn edited(text: &str, name: &str, hash: Option<&str>) -> Result<(String, bool), String> {
    if name.is_empty() || name.len() > AUTH_NAME_BYTES_MAX || name.starts_with('#') {
        return Err(format!(
            "expected a name of 1 to {AUTH_NAME_BYTES_MAX} bytes that does not begin with #, got {name:?}"
        ));
    }
    if name.contains(char::is_control) {
        return Err(format!("expected a name without control characters, got {name:?}"));
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_of = |line: &String| matches!(parts(line), Some(Ok((other, _))) if other == name);
    let at = lines.iter().position(is_of);
    match (at, hash) {
        (Some(at), Some(hash)) => lines[at] = format!("{name}:{hash}"),
        (Some(at), None) => drop(lines.remove(at)),
        (None, Some(hash)) => lines.push(format!("{name}:{hash}")),
        (None, None) => {}
    }
    Ok((lines.into_iter().map(|line| line + "\n").collect(), at.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$7$101$fAmmIZRX1dvJYKFm$PBNtR5HxvjjiiGh213UZqQby72Z3TlvaDfVStfaiPCcq3Dxyi330EKPBZ9+uxWBpm/OJ/GclujuMfr6lbzIs0Q==";

    #[test]
    fn names_are_found_beside_comments_and_empty_lines() {
        let text = format!("# users\n\nann:{HASH}\r\n  \nj\u{f6}rg:{HASH}\nlast:{HASH}");
        let passwords = Passwords::read(text).unwrap();
        assert_eq!(passwords.len(), 3);
        for name in ["ann", "j\u{f6}rg", "last"] {
            assert_eq!(passwords.hash_of(name), Some(HASH), "{name}");
        }
        for name in ["", "an", "anna", "# users", "bob"] {
            assert_eq!(passwords.hash_of(name), None, "{name}");
        }
        assert!(passwords.any_hash().is_some());
        assert!(Passwords::read(String::new()).unwrap().is_empty());
    }

    #[test]
    fn names_may_hold_colons_and_hashes_too() {
        let scram = Verifier::of(b"secret", b"salt", NonZeroU32::MIN).show();
        assert!(scram.contains(':'));
        for name in ["a", "00:1b:44:11:3a:b7", ":", "a:$b", "{x}:{y}"] {
            for hash in [HASH, &scram, "{SSHA256}K++IuT6AVKFcsl6VkxyKhJbappoGh02HsyUlo1flN6X67QqOtitv9A=="] {
                let passwords = Passwords::read(format!("{name}:{hash}\n")).unwrap();
                assert_eq!((passwords.hash_of(name), passwords.len()), (Some(hash), 1), "{name}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_without_secrets() {
        for (text, expected) in [
            ("ann\n".to_owned(), "line 1: expected NAME:HASH"),
            (format!("\n:{HASH}"), "line 2: expected NAME:HASH"),
            ("ann:secret".to_owned(), "line 1: the password of \"ann\": expected a hash"),
            (format!("ann:{HASH}\nann:{HASH}"), "line 2: \"ann\" is there twice"),
        ] {
            let told = Passwords::read(text).unwrap_err();
            assert!(told.starts_with(expected) && !told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn an_edit_leaves_everything_else_as_it_was() {
        let text = "# c\nann:1\n\nbob:2\n";
        let edit = |name, hash| edited(text, name, hash).unwrap();
        assert_eq!(edit("ann", Some("3")), ("# c\nann:3\n\nbob:2\n".into(), true));
        assert_eq!(edit("eve", Some("3")), ("# c\nann:1\n\nbob:2\neve:3\n".into(), false));
        assert_eq!(edit("ann", None), ("# c\n\nbob:2\n".into(), true));
        assert_eq!(edit("eve", None), (text.into(), false));
        assert_eq!(edit("a:b", Some("$6$x")).0, format!("{text}a:b:$6$x\n"));
        for name in ["", "#a", "a\nb"] {
            assert!(edited(text, name, None).is_err(), "{name:?}");
        }
    }
}
