//! Who is banned: kept out where it comes, and ended where it is connected already.
//!
//! Each shard has all bans. Where there are none, nobody who comes pays for more than one comparison.

use super::sessions::End;
use super::{Handover, Shard};
use crate::auth::{Ban, Banned};
use crate::codec::{Connect, ReasonCode};
use crate::io::{Conn, Io};
use crate::limits::BANS_EXPIRED_AT_ONCE;
use crate::record::{ban_key, encode_ban};
use crate::session::Refusal;
use crate::store::Change;
use crate::time::Moment;
use std::net::SocketAddr;
use std::sync::Arc;

impl<I: Io<Handover>> Shard<I> {
    /// A ban holds from now on. A client that it names is disconnected at once, others in the ticks that follow.
    pub(super) fn ban(&mut self, ban: Arc<Ban>, until: Moment) {
        self.expire_bans();
        self.door.bans.put(ban.clone(), until);
        match &ban.who {
            Banned::ClientId(client_id) => {
                if let Some(index) = self.client(client_id) {
                    self.end_if_banned(index);
                }
            }
            Banned::Username(_) | Banned::Network(_) => self.door.review(self.local.sessions.end()),
        }
    }

    /// Forgets bans that have ended.
    fn expire_bans(&mut self) {
        for ban in self.door.bans.expire(self.local.now, BANS_EXPIRED_AT_ONCE) {
            self.forget_ban(&ban.who);
        }
    }

    /// A ban that somebody made outlives the process. All shards have it; the first one keeps it.
    pub(super) fn keep_ban(&mut self, ban: &Ban) {
        if let (0, Some(keeper)) = (self.me, &mut self.local.keeper) {
            keeper.put(Change::PutMeta { key: ban_key(&ban.who), bytes: encode_ban(ban) });
        }
    }

    /// A ban is kept no longer, if it was.
    pub(super) fn forget_ban(&mut self, who: &Banned) {
        if let (0, Some(keeper)) = (self.me, &mut self.local.keeper) {
            keeper.put(Change::DropMeta { key: ban_key(who) });
        }
    }

    /// Whether who connects from there is banned, whatever its names.
    pub(super) fn is_banned_address(&mut self, peer: Option<SocketAddr>) -> bool {
        if self.door.bans.is_empty() {
            return false;
        }
        self.expire_bans();
        let banned = peer.is_some_and(|peer| self.door.bans.hits_address(peer.ip(), self.local.now));
        self.local.counters.refused_banned += u64::from(banned);
        banned
    }

    /// Whether a CONNECT is of one who is banned.
    pub(super) fn refuse_banned(&mut self, conn: Conn, connect: &Connect) -> Option<Refusal> {
        if self.door.bans.is_empty() {
            return None;
        }
        let now = self.local.now;
        self.expire_bans();
        let from = self.local.conns.get(conn).and_then(|c| c.peer()).map(|peer| peer.ip());
        if !self.door.bans.hits(connect.client_id, connect.username, from, now) {
            return None;
        }
        self.local.counters.refused_banned += 1;
        let text = "this client identifier, user name or address is banned".into();
        Some(Refusal { code: ReasonCode::BANNED, text })
    }

    /// Ends the connection of a session whose client is banned; whether it did. The session stays for as long as it
    /// would have otherwise.
    pub(super) fn end_if_banned(&mut self, index: u32) -> bool {
        if self.door.bans.is_empty() {
            return false;
        }
        let Some(session) = self.local.sessions.get(index) else { return false };
        let Some(conn) = session.conn else { return false };
        let username = session.profile.as_deref().and_then(|profile| profile.username.as_deref());
        let from = self.local.conns.get(conn).and_then(|c| c.peer()).map(|peer| peer.ip());
        if !self.door.bans.hits(&session.client_id, username, from, self.local.now) {
            return false;
        }
        self.local.counters.banned_ended += 1;
        // DISCONNECT has no 0x8A [MQTT-3.14.2.1 of 5.0].
        let text = "this client is banned";
        self.disconnect(conn, ReasonCode::ADMINISTRATIVE_ACTION, text, End::Lost);
        true
    }
}
