//! SCRAM-SHA-256 [RFC 5802, RFC 7677], the server's side: a client proves that it knows a password without sending it,
//! and learns that the server knows it too.
//!
//! ```text
//!   client ── n,,n=USER,r=NONCE ──────────────► Exchange::begin
//!          ◄── r=NONCE…,s=SALT,i=ROUNDS ─────── Exchange::challenge
//!          ── c=biws,r=NONCE…,p=PROOF ────────► Exchange::finish
//!          ◄── v=SIGNATURE ──────────────────── Proven::signature
//! ```
//!
//! Who does not exist is asked as everybody is, with a salt that stays the same. There is no channel binding. Names and
//! passwords are taken as they are, without the normal form of SASLprep.

use crate::limits::{AUTH_NAME_BYTES_MAX, AUTH_PBKDF2_ROUNDS_MAX, SCRAM_BYTES_MAX, SCRAM_ROUNDS_MIN};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use std::num::NonZeroU32;
use subtle::ConstantTimeEq;

/// As it is called in an Authentication Method.
pub const METHOD: &str = "SCRAM-SHA-256";
/// How a verifier begins [RFC 5803], as in PostgreSQL.
pub(super) const PREFIX: &str = "SCRAM-SHA-256$";

type Digest = [u8; 32];

/// What is kept of a password: `SCRAM-SHA-256$ROUNDS:SALT$STOREDKEY:SERVERKEY`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    rounds: NonZeroU32,
    salt: Vec<u8>,
    stored: Digest,
    server: Digest,
}

impl Verifier {
    /// Reads one; `None` where it is none, or costs more than a check may.
    pub fn read(text: &str) -> Option<Verifier> {
        let (first, second) = text.strip_prefix(PREFIX)?.split_once('$')?;
        let ((rounds, salt), (stored, server)) = (first.split_once(':')?, second.split_once(':')?);
        let rounds = rounds.parse().ok().filter(|rounds| *rounds <= AUTH_PBKDF2_ROUNDS_MAX)?;
        let key = |text: &str| Digest::try_from(decoded(text)?).ok();
        let salt = decoded(salt).filter(|salt| !salt.is_empty())?;
        Some(Verifier { rounds: NonZeroU32::new(rounds)?, salt, stored: key(stored)?, server: key(server)? })
    }

    /// The verifier of a password. Costs its rounds.
    pub fn of(password: &[u8], salt: &[u8], rounds: NonZeroU32) -> Verifier {
        let mut salted = Digest::default();
        pbkdf2::derive(PBKDF2_HMAC_SHA256, rounds, salt, password, &mut salted);
        let stored = sha256(&signed(&salted, b"Client Key"));
        Verifier { rounds, salt: salt.to_vec(), stored, server: signed(&salted, b"Server Key") }
    }

    /// As [`Verifier::read`] reads it.
    pub fn show(&self) -> String {
        let [salt, stored, server] = [&*self.salt, &self.stored, &self.server].map(encoded);
        format!("{PREFIX}{}:{salt}${stored}:{server}", self.rounds)
    }

    /// Whether this is its password. Costs its rounds.
    pub fn is_of(&self, password: &[u8]) -> bool {
        Verifier::of(password, &self.salt, self.rounds).stored.ct_eq(&self.stored).into()
    }

    /// How often the hash function is applied.
    pub fn rounds(&self) -> NonZeroU32 {
        self.rounds
    }

    /// For a name that is not there, with keys that nobody knows. The same name has the same salt.
    pub fn stand_in(secret: &[u8], user: &str, rounds: NonZeroU32) -> Verifier {
        let made = |what: &[u8]| signed(&signed(secret, what), user.as_bytes());
        Verifier {
            rounds,
            salt: made(b"salt")[..16].to_vec(),
            stored: made(b"stored"),
            server: made(b"server"),
        }
    }
}

/// An exchange that has begun.
pub struct Exchange {
    user: Box<str>,
    /// Whether there is such a user.
    known: bool,
    verifier: Verifier,
    /// Of the client's first message, what stands before the name.
    header: Box<str>,
    /// The client's first message without that.
    first: Box<str>,
    challenge: Box<str>,
    /// The nonce of both.
    nonce: Box<str>,
}

impl std::fmt::Debug for Exchange {
    /// Without keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exchange({:?})", self.user)
    }
}

/// Who has proven to know the password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proven {
    /// The user.
    pub user: Box<str>,
    /// That we know it too.
    pub signature: Box<str>,
}

impl Exchange {
    /// Takes the client's first message. `nonce` is ours, of visible characters without a comma; `find` knows the
    /// verifier of a user, or one that stands in for it, and says which of both.
    pub fn begin(
        message: &[u8],
        nonce: &str,
        find: impl FnOnce(&str) -> (Verifier, bool),
    ) -> Option<Exchange> {
        let message = text(message)?;
        // gs2-header: no channel binding, and perhaps for whom the client acts, which can be nobody else.
        let mut parts = message.splitn(3, ',');
        let (binding, acts_for, first) = (parts.next()?, parts.next()?, parts.next()?);
        if binding != "n" && binding != "y" {
            return None;
        }
        let mut attributes = first.split(',');
        let user = unescaped(attributes.next()?.strip_prefix("n=")?)?;
        let own = attributes.next()?.strip_prefix("r=").filter(|own| is_nonce(own))?;
        let acts_for = match acts_for {
            "" => None,
            name => Some(unescaped(name.strip_prefix("a=")?)?),
        };
        if acts_for.is_some_and(|name| name != user) || user.len() > AUTH_NAME_BYTES_MAX {
            return None;
        }
        let (verifier, known) = find(&user);
        let nonce = format!("{own}{nonce}");
        let challenge = format!("r={nonce},s={},i={}", encoded(&verifier.salt), verifier.rounds);
        Some(Exchange {
            user: user.into(),
            known,
            verifier,
            header: message[..message.len() - first.len()].into(),
            first: first.into(),
            challenge: challenge.into(),
            nonce: nonce.into(),
        })
    }

    /// The server's first message.
    pub fn challenge(&self) -> &str {
        &self.challenge
    }

    /// Whose password is to be proven.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let texts = [&self.user, &self.header, &self.first, &self.challenge, &self.nonce];
        texts.iter().map(|text| text.len()).sum::<usize>() + self.verifier.salt.capacity()
    }

    /// Takes the client's last message; `None` where it does not prove anything.
    pub fn finish(&self, message: &[u8]) -> Option<Proven> {
        let message = text(message)?;
        let (bare, proof) = message.rsplit_once(",p=")?;
        let mut attributes = bare.split(',');
        let binding = decoded(attributes.next()?.strip_prefix("c=")?)?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        // Extensions that are optional may follow; what must be understood stands in front [RFC 5802, 5.1].
        if binding != self.header.as_bytes() || nonce != &*self.nonce {
            return None;
        }
        let proof = Digest::try_from(decoded(proof)?).ok()?;
        let said = format!("{},{},{bare}", self.first, self.challenge);
        let mut key = signed(&self.verifier.stored, said.as_bytes());
        for (byte, proof) in key.iter_mut().zip(proof) {
            *byte ^= proof;
        }
        let right: bool = sha256(&key).ct_eq(&self.verifier.stored).into();
        let signature = format!("v={}", encoded(&signed(&self.verifier.server, said.as_bytes())));
        (right && self.known).then(|| Proven { user: self.user.clone(), signature: signature.into() })
    }
}

/// A message as text, within its bound.
fn text(message: &[u8]) -> Option<&str> {
    let fits = message.len() <= SCRAM_BYTES_MAX && !message.contains(&0);
    fits.then(|| std::str::from_utf8(message).ok()).flatten()
}

fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// A name, in which `=2C` is a comma and `=3D` an equals sign, and nothing else begins so.
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = (part.get(..2)?, &part[2..]);
        text.push(match sign {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        text.push_str(rest);
    }
    (!text.is_empty()).then_some(text)
}

fn signed(key: &[u8], text: &[u8]) -> Digest {
    let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text);
    Digest::try_from(tag.as_ref()).expect("SHA-256 has 32 bytes")
}

fn sha256(text: &[u8]) -> Digest {
    Digest::try_from(digest(&SHA256, text).as_ref()).expect("SHA-256 has 32 bytes")
}

fn encoded(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

const _: () = assert!(SCRAM_ROUNDS_MIN <= AUTH_PBKDF2_ROUNDS_MAX, "what is written can be read");

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677: user `user`, password `pencil`.
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CHALLENGE: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SIGNATURE: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn verifier(password: &str) -> Verifier {
        let salt = decoded("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::of(password.as_bytes(), &salt, NonZeroU32::new(4096).unwrap())
    }

    fn begin(first: &str) -> Option<Exchange> {
        Exchange::begin(first.as_bytes(), NONCE, |_| (verifier("pencil"), true))
    }

    #[test]
    fn the_example_of_the_standard_holds() {
        let exchange = begin(FIRST).unwrap();
        assert_eq!(exchange.challenge(), CHALLENGE);
        let proven = exchange.finish(LAST.as_bytes()).unwrap();
        assert_eq!((&*proven.user, &*proven.signature), ("user", SIGNATURE));
    }

    #[test]
    fn a_wrong_password_a_changed_message_and_somebody_unknown_prove_nothing() {
        let wrong = Exchange::begin(FIRST.as_bytes(), NONCE, |_| (verifier("pen"), true)).unwrap();
        assert_eq!(wrong.finish(LAST.as_bytes()), None);
        let unknown = Exchange::begin(FIRST.as_bytes(), NONCE, |_| (verifier("pencil"), false)).unwrap();
        assert_eq!(unknown.finish(LAST.as_bytes()), None);
        let exchange = begin(FIRST).unwrap();
        for (old, new) in [
            ("biws", "eSws"),
            ("k0,p", "k1,p"),
            ("rOpr", "rOpR"),
            ("dHzb", "dHzc"),
            (",p=", ",p"),
            ("p=", "p=A"),
        ] {
            let changed = LAST.replacen(old, new, 1);
            assert_ne!(changed, LAST);
            assert_eq!(exchange.finish(changed.as_bytes()), None, "{changed}");
        }
        for message in ["", "c=biws", ",p=", "c=biws,r=,p=AAAA", "e=other-error"] {
            assert_eq!(exchange.finish(message.as_bytes()), None, "{message}");
        }
    }

    #[test]
    fn a_first_message_is_what_the_standard_says() {
        for (first, user) in [
            (FIRST, "user"),
            ("y,,n=user,r=a", "user"),
            ("n,a=user,n=user,r=a", "user"),
            ("n,,n=a=2Cb=3D=3Dc,r=a", "a,b==c"),
            ("n,,n=j\u{f6}rg,r=a,ext=1", "j\u{f6}rg"),
        ] {
            assert_eq!(begin(first).map(|exchange| exchange.user), Some(user.into()), "{first}");
        }
        for first in [
            "",
            "n,,",
            "p=tls-unique,,n=user,r=a",
            "n,a=other,n=user,r=a",
            "n,,m=must,n=user,r=a",
            "n,,n=,r=a",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,n=user,r=a b",
            "n,,n=a=2c,r=a",
            "n,,n=a=,r=a",
            "n,,n=a=\u{f6}\u{f6},r=a",
            "n,,n=us\0er,r=a",
            "n,,r=a,n=user",
        ] {
            assert!(begin(first).is_none(), "{first}");
        }
        assert!(begin(&format!("n,,n=user,r={}", "a".repeat(SCRAM_BYTES_MAX))).is_none());
        assert!(Exchange::begin(b"n,,n=\xff,r=a", NONCE, |_| (verifier("x"), true)).is_none());
    }

    #[test]
    fn a_verifier_is_read_as_it_is_written_and_knows_its_password() {
        // Made by another program.
        let other = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let own = verifier("pencil");
        assert_eq!(own.show(), other);
        assert_eq!(Verifier::read(&own.show()).map(|read| read == own), Some(true));
        assert!(own.is_of(b"pencil") && !own.is_of(b"Pencil"));
        let key = encoded(&[7; 32]);
        for text in [
            "",
            "SCRAM-SHA-256$",
            "SCRAM-SHA-256$4096:$a:b",
            &format!("SCRAM-SHA-256$0:c2FsdA==${key}:{key}"),
            &format!("SCRAM-SHA-256$99999999:c2FsdA==${key}:{key}"),
            &format!("SCRAM-SHA-256$4096:${key}:{key}"),
            &format!("SCRAM-SHA-256$4096:c2FsdA==${key}:AAAA"),
            &format!("SCRAM-SHA-1$4096:c2FsdA==${key}:{key}"),
        ] {
            assert!(Verifier::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn who_stands_in_for_nobody_has_a_salt_of_its_own_that_stays() {
        let rounds = NonZeroU32::new(4096).unwrap();
        let of = |secret: &[u8], user| Verifier::stand_in(secret, user, rounds);
        assert!(of(b"secret", "a") == of(b"secret", "a"));
        assert!(of(b"secret", "a").salt != of(b"secret", "b").salt);
        assert!(of(b"secret", "a").salt != of(b"other", "a").salt);
    }
}
