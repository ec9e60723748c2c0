//! Names with hashed passwords, as PHC strings of Argon2.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier};
use std::fmt::{Debug, Formatter};

/// A name that may use the API, and the hash of its password.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    name: Box<str>,
    hash: Box<str>,
}

impl User {
    /// Reads `NAME:HASH`.
    ///
    /// # Errors
    /// What was expected. What came is not told: it may be a password.
    pub fn read(text: &str) -> Result<User, String> {
        let expected = || {
            "expected NAME:HASH with a hash that `ringmq hash-password` printed ($argon2id$v=19$...)"
                .to_owned()
        };
        let (name, hash) = text.split_once(':').ok_or_else(expected)?;
        let parsed = PasswordHash::new(hash).map_err(|_| expected())?;
        if name.is_empty() || !parsed.algorithm.as_str().starts_with("argon2") || parsed.hash.is_none() {
            return Err(expected());
        }
        Ok(User { name: name.into(), hash: hash.into() })
    }

    /// As [`User::read`] reads it.
    pub fn show(&self) -> String {
        format!("{}:{}", self.name, self.hash)
    }
}

impl Debug for User {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "User({})", self.name)
    }
}

/// Whether one of them has this name and password. Costs one hash, also for a name that nobody has.
pub(super) fn check(users: &[User], name: &[u8], password: &[u8]) -> bool {
    // The hash of a password that nobody knows, with the parameters of [`crate::auth::hash::hash`].
    const NOBODY: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5a25vd3NpdA$XG6Bz2oVwFoMxJ7cyH2E6m1pQkQ0V1vG6l5Yt1g2uWk";
    let user = users.iter().find(|user| user.name.as_bytes() == name);
    let hash = user.map_or(NOBODY, |user| &*user.hash);
    let verified = Argon2::default().verify_password(password, hash).is_ok();
    verified & user.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::hash::hash;

    #[test]
    fn a_hash_is_salted_and_checked() {
        let (one, two) = (hash(b"secret").unwrap(), hash(b"secret").unwrap());
        assert_ne!(one, two);
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        let users = [User::read(&format!("a:{one}")).unwrap(), User::read(&format!("b:{two}")).unwrap()];
        assert!(check(&users, b"a", b"secret") && check(&users, b"b", b"secret"));
        assert!(!check(&users, b"a", b"Secret") && !check(&users, b"c", b"secret"));
        assert_eq!(User::read(&users[0].show()), Ok(users[0].clone()));
    }

    #[test]
    fn hashes_of_other_tools_are_read() {
        // argon2-cffi 23: argon2.PasswordHasher().hash("public").
        let other = "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA";
        let users = [User::read(&format!("a:{other}")).unwrap()];
        assert!(check(&users, b"a", b"password"));
    }

    #[test]
    fn what_is_no_hash_is_refused_and_not_told() {
        let plain = "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW";
        for text in [
            "",
            "admin",
            "admin:public",
            ":$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "a:$argon2id$v=19",
            &format!("a:{plain}"),
        ] {
            let told = User::read(text).unwrap_err();
            assert!(told.starts_with("expected NAME:HASH") && !told.contains("public"), "{text}: {told}");
        }
    }

    #[test]
    fn a_debug_line_shows_no_hash() {
        let user = User::read(&format!("a:{}", hash(b"x").unwrap())).unwrap();
        assert_eq!(format!("{user:?}"), "User(a)");
    }
}
