//! The record of a ban: whom it is about is its name.

use super::BadRecord;
use super::bytes::{Reader, Writer};
use crate::auth::{Ban, Banned};

/// What the names of bans begin with.
pub const BAN_KEY: char = 'b';

/// The name of the record of a ban.
pub fn ban_key(who: &Banned) -> Box<str> {
    format!("{BAN_KEY}{}/{who}", who.kind()).into()
}

/// All of a ban but whom it is about, as bytes.
pub fn encode_ban(ban: &Ban) -> Box<[u8]> {
    let mut w = Writer::new(24 + ban.by.len() + ban.reason.len());
    w.u64(ban.at_s);
    w.u64(ban.until_s);
    w.text(&ban.by);
    w.text(&ban.reason);
    w.finish()
}

/// A ban that was kept under this name.
///
/// # Errors
/// What is wrong with it.
pub fn decode_ban(key: &str, bytes: &[u8]) -> Result<Ban, BadRecord> {
    let named = key.strip_prefix(BAN_KEY).and_then(|key| key.split_once('/'));
    let who = named.and_then(|(kind, who)| Banned::read(kind, who).ok());
    let who = who.ok_or(BadRecord::Field("name of a ban"))?;
    let mut r = Reader::new(bytes)?;
    let (at_s, until_s) = (r.u64()?, r.u64()?);
    let (by, reason) = (r.text("maker")?.into(), r.text("reason")?.into());
    r.finish()?;
    Ok(Ban { who, by, reason, at_s, until_s })
}
