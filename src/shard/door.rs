//! Who comes in: a CONNECT that others must judge waits as the bytes that it is, and is handled again with their
//! verdict.

use super::connection::{Connection, Wait};
use super::exchange::Exchanges;
use super::inquiries::{AskRights, Inquiries};
use super::timers::Timer;
use super::{Handover, Shard};
use crate::auth::{Acl, Bans, Grant, Inquiry, Login, Policy, Verdict};
use crate::codec::{Connect, ReasonCode};
use crate::heap::{allocated, map_bytes};
use crate::io::{Conn, Io};
use crate::limits::{AUTH_WAIT_MS, AUTH_WAITING_MAX};
use crate::listener::{self, Network};
use crate::map::{Map, Slot};
use crate::session::Refusal;
use crate::time::Moment;
use std::net::SocketAddr;
use std::sync::Arc;

/// Hands a login to those who judge it, and never blocks. Their verdict comes as [`super::Command::Judged`].
pub type AskLogin = Box<dyn Fn(Login, Slot) + Send>;

/// What a shard needs to let clients in.
pub(super) struct Door {
    pub policy: Arc<Policy>,
    /// Whether something in it says what clients may do.
    pub has_rules: bool,
    /// What a back-end is asked about that.
    pub inquiries: Inquiries,
    /// Who may not come, whoever vouches for them.
    pub bans: Bans,
    /// Sessions that are looked at again, while rules or bans have changed.
    pub review: Option<Review>,
    /// None where nobody judges, such as in a simulation: every verdict is then that there is no answer.
    ask: Option<AskLogin>,
    /// What whoever vouches for the CONNECT at hand gives it.
    pub fresh: Option<Box<Grant>>,
    /// What was given to those that are connected.
    pub grants: Map<Slot, Granted>,
    /// CONNECTs that wait.
    waiting: Map<Slot, Waiting>,
    /// Who authenticates in several steps.
    pub exchanges: Exchanges,
    /// By number of the listener: whether only this machine can reach it.
    loopback: Vec<bool>,
}

/// Sessions that are looked at again, in a circle: what changes meanwhile adds a round and starts none over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Review {
    /// The next one.
    pub at: u32,
    /// How many are still to be looked at.
    pub left: u32,
}

/// What whoever vouches for a client gave it.
#[derive(Debug)]
pub(super) struct Granted {
    /// When its connection ends.
    pub until: Moment,
    /// What it may do, besides what the rules of all allow.
    pub acl: Option<Acl>,
    /// It may do everything.
    pub superuser: bool,
}

/// A CONNECT that waits.
#[derive(Debug)]
struct Waiting {
    /// The client identifier that was judged, which the broker may have assigned.
    client_id: Box<str>,
    /// Until it is handled again.
    verdict: Option<Verdict>,
}

impl Door {
    pub fn new(policy: Arc<Policy>, ask: Option<AskLogin>, ask_rights: Option<AskRights>) -> Door {
        Door {
            has_rules: policy.has_rules(),
            policy,
            inquiries: Inquiries::new(ask_rights),
            bans: Bans::default(),
            review: None,
            fresh: None,
            grants: Map::default(),
            ask,
            waiting: Map::default(),
            exchanges: Exchanges::default(),
            loopback: Vec::new(),
        }
    }

    /// Bytes that it holds; the policy belongs to all shards.
    pub fn bytes(&self) -> usize {
        let ids = self.waiting.values().map(|w| allocated(w.client_id.len())).sum::<usize>();
        map_bytes::<Slot, Granted>(self.grants.capacity())
            + map_bytes::<Slot, Waiting>(self.waiting.capacity())
            + ids
            + self.inquiries.bytes()
            + self.exchanges.bytes()
            + self.bans.memory()
            + self.loopback.capacity()
    }

    /// Whether nothing is left that the next tick could do.
    pub fn is_idle(&self) -> bool {
        self.review.is_none()
    }

    /// All sessions, of which there are at most so many, are to be looked at again.
    pub fn review(&mut self, sessions: u32) {
        let at = self.review.map_or(0, |review| review.at);
        self.review = (sessions > 0).then_some(Review { at, left: sessions });
    }

    /// A listener is open.
    pub fn listens(&mut self, listener: u16, addr: SocketAddr) {
        let listener = usize::from(listener);
        if self.loopback.len() <= listener {
            self.loopback.resize(listener + 1, false);
        }
        self.loopback[listener] = addr.ip().to_canonical().is_loopback();
    }
}

impl<I: Io<Handover>> Shard<I> {
    /// The client identifier that an earlier handling of the same CONNECT assigned.
    pub(super) fn assigned_before(&self, conn: Conn) -> Option<String> {
        let waiting = self.door.waiting.get(&self.local.conns.slot(conn)?)?;
        Some(waiting.client_id.to_string())
    }

    /// Whether a client may come in; `None` while others judge it, and its connection waits. `mount` is what stands
    /// before its topics.
    pub(super) fn admit(
        &mut self,
        conn: Conn,
        connect: &Connect,
        client_id: &str,
        mount: &str,
    ) -> Option<Result<(), Refusal>> {
        self.door.fresh = None;
        let verdict = match self.verdict_given(conn) {
            Some(verdict) => verdict,
            None if self.door.exchanges.fresh.is_some() => Verdict::Known(None),
            None if self.is_certified(conn) => Verdict::Known(None),
            None if self.door.policy.must_wait(client_id, connect.username, connect.password) => {
                self.ask(conn, connect, client_id)?
            }
            None => Verdict::Silent,
        };
        let admitted = match self.judge(conn, connect, verdict) {
            Ok(()) => self.admit_will(conn, connect, client_id, mount)?,
            refused => refused,
        };
        self.local.counters.authentications += 1;
        Some(admitted)
    }

    /// A CONNECT that may come in waits once more, for what a back-end says of its will; false where nobody can be asked.
    pub(super) fn await_will(&mut self, conn: Conn, inquiry: Inquiry) -> bool {
        let Some(slot) = self.local.conns.slot(conn).filter(|_| self.has_place_to_wait()) else {
            return false;
        };
        let client_id = inquiry.client_id.clone();
        if !self.send_inquiry(conn, inquiry) {
            return false;
        }
        // Who it is was said already.
        let verdict = Some(Verdict::Known(self.door.fresh.take()));
        self.door.waiting.insert(slot, Waiting { client_id, verdict });
        true
    }

    /// Whether a further CONNECT may wait.
    fn has_place_to_wait(&mut self) -> bool {
        if self.door.waiting.len() >= AUTH_WAITING_MAX {
            // Some may have been closed between their verdict and their turn.
            self.door.waiting.retain(|slot, _| self.local.conns.at(*slot).is_some());
        }
        self.door.waiting.len() < AUTH_WAITING_MAX
    }

    /// Whether whoever signed a client's certificate vouches for the user name in it.
    pub(super) fn is_certified(&self, conn: Conn) -> bool {
        let named = |c: &Connection| c.transport.as_ref()?.names()?.username.as_ref().map(|_| ());
        self.local.conns.get(conn).and_then(named).is_some()
    }

    /// The verdict that a CONNECT has waited for.
    fn verdict_given(&mut self, conn: Conn) -> Option<Verdict> {
        if self.door.waiting.is_empty() {
            return None;
        }
        let waiting = self.door.waiting.remove(&self.local.conns.slot(conn)?)?;
        Some(waiting.verdict.unwrap_or(Verdict::NoAnswer))
    }

    /// Asks others about a login; a verdict only where they cannot be asked.
    fn ask(&mut self, conn: Conn, connect: &Connect, client_id: &str) -> Option<Verdict> {
        let Some(slot) = self.local.conns.slot(conn) else { return Some(Verdict::NoAnswer) };
        if !self.has_place_to_wait() {
            return Some(Verdict::Busy);
        }
        let Some(ask) = &self.door.ask else { return Some(Verdict::NoAnswer) };
        let from = self.local.conns.get(conn).and_then(|c| c.peer());
        let login = Login {
            client_id: client_id.into(),
            username: connect.username.map(Into::into),
            password: connect.password.map(Into::into),
            from: from.map(|peer| peer.ip()),
        };
        ask(login, slot);
        self.door.waiting.insert(slot, Waiting { client_id: client_id.into(), verdict: None });
        self.wheel.insert(self.local.now.plus_ms(AUTH_WAIT_MS), Timer::judge(slot));
        self.wait(conn, Wait::Verdict);
        None
    }

    /// Others have judged a login, or nobody did in time.
    pub(super) fn judged(&mut self, slot: Slot, verdict: Verdict) {
        let Some(waiting) = self.door.waiting.get_mut(&slot).filter(|w| w.verdict.is_none()) else { return };
        waiting.verdict = Some(verdict);
        if !self.wake_slot(slot, |wait| wait == Wait::Verdict) {
            // The client has gone.
            self.door.waiting.remove(&slot);
        }
    }

    fn judge(&mut self, conn: Conn, connect: &Connect, verdict: Verdict) -> Result<(), Refusal> {
        let nobody = connect.username.is_none() && connect.password.is_none();
        let anonymous = nobody || self.door.policy.asks_nobody();
        let (code, text) = match verdict {
            Verdict::Known(grant) => {
                self.door.fresh = grant;
                return Ok(());
            }
            Verdict::Silent if anonymous => return self.admit_anonymous(conn),
            Verdict::Silent | Verdict::Wrong => {
                self.local.counters.connect_wrong += 1;
                (ReasonCode::BAD_USERNAME_OR_PASSWORD, "expected a known user name and its password")
            }
            Verdict::Forbidden => {
                self.local.counters.connect_wrong += 1;
                (ReasonCode::NOT_AUTHORIZED, "expected a client that may come in")
            }
            Verdict::HeldOff => {
                self.local.counters.connect_held_off += 1;
                let text =
                    "expected a pause after too many wrong passwords for this name or from this address";
                (ReasonCode::CONNECTION_RATE_EXCEEDED, text)
            }
            Verdict::Busy => {
                self.local.counters.connect_unjudged += 1;
                (ReasonCode::SERVER_BUSY, "too many clients wait to be authenticated; try again later")
            }
            Verdict::NoAnswer => {
                self.local.counters.connect_unjudged += 1;
                (
                    ReasonCode::SERVER_UNAVAILABLE,
                    "the client could not be authenticated in time; try again later",
                )
            }
        };
        Err(Refusal { code, text: text.into() })
    }

    /// A client that nobody vouches for.
    fn admit_anonymous(&mut self, conn: Conn) -> Result<(), Refusal> {
        let listener = self.local.conns.get(conn).map_or(0, |c| c.listener);
        let o = self.local.options.of(listener);
        let text = if !o.allow_anonymous {
            "expected credentials of a known user: mqtt.allow_anonymous is false"
        } else if o.anonymous_local_only && !self.is_local(conn) && !self.came_by_loopback(conn) {
            "expected credentials of a known user: only clients of this machine need none, unless the broker is \
             started with --allow-anonymous (mqtt.anonymous_local_only = false)"
        } else {
            return Ok(());
        };
        self.local.counters.anonymous_refused += 1;
        Err(Refusal { code: ReasonCode::NOT_AUTHORIZED, text: text.into() })
    }

    /// Whether a client is known to be on this machine. The address of a proxy says nothing of those for whom it
    /// speaks, and has given no other one.
    pub(super) fn is_local(&self, conn: Conn) -> bool {
        let Some(c) = self.local.conns.get(conn) else { return false };
        let proxies = self.proxies(c.listener);
        let Some(peer) = c.peer() else {
            let told = self.local.options.listener(c.listener);
            return proxies.is_none() && told.is_some_and(|told| told.kind == listener::Kind::Unix);
        };
        let of_proxy = proxies.is_some_and(|from| from.iter().any(|net| net.contains(peer.ip())));
        peer.ip().to_canonical().is_loopback() && !of_proxy
    }

    /// The proxies that a listener trusts, where its connections come from proxies.
    fn proxies(&self, listener: u8) -> Option<&[Network]> {
        let told = self.local.options.listener(listener)?;
        (told.proxy_protocol || told.x_forwarded_for).then_some(&told.proxy_from)
    }

    /// Whether a client without a known address came to where only this machine can.
    fn came_by_loopback(&self, conn: Conn) -> bool {
        let unknown = |c: &&Connection| c.peer().is_none() && self.proxies(c.listener).is_none();
        let c = self.local.conns.get(conn).filter(unknown);
        c.is_some_and(|c| self.door.loopback.get(usize::from(c.listener)) == Some(&true))
    }

    /// Another policy holds from now on.
    pub(super) fn adopt_policy(&mut self, policy: Arc<Policy>) {
        self.door.has_rules = policy.has_rules();
        self.door.inquiries.start_over();
        self.door.policy = policy;
        self.door.review(self.local.sessions.end());
    }
}
