//! The record of a session: all of it but its queue.

use super::bytes::{Reader, Writer};
use super::message::{put_message, read_message};
use super::{BadRecord, Day};
use crate::limits::SUBSCRIPTION_ID_MAX;
use crate::message::Message;
use crate::topic::parse_subscription;
use crate::trie::SubOptions;

/// A session that outlives its connections.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// Client identifier.
    pub client_id: Box<str>,
    /// User name of its last CONNECT.
    pub username: Option<Box<str>>,
    /// Session Expiry Interval in seconds; `u32::MAX` = never ends.
    pub expiry_s: u32,
    /// When it ends, in milliseconds since 1970; `None`: it had a connection, or it never ends.
    pub ends_ms: Option<u64>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// What it is subscribed to.
    pub subscriptions: Vec<SubscriptionRecord>,
    /// Its will, while it may be published.
    pub will: Option<WillRecord>,
}

/// A subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriptionRecord {
    /// The topic filter, with `$share/name/` in front for a shared subscription.
    pub filter: Box<str>,
    /// Its options.
    pub options: SubOptions,
    /// Subscription identifier, 0 = none.
    pub id: u32,
}

/// A will.
#[derive(Clone, Debug)]
pub struct WillRecord {
    /// The message as it was given with CONNECT.
    pub message: Message,
    /// Will Delay Interval in seconds.
    pub delay_s: u32,
    /// Message Expiry Interval in seconds, from publication on.
    pub expiry_s: Option<u32>,
    /// When it is due, in milliseconds since 1970; `None`: its connection was there.
    pub due_ms: Option<u64>,
}

impl SessionRecord {
    /// As bytes.
    pub fn encode(&self, day: Day) -> Box<[u8]> {
        let mut w = Writer::new(64 + self.client_id.len() + 32 * self.subscriptions.len());
        w.text(&self.client_id);
        w.u8(u8::from(self.username.is_some()));
        w.text(self.username.as_deref().unwrap_or_default());
        w.u32(self.expiry_s);
        w.u64(self.ends_ms.unwrap_or(u64::MAX));
        w.u64(self.created_ms);
        w.u32(self.subscriptions.len() as u32);
        for s in &self.subscriptions {
            w.text(&s.filter);
            w.u8(s.options.bits());
            w.u32(s.id);
        }
        w.u8(u8::from(self.will.is_some()));
        if let Some(will) = &self.will {
            w.u32(will.delay_s);
            w.u8(u8::from(will.expiry_s.is_some()));
            w.u32(will.expiry_s.unwrap_or_default());
            w.u64(will.due_ms.unwrap_or(u64::MAX));
            put_message(&mut w, &will.message.view(), day);
        }
        w.finish()
    }

    /// From bytes that [`SessionRecord::encode`] made.
    ///
    /// # Errors
    /// When the record is damaged or of another version.
    pub fn decode(record: &[u8], day: Day) -> Result<SessionRecord, BadRecord> {
        let mut r = Reader::new(record)?;
        let client_id = r.text("client identifier")?.into();
        let named = r.flag("user name")?;
        let username = r.text("user name")?;
        let expiry_s = r.u32()?;
        let ends_ms = known(r.u64()?);
        let created_ms = r.u64()?;
        let count = r.u32()? as usize;
        let mut subscriptions = Vec::new();
        for _ in 0..count {
            let filter = r.text("topic filter")?;
            parse_subscription(filter, 0).map_err(|_| BadRecord::Field("topic filter"))?;
            let options = SubOptions::from_bits(r.u8()?).ok_or(BadRecord::Field("subscription options"))?;
            let id = r.u32()?;
            if id > SUBSCRIPTION_ID_MAX {
                return Err(BadRecord::Field("subscription identifier"));
            }
            subscriptions.push(SubscriptionRecord { filter: filter.into(), options, id });
        }
        let mut will = None;
        if r.flag("will")? {
            let delay_s = r.u32()?;
            let expires = r.flag("expiry of a will")?;
            let expiry_s = Some(r.u32()?).filter(|_| expires);
            let due_ms = known(r.u64()?);
            will = Some(WillRecord { delay_s, expiry_s, due_ms, message: read_message(&mut r, day)? });
        }
        r.finish()?;
        let username = named.then(|| username.into());
        Ok(SessionRecord { client_id, username, expiry_s, ends_ms, created_ms, subscriptions, will })
    }
}

fn known(wall_ms: u64) -> Option<u64> {
    (wall_ms != u64::MAX).then_some(wall_ms)
}
