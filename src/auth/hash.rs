//! Hashes of passwords, as other programs and `ringmq passwd` write them.
//!
//! | begins with | what it is |
//! |---|---|
//! | `$argon2id$` `$argon2i$` `$argon2d$` | Argon2, a PHC string |
//! | `$pbkdf2-sha256$` `$pbkdf2-sha512$` `$pbkdf2$` | PBKDF2 (SHA-256, SHA-512, SHA-1), a PHC string or one of passlib |
//! | `$2a$` `$2b$` `$2x$` `$2y$` | bcrypt |
//! | `$7$` | PBKDF2 with SHA-512, as mosquitto 2 writes it |
//! | `$6$` | SHA-512 over password and salt, as mosquitto 1 writes it |
//! | `SCRAM-SHA-256$` | a verifier of SCRAM [RFC 5803], as `ringmq passwd --scram` and PostgreSQL write it |
//! | `{SSHA256}` `{SSHA512}` | SHA-2 over password and salt, as LDAP servers write it |
//!
//! What a check costs has a bound, whatever the file says.

use super::scram::Verifier;
use crate::limits::{AUTH_ARGON2_KIB_MAX, AUTH_BCRYPT_COST_MAX, AUTH_PBKDF2_ROUNDS_MAX};
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use base64::Engine;
use base64::alphabet::{BCRYPT, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::digest::{Algorithm, Context, SHA256, SHA512};
use ring::pbkdf2;
use std::num::NonZeroU32;
use subtle::ConstantTimeEq;

/// Base 64 with or without padding.
const ANY: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A hash of a password, read and within the bounds of what it costs.
pub enum Hash<'a> {
    /// Argon2, as it is written.
    Argon2(&'a str),
    /// Bcrypt, as it is written.
    Bcrypt(&'a str),
    /// PBKDF2.
    Pbkdf2 {
        /// Which hash function it is made of.
        algorithm: pbkdf2::Algorithm,
        /// How often that is applied.
        rounds: NonZeroU32,
        /// The salt.
        salt: Vec<u8>,
        /// What must come out.
        key: Vec<u8>,
    },
    /// A verifier of SCRAM.
    Scram(Verifier),
    /// SHA-2 over password and salt.
    Salted {
        /// Which.
        algorithm: &'static Algorithm,
        /// The salt.
        salt: Vec<u8>,
        /// What must come out.
        digest: Vec<u8>,
    },
}

/// What [`Hash::read`] expects, for the operator.
pub const EXPECTED: &str = "a hash of Argon2, bcrypt, PBKDF2, SCRAM-SHA-256 or salted SHA-2 within the bounds of its cost \
    (`ringmq passwd` writes $argon2id$...)";

impl<'a> Hash<'a> {
    /// Reads one; `None` where it is none that can be checked, or costs more than a check may.
    pub fn read(text: &'a str) -> Option<Hash<'a>> {
        if let Some(rest) = text.strip_prefix('{') {
            let (name, encoded) = rest.split_once('}')?;
            let algorithm = match name {
                "SSHA256" => &SHA256,
                "SSHA512" => &SHA512,
                _ => return None,
            };
            let mut digest = ANY.decode(encoded).ok()?;
            let len = algorithm.output_len();
            // Without a salt it is not worth the name.
            let salt = (digest.len() > len).then(|| digest.split_off(len))?;
            return Some(Hash::Salted { algorithm, salt, digest });
        }
        if let Some(verifier) = Verifier::read(text) {
            return Some(Hash::Scram(verifier));
        }
        let (name, rest) = text.strip_prefix('$')?.split_once('$')?;
        match name {
            "argon2id" | "argon2i" | "argon2d" => {
                let parsed = PasswordHash::new(text).ok()?;
                let memory = parsed.params.get_decimal("m")?;
                let passes = parsed.params.get_decimal("t")?;
                let cost = u64::from(memory) * u64::from(passes);
                let fits = memory <= AUTH_ARGON2_KIB_MAX && cost <= 4 * u64::from(AUTH_ARGON2_KIB_MAX);
                (fits && parsed.salt.is_some() && parsed.hash.is_some()).then_some(Hash::Argon2(text))
            }
            "2a" | "2b" | "2x" | "2y" => {
                let (cost, body) = rest.split_once('$')?;
                let fits = cost.len() == 2 && (4..=AUTH_BCRYPT_COST_MAX).contains(&cost.parse().ok()?);
                let letters = |byte: u8| BCRYPT.as_str().as_bytes().contains(&byte);
                (fits && body.len() == 53 && body.bytes().all(letters)).then_some(Hash::Bcrypt(text))
            }
            "pbkdf2" => pbkdf2_of(pbkdf2::PBKDF2_HMAC_SHA1, rest),
            "pbkdf2-sha256" => pbkdf2_of(pbkdf2::PBKDF2_HMAC_SHA256, rest),
            "pbkdf2-sha512" | "7" => pbkdf2_of(pbkdf2::PBKDF2_HMAC_SHA512, rest),
            "6" => {
                let (salt, digest) = rest.split_once('$')?;
                let (salt, digest) = (ANY.decode(salt).ok()?, ANY.decode(digest).ok()?);
                let fits = !salt.is_empty() && digest.len() == SHA512.output_len();
                fits.then_some(Hash::Salted { algorithm: &SHA512, salt, digest })
            }
            _ => None,
        }
    }

    /// Whether this is its password. Costs what the hash was made to cost: up to seconds.
    pub fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Hash::Argon2(text) => Argon2::default().verify_password(password, *text).is_ok(),
            Hash::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Hash::Pbkdf2 { algorithm, rounds, salt, key } => {
                pbkdf2::verify(*algorithm, *rounds, salt, password, key).is_ok()
            }
            Hash::Scram(verifier) => verifier.is_of(password),
            Hash::Salted { algorithm, salt, digest } => {
                let mut context = Context::new(algorithm);
                context.update(password);
                context.update(salt);
                context.finish().as_ref().ct_eq(digest).into()
            }
        }
    }
}

/// `ROUNDS$SALT$KEY`, where the rounds may be written as `i=ROUNDS,l=BYTES`.
fn pbkdf2_of(algorithm: pbkdf2::Algorithm, text: &str) -> Option<Hash<'static>> {
    let mut parts = text.split('$');
    let (params, salt, key) = (parts.next()?, parts.next()?, parts.next()?);
    let rounds = params.split(',').find_map(|param| param.strip_prefix("i=")).unwrap_or(params);
    let rounds = rounds.parse().ok().filter(|rounds| *rounds <= AUTH_PBKDF2_ROUNDS_MAX)?;
    // passlib writes a point for a plus.
    let decode = |text: &str| ANY.decode(text.replace('.', "+")).ok().filter(|bytes| !bytes.is_empty());
    let (salt, key) = (decode(salt)?, decode(key)?);
    let fits = parts.next().is_none() && (16..=64).contains(&key.len());
    fits.then_some(Hash::Pbkdf2 { algorithm, rounds: NonZeroU32::new(rounds)?, salt, key })
}

/// The hash of a password, by Argon2id with a salt of its own: 19 MiB and two passes, as OWASP advises.
///
/// # Errors
/// Why there is none, in one line.
pub fn hash(password: &[u8]) -> Result<String, String> {
    let hashed: Result<PasswordHash, _> = Argon2::default().hash_password(password);
    hashed.map(|hash| hash.to_string()).map_err(|error| format!("the password cannot be hashed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind, made by another program from `secret`.
    const OF_SECRET: &[&str] = &[
        // argon2-cffi: PasswordHasher, small.
        "$argon2id$v=19$m=64,t=1,p=1$idqekwfHFZ8MW42O+4c6Hg$5sidGlwSscZjrJGKKhLHZw3adEiHrWhlnQsQYFgyN1U",
        // argon2-cffi: Argon2i.
        "$argon2i$v=19$m=64,t=1,p=2$0YWMuxV0Ir3YanFAnsS8Lw$VfYJI5u2hFgKJ6UBf8f9YzmHL4prcgzwmR3FEM7l+yE",
        // bcrypt of Python.
        "$2b$04$7dGTs8eSA5BNgg/kWzAETOgYrWvjGBY7Q214xjOhWx86Jqq7eV43y",
        "$2a$04$NsuJTVYW/8ZU09t6.oZrR.pokaIIJ6fh5sEWF5zy2Tk7Pl./ayMq6",
        // passlib: pbkdf2_sha256, pbkdf2_sha512, pbkdf2_sha1.
        "$pbkdf2-sha256$1000$RKi11roXYsxZq3UuJWQMYQ$F3mnqldEiziLaf488ixJXxTTFZuutiLsl2SPOp6n3Fc",
        "$pbkdf2-sha512$1000$W8u5d845RygFwLjXmrP2Xg$MUEIu2oXPidcyKRG93e3uAn1rhoZFDSoQ4o8l9uPmXflaFGDiee8j4mqgwC3mJz5YJ2urfBCqQd6LVE3LgBkDQ",
        "$pbkdf2$1000$IYSQUmrNmROi1DrHmLMWog$QsGobE7aqKwZIjCCf7UG18t5hs0",
        // A PHC string.
        "$pbkdf2-sha256$i=1000,l=32$eoNFSXUIVvXaygAkqZFnEg$aL5Nk+5apwgxL2qQ5BAYBWkdIRjswOaS5TAbixjXtt0",
        // mosquitto_passwd 2.0.11.
        "$7$101$fAmmIZRX1dvJYKFm$PBNtR5HxvjjiiGh213UZqQby72Z3TlvaDfVStfaiPCcq3Dxyi330EKPBZ9+uxWBpm/OJ/GclujuMfr6lbzIs0Q==",
        // the same with -H sha512.
        "$6$v0a2bcwCEEOCgW2z$wetQDcuUg0oUJ61iygRQ/eP2vxZOFE6EW0a2yviKG9rGRi7T340ddTLOFi8iONmdXGIJt9u9uag/P9hg2suUVg==",
        // OpenLDAP's pw-sha2.
        "{SSHA256}K++IuT6AVKFcsl6VkxyKhJbappoGh02HsyUlo1flN6X67QqOtitv9A==",
        "{SSHA512}kEThIq/ZWuAzhCIbbSioPGptJ17ALLTeRE983vyi3wfsVDf1FPl6wCbh0xG/gOpRyOSw3xZR6v/tlWx5Jadj4PrtCo62K2/0",
    ];

    #[test]
    fn each_kind_knows_its_password_alone() {
        let own = hash(b"secret").unwrap();
        for text in OF_SECRET.iter().copied().chain([&*own]) {
            let hash = Hash::read(text).unwrap_or_else(|| panic!("{text}"));
            assert!(hash.is_of(b"secret"), "{text}");
            assert!(!hash.is_of(b"Secret") && !hash.is_of(b""), "{text}");
        }
    }

    #[test]
    fn what_is_no_hash_or_costs_too_much_is_not_read() {
        for text in [
            "",
            "secret",
            "$",
            "$$",
            "$1$abc$def",
            "{SSHA256}",
            "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
            "{SSHA512}AAAA",
            "$6$$AAAA",
            "$6$c2FsdA==$c2hvcnQ=",
            "$7$0$c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "$7$99999999999$c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "$pbkdf2-sha256$i=100000000$c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$2b$31$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW",
            "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31l",
            "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=65536,t=4000000,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ",
        ] {
            assert!(Hash::read(text).is_none(), "{text}");
        }
    }
}
