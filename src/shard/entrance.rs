//! What happens to a connection before its first MQTT packet: who may come, how many, how fast, and for whom a
//! proxy speaks.

use super::connection::{Connection, Phase, label};
use super::timers::Timer;
use super::{Handover, Next, Pressure, Shard};
use crate::codec::{ReasonCode, Version};
use crate::io::{Close, Conn, Io};
use crate::limits::{REFUSAL_MS_MAX, REFUSALS_MAX};
use crate::listener::mount::{self, Unmountable};
use crate::listener::proxy::{Parsed, parse};
use crate::listener::{Kind, Listener, Network, forwarded};
use crate::session::{Link, Refusal};
use std::net::SocketAddr;

/// Milliseconds in a second.
const SECOND_MS: u64 = 1_000;

impl<I: Io<Handover>> Shard<I> {
    pub(super) fn handle_accepted(&mut self, conn: Conn, listener: u8, peer: Option<SocketAddr>) {
        let now = self.local.now;
        let link = Link::new(Version::V311, 1, u32::MAX, 0);
        let mut connection = Connection::new(link, listener, peer, now, &mut self.local.gauges);
        self.local.counters.accepts += 1;
        let refused = self.take_place(listener, peer);
        connection.refused = refused.map_or(0, |code| code.0);
        let mut wait_ms = u64::from(self.local.options.of(listener).idle_timeout_s) * SECOND_MS;
        let entrance = self.local.options.listener(listener);
        let proxied = entrance.is_some_and(|listener| listener.proxy_protocol);
        let known = |listener: &Listener| listener.access.permits(peer.map(|peer| peer.ip()));
        let from = |listener: &Listener| peer.is_some_and(|peer| listener.trusts(peer.ip()));
        // Of those for whom a proxy speaks it is not known yet who they are.
        let later = proxied || entrance.is_some_and(|listener| listener.x_forwarded_for && from(listener));
        let welcome = later || entrance.is_none_or(known);
        // One without an address came through a Unix socket, which says who may.
        let local = |listener: &Listener| peer.is_none() && listener.kind == Kind::Unix;
        let trusted = !proxied || entrance.is_none_or(|listener| local(listener) || from(listener));
        if proxied {
            connection.phase = Phase::Proxied;
            let timeout_s = entrance.map_or(0, |listener| listener.proxy_timeout_s);
            wait_ms = u64::from(timeout_s) * SECOND_MS;
        }
        if refused.is_some() {
            self.local.refusing += 1;
            wait_ms = wait_ms.min(REFUSAL_MS_MAX);
        }
        let banned = !proxied && self.is_banned_address(peer);
        let slot = self.local.open(conn, connection);
        self.local.counters.refused_address += u64::from(!welcome);
        self.local.counters.proxy_untrusted += u64::from(!trusted);
        // While the broker drains, it was on its way when the listeners closed; the drain may have passed its index.
        if self.drain.is_some() || !welcome || !trusted || banned || self.local.refusing > REFUSALS_MAX {
            self.log_unwelcome(conn, peer, welcome, trusted);
            self.shut(conn, Close::Now);
            return;
        }
        self.wrap(conn, listener);
        let timer = if proxied { Timer::proxied(slot) } else { Timer::connect(slot) };
        self.wheel.insert(now.plus_ms(wait_ms), timer);
        self.rearm(conn);
    }

    /// Takes a place at a listener, or says why there is none.
    fn take_place(&mut self, listener: u8, peer: Option<SocketAddr>) -> Option<ReasonCode> {
        if self.pressure >= Pressure::Connections {
            self.local.counters.refused_memory += 1;
            return Some(ReasonCode::QUOTA_EXCEEDED);
        }
        // The address of a proxy is that of all for whom it speaks.
        let proxied = self.local.options.listener(listener).is_some_and(|told| told.proxy_protocol);
        if !proxied && !self.may_speak(listener, peer) && !self.permits_address(listener, peer) {
            return Some(ReasonCode::CONNECTION_RATE_EXCEEDED);
        }
        let entrance = self.local.options.entrance(listener)?;
        let told = &entrance.listener;
        let now_ns = self.local.now.0 * 1_000_000;
        if told.max_conn_rate > 0 && !entrance.gate.permit(now_ns, told.max_conn_rate) {
            self.local.counters.refused_rate += 1;
            return Some(ReasonCode::CONNECTION_RATE_EXCEEDED);
        }
        if entrance.gate.enter(told.max_connections) {
            return None;
        }
        self.local.counters.refused_full += 1;
        Some(ReasonCode::QUOTA_EXCEEDED)
    }

    /// Whether a further connection from an address may come now.
    fn permits_address(&mut self, listener: u8, peer: Option<SocketAddr>) -> bool {
        let Some(entrance) = self.local.options.entrance(listener) else { return true };
        let (per_s, Some(peer)) = (entrance.listener.max_conn_rate_per_address, peer) else { return true };
        if per_s == 0 {
            return true;
        }
        // Whoever has one address of IPv6 has 2^64 of them.
        let ip = peer.ip().to_canonical();
        let network = Network::around(ip, if ip.is_ipv4() { 32 } else { 64 });
        let key = self.local.keyed.key(&network.to_string());
        let permitted = entrance.gate.permit_of(key, self.local.now.0 * 1_000_000, per_s);
        self.local.counters.refused_address_rate += u64::from(!permitted);
        permitted
    }

    /// The driver has closed a connection: its place is free.
    pub(super) fn handle_closed(&mut self, conn: Conn) {
        self.drop_exchange(conn);
        self.drop_inquiries(conn);
        self.paces.forget(conn);
        if let Some((listener, refused)) = self.local.remove_connection(conn) {
            if refused {
                self.local.refusing -= 1;
            } else if let Some(entrance) = self.local.options.entrance(listener) {
                entrance.gate.leave();
            }
        }
        self.accept_again();
    }

    fn log_unwelcome(&mut self, conn: Conn, peer: Option<SocketAddr>, welcome: bool, trusted: bool) {
        if (welcome && trusted) || !self.may_log() {
            return;
        }
        let why =
            if welcome { "sends no PROXY header that counts" } else { "is in a network that may not come" };
        tracing::info!("{} is closed: its address {why}", label(conn, peer));
    }

    /// CONNECT of one for whom there was no place.
    pub(super) fn refuse_surplus(&mut self, conn: Conn, version: Version, code: ReasonCode) -> Next {
        let text = match code {
            ReasonCode::CONNECTION_RATE_EXCEEDED => {
                "the listener takes no more connections in this second, or none from this address"
            }
            _ if self.pressure >= Pressure::Connections => "the broker has no memory for further connections",
            _ => "the listener has as many connections as it may",
        };
        self.refuse(conn, version, &Refusal { code, text: text.into() })
    }

    /// What stands before the topics of a client that came through a listener.
    pub(super) fn mountpoint_of(
        &self,
        listener: u8,
        client_id: &str,
        username: Option<&str>,
    ) -> Result<String, Refusal> {
        let template = self.local.options.listener(listener).map_or("", |told| &*told.mountpoint);
        mount::fill(template, client_id, username).map_err(|which| {
            let (code, what) = match which {
                Unmountable::ClientId => (ReasonCode::CLIENT_ID_NOT_VALID, "a client identifier"),
                Unmountable::Username => (ReasonCode::BAD_USERNAME_OR_PASSWORD, "a user name"),
            };
            let text = format!("expected {what} without /, + and #, for the mountpoint has it");
            Refusal { code, text }
        })
    }

    /// Takes the PROXY header from what came; returns what stands behind it, or `None` when nothing is to be done.
    pub(super) fn take_proxy_header<'a>(&mut self, conn: Conn, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let c = self.local.conns.get_mut(conn)?;
        let before = c.pending.len();
        // Nearly always it comes in one piece, and is read where it lies.
        let parsed = if before == 0 {
            parse(bytes)
        } else {
            c.pending.extend_from_slice(bytes);
            parse(&c.pending)
        };
        let (len, source) = match parsed {
            Ok(Parsed::Header { len, source }) => (len, source),
            Ok(Parsed::Incomplete) => {
                if before == 0 {
                    c.pending.extend_from_slice(bytes);
                }
                return None;
            }
            Err(text) => {
                let peer = c.peer();
                self.local.counters.proxy_errors += 1;
                if self.may_log() {
                    tracing::info!("{} is closed: {text}", label(conn, peer));
                }
                self.shut(conn, Close::Reset);
                return None;
            }
        };
        c.pending = Vec::new();
        c.phase = Phase::Connecting;
        if source.is_some() {
            c.set_peer(source);
        }
        let (peer, listener, surplus) = (c.peer(), c.listener, c.refused != 0);
        // A proxy's own connection has no other address than the proxy's.
        let more = self.may_speak(listener, peer);
        if !more && !self.check_address(conn) {
            return None;
        }
        let idle_ms = u64::from(self.local.options.of(listener).idle_timeout_s) * SECOND_MS;
        let wait_ms = if surplus { idle_ms.min(REFUSAL_MS_MAX) } else { idle_ms };
        let slot = self.local.conns.slot(conn)?;
        self.wheel.insert(self.local.now.plus_ms(wait_ms), Timer::connect(slot));
        // More than the header's end cannot have been there before.
        bytes.get(len.saturating_sub(before)..)
    }

    /// Whether whoever has this address may say in an upgrade request for whom it speaks.
    fn may_speak(&self, listener: u8, peer: Option<SocketAddr>) -> bool {
        let told = self.local.options.listener(listener).filter(|told| told.x_forwarded_for);
        told.is_some_and(|told| peer.is_some_and(|peer| told.trusts(peer.ip())))
    }

    /// An upgrade request was granted: whose connection it is, where a proxy may say that. Whether it goes on.
    pub(super) fn take_forwarded(&mut self, conn: Conn) -> bool {
        let Some(c) = self.local.conns.get_mut(conn) else { return false };
        let values = c.transport.as_mut().and_then(|transport| transport.take_forwarded());
        c.count_transport(&mut self.local.memory);
        let (peer, listener) = (c.peer(), c.listener);
        let Some(proxy) = peer.filter(|_| self.may_speak(listener, peer)) else { return true };
        let told = self.local.options.listener(listener);
        let is_trusted = |addr| told.is_some_and(|told| told.trusts(addr));
        match forwarded::client(values.as_deref().unwrap_or_default(), is_trusted) {
            Ok(None) => {}
            Ok(Some(addr)) => {
                if let Some(c) = self.local.conns.get_mut(conn) {
                    // Its port is not known; the proxy's tells it apart as well.
                    c.set_peer(Some(SocketAddr::new(addr, proxy.port())));
                }
            }
            Err(text) => {
                self.local.counters.proxy_errors += 1;
                if self.may_log() {
                    tracing::info!("{} is closed: {text}", label(conn, peer));
                }
                self.shut(conn, Close::Reset);
                return false;
            }
        }
        self.check_address(conn)
    }

    /// Whether a connection may come, now that it is known whose it is; else it is closed.
    fn check_address(&mut self, conn: Conn) -> bool {
        let Some(c) = self.local.conns.get(conn) else { return false };
        let (peer, listener) = (c.peer(), c.listener);
        let told = self.local.options.listener(listener);
        if told.is_none_or(|told| told.access.permits(peer.map(|peer| peer.ip()))) {
            if !self.is_banned_address(peer) && self.permits_address(listener, peer) {
                return true;
            }
            self.shut(conn, Close::Now);
            return false;
        }
        self.local.counters.refused_address += 1;
        self.log_unwelcome(conn, peer, false, true);
        self.shut(conn, Close::Now);
        false
    }
}
