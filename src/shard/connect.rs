//! CONNECT: home, takeover, resume, and the ways to refuse.

use super::connection::{Asked, Connection, Phase, Wait};
use super::exchange::{add_auth, method_of};
use super::keep::After;
use super::sessions::End;
use super::timers::Timer;
use super::{Fault, Handover, Next, Shard};
use crate::auth::scram::Proven;
use crate::codec::{
    ConnAck, Connect, Packet, PacketType, Properties, Property, PropertyBuf, ReasonCode, Version,
};
use crate::desk::What;
use crate::io::{Conn, Io, ShardId};
use crate::limits::{HAND_OVERS_MAX, PACKET_BYTES_MAX};
use crate::session::{Accepted, Entry, Link, Refusal, Session};
use crate::session::{answer_terms, check_connect, connack_properties};
use crate::time::Moment;
use crate::transport::PeerNames;

/// Refusals of a client for who it is.
const DENIED: &[ReasonCode] = &[
    ReasonCode::BAD_USERNAME_OR_PASSWORD,
    ReasonCode::NOT_AUTHORIZED,
    ReasonCode::BANNED,
    ReasonCode::BAD_AUTHENTICATION_METHOD,
];

impl<I: Io<Handover>> Shard<I> {
    /// The shard that a client lives on.
    fn home(&self, key: u64) -> ShardId {
        (key % u64::from(self.shards)) as ShardId
    }

    /// An identifier for a client without one, such that this shard is its home [MQTT-3.1.3-6 of 5.0].
    pub(super) fn assign_client_id(&mut self) -> String {
        loop {
            // Hashed, because the generator's own output tells all that follow, and with one's identifier
            // anybody takes the session over.
            let random = format!("assigned {:x}", self.random());
            let id = format!("ringmq-{:016x}", self.local.keyed.key(&random));
            let key = self.local.keyed.key(&id);
            if self.home(key) == self.me && self.local.session_of(&id, key).is_none() {
                return id;
            }
        }
    }

    pub(super) fn handle_connect(
        &mut self,
        conn: Conn,
        connect: &Connect,
        bytes: &[u8],
        rest: &[u8],
        behind: &[u8],
    ) -> Result<Next, Fault> {
        let names = self.local.conns.get(conn).and_then(|c| c.transport.as_ref()?.names().cloned());
        let proven = self.door.exchanges.fresh.clone();
        let connect = &named(connect, names.as_ref(), proven.as_ref());
        let version = connect.version;
        let terms = answer_terms(connect);
        self.local.with_link(conn, |c, _| {
            c.link.version = version;
            (c.link.packet_bytes_max, c.link.problem_information) = terms;
        });
        let Some((listener, refused)) = self.local.conns.get(conn).map(|c| (c.listener, c.refused)) else {
            return Ok(Next::Gone);
        };
        if refused != 0 {
            return Ok(self.refuse_surplus(conn, version, ReasonCode(refused)));
        }
        if let Some(refusal) = self.refuse_banned(conn, connect) {
            return Ok(self.refuse(conn, version, &refusal));
        }
        let mut assigned = None;
        if connect.client_id.is_empty() {
            if version == Version::V31 || (version == Version::V311 && !connect.clean_start) {
                let text = "expected a client identifier, got none with Clean Session 0"; // [MQTT-3.1.3-8]
                let refusal = Refusal { code: ReasonCode::CLIENT_ID_NOT_VALID, text: text.into() };
                return Ok(self.refuse(conn, version, &refusal));
            }
            assigned = Some(self.assigned_before(conn).unwrap_or_else(|| self.assign_client_id()));
        }
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let key = self.local.keyed.key(client_id);
        let home = self.home(key);
        if home != self.me {
            if self.local.conns.get(conn).is_some_and(|c| c.busy || c.has_output()) {
                // The end of a handshake leaves first.
                self.wait(conn, Wait::Output);
                return Ok(Next::Wait);
            }
            return Ok(self.move_home(conn, home, [bytes, rest, behind].concat()));
        }
        if let (Some(method), None) = (method_of(&connect.properties), &proven) {
            return Ok(self.begin_connect(conn, connect, method, bytes));
        }
        let mount = match self.mountpoint_of(listener, client_id, connect.username) {
            Ok(mount) => mount,
            Err(refusal) => return Ok(self.refuse(conn, version, &refusal)),
        };
        let accepted = match check_connect(connect, key, &mount, self.local.options.of(listener)) {
            Ok(accepted) => accepted,
            Err(refusal) => return Ok(self.refuse(conn, version, &refusal)),
        };
        match self.admit(conn, connect, client_id, &mount) {
            None => return Ok(Next::Wait),
            Some(Err(refusal)) => return Ok(self.refuse(conn, version, &refusal)),
            Some(Ok(())) => {}
        }
        if self.drain.is_some() {
            let text = "the broker is shutting down".into();
            // CONNACK has no 0x8B [MQTT-3.2.2-8 of 5.0].
            let code = match self.farewell_code() {
                ReasonCode::SERVER_SHUTTING_DOWN => ReasonCode::SERVER_UNAVAILABLE,
                code => code,
            };
            return Ok(self.refuse(conn, version, &Refusal { code, text }));
        }
        if let Some(refusal) = self.refuse_unwritable(client_id, key, accepted.expiry_s) {
            return Ok(self.refuse(conn, version, &refusal));
        }
        let mut properties =
            connack_properties(&accepted, assigned.as_deref(), self.local.options.of(listener));
        if let Some(proven) = &proven {
            add_auth(&mut properties, &proven.signature);
        }
        if !self.connack_fits(conn, &properties) {
            let text = "expected a Maximum Packet Size with room for CONNACK".into();
            return Ok(self.refuse(conn, version, &Refusal { code: ReasonCode::PACKET_TOO_LARGE, text }));
        }
        self.local.counters.anonymous += u64::from(connect.username.is_none());
        self.accept(conn, connect, (client_id, key, &mount), accepted, &properties);
        self.keep_grant(conn);
        Ok(Next::Go)
    }

    /// Whether a client takes the CONNACK that says what it must know [MQTT-3.1.2-24 of 5.0].
    fn connack_fits(&self, conn: Conn, properties: &PropertyBuf) -> bool {
        let (code, properties) = (ReasonCode::SUCCESS, properties.as_properties());
        let connack = Packet::ConnAck(ConnAck { session_present: false, code, properties });
        self.local.conns.get(conn).is_some_and(|c| c.link.fits(&connack))
    }

    fn accept(
        &mut self,
        conn: Conn,
        connect: &Connect,
        (client_id, key, mount): (&str, u64, &str),
        accepted: Accepted,
        properties: &PropertyBuf,
    ) {
        let writes = self.writes();
        let (index, present) = self.take_session(client_id, key, connect.clean_start);
        let version = connect.version;
        let (packet_bytes_max, problem_information) = answer_terms(connect);
        let Some(listener) = self.local.conns.get(conn).map(|c| c.listener) else { return };
        let options = self.local.options.of(listener);
        let packet_bytes_max = match packet_bytes_max.min(options.client_max_packet_size) {
            // No packet is larger, so nothing needs to be compared.
            PACKET_BYTES_MAX.. => u32::MAX,
            less => less,
        };
        let mut link = Link::new(version, accepted.window, packet_bytes_max, accepted.alias_out_max);
        link.set_mount(mount);
        link.problem_information = problem_information;
        if version == Version::V5 {
            link.receive_max = options.max_awaiting_rel.max(1);
        }
        let now = self.local.now;
        let mut keep_alive_ms = 0;
        self.local.with_link(conn, |c, ctx| {
            link.traffic = c.link.traffic;
            c.link = link;
            c.enter(Phase::Serving, ctx.gauges);
            c.session = Some(index);
            c.asked = Asked { clean_start: connect.clean_start, bridge: connect.bridge }.into();
            c.keep_alive_s = accepted.keep_alive_s;
            c.alias_in_max = ctx.options.max_topic_alias;
            keep_alive_ms = c.keep_alive_ms(ctx.options);
            let properties =
                if version == Version::V5 { properties.as_properties() } else { Properties::EMPTY };
            let session_present = present && version > Version::V31;
            let code = ReasonCode::SUCCESS;
            c.link.push(&Packet::ConnAck(ConnAck { session_present, code, properties }), ctx);
        });
        self.set_expiry(index, accepted.expiry_s);
        if let Some(session) = self.local.sessions.get_mut(index) {
            session.conn = Some(conn);
            session.ends_at = Moment::NEVER;
            session.will = accepted.will;
            session.remember(connect.username, Entry::new(listener, present), now);
        }
        if keep_alive_ms > 0
            && let Some(slot) = self.local.conns.slot(conn)
        {
            self.insert_timer(now.plus_ms(keep_alive_ms), Timer::keep_alive(slot));
        }
        self.keep_session(index);
        self.hold_output(conn, writes);
        self.set_online(index, true);
        self.pump_session(index);
        self.resume_scans(index);
        self.local.counters.connects += 1;
        self.note_connected(conn, index, present);
        tracing::debug!(client_id, conn, "connected");
    }

    /// The session for a CONNECT: resumed, or new. Whoever is attached to it is told 0x8E [MQTT-3.1.4-3].
    fn take_session(&mut self, client_id: &str, key: u64, clean_start: bool) -> (u32, bool) {
        if let Some(index) = self.local.session_of(client_id, key)
            && self.survives(index)
        {
            let session = self.local.sessions.get(index);
            let old = session.and_then(|s| s.conn);
            let resumes = !clean_start && session.is_some_and(|s| s.expiry_s > 0);
            if let Some(old) = old {
                self.local.counters.takeovers += 1;
                let end = if resumes { End::Resumed } else { End::Lost };
                let text = "another connection uses this client identifier";
                self.disconnect(old, ReasonCode::SESSION_TAKEN_OVER, text, end);
            }
            if resumes {
                if let Some(session) = self.local.sessions.get_mut(index) {
                    session.will = None; // [MQTT-3.1.3-9]: the delayed will is not sent
                }
                self.touch_session(index);
                self.local.counters.sessions_resumed += 1;
                return (index, true);
            }
            self.local.counters.sessions_discarded += 1;
            if self.local.session_of(client_id, key) == Some(index) {
                self.end_session(index);
            }
        }
        let index = self.local.add_session(Session::new(client_id, key, self.local.now));
        self.note_session(index, What::SessionCreated);
        (index, false)
    }

    /// CONNACK waits until what it says is on the disk, where that wrote anything since `writes`.
    fn hold_output(&mut self, conn: Conn, writes: u64) {
        let (Some(slot), true) = (self.local.conns.slot(conn), self.writes() != writes) else { return };
        if let (Some(keeper), Some(c)) = (&mut self.local.keeper, self.local.conns.get_mut(conn)) {
            c.closed = true;
            keeper.after(After::Open(slot));
        }
    }

    fn move_home(&mut self, conn: Conn, home: ShardId, bytes: Vec<u8>) -> Next {
        let Some(c) = self.local.conns.get_mut(conn) else { return Next::Gone };
        debug_assert!(
            !c.busy && c.armed == super::Armed::Nothing,
            "a connection moves only when it is still"
        );
        c.enter(Phase::Moving, &mut self.local.gauges);
        c.pending = Vec::new();
        let layers = c.transport.as_ref().map_or(0, |transport| transport.bytes());
        c.count_moving(bytes.capacity() + layers, &mut self.local.memory);
        let transport = c.take_transport(&mut self.local.memory);
        let item = Box::new(Handover { bytes, listener: c.listener, peer: c.peer(), transport });
        self.io.hand_over(conn, home, item);
        self.moving += 1;
        if self.moving >= HAND_OVERS_MAX && !self.accept_paused {
            self.accept_paused = true;
            self.local.counters.accept_pauses += 1;
            self.io.accept_pause();
        }
        Next::Moved
    }

    /// A connection comes from the shard that accepted it; its CONNECT is complete.
    pub(super) fn handle_arrived(&mut self, conn: Conn, item: Handover) {
        let link = Link::new(Version::V311, 1, u32::MAX, 0);
        let (now, gauges) = (self.local.now, &mut self.local.gauges);
        let mut connection = Connection::new(link, item.listener, item.peer, now, gauges);
        // What came where it was accepted came to it.
        connection.link.traffic.received(item.bytes.len());
        connection.pending = item.bytes;
        connection.transport = item.transport;
        connection.count_transport(&mut self.local.memory);
        self.local.open(conn, connection);
        self.local.counters.hand_overs_in += 1;
        self.decode_pending(conn);
        self.local.count_connection(conn);
    }

    /// The home shard has no room for a connection.
    pub(super) fn handle_move_failed(&mut self, conn: Conn, item: Handover, errno: i32) {
        self.moving -= 1;
        if let Some(c) = self.local.conns.get_mut(conn) {
            c.transport = item.transport;
            c.count_transport(&mut self.local.memory);
        }
        self.local.counters.hand_over_failures += 1;
        // It was not counted, for its home should have done so.
        self.local.counters.packets_in[PacketType::Connect as usize] += 1;
        if self.may_log() {
            tracing::warn!(errno, shard = self.me, "a connection could not move to its home shard");
        }
        let version = match crate::codec::decode(Version::V311, first_packet(&item.bytes)) {
            Ok(Packet::Connect(connect)) => {
                let terms = answer_terms(&connect);
                self.local.with_link(conn, |c, _| {
                    (c.link.packet_bytes_max, c.link.problem_information) = terms;
                });
                connect.version
            }
            _ => Version::V311,
        };
        let text = "the shard of this client has no free connection".into();
        self.refuse(conn, version, &Refusal { code: ReasonCode::QUOTA_EXCEEDED, text });
        self.accept_again();
    }

    /// CONNACK with a reason, then the end.
    pub(super) fn refuse(&mut self, conn: Conn, version: Version, refusal: &Refusal) -> Next {
        self.local.counters.connect_errors += 1;
        self.local.counters.connect_denied += u64::from(DENIED.contains(&refusal.code));
        self.note_refused(conn, refusal.code, &refusal.text);
        if self.may_log() {
            tracing::info!(code = %refusal.code, "CONNECT refused: {}", refusal.text);
        }
        if version < Version::V5 && !refusal.code.has_connack_return_code() {
            self.close_silently(conn);
            return Next::Gone;
        }
        self.local.with_link(conn, |c, ctx| {
            c.link.version = version;
            let mut p = PropertyBuf::new();
            if version == Version::V5 && c.link.problem_information {
                p.push(Property::ReasonString(&refusal.text));
            }
            if refusal.code == ReasonCode::USE_ANOTHER_SERVER {
                p.push(Property::ServerReference(&ctx.options.server_reference));
            }
            let connack = |properties| {
                Packet::ConnAck(ConnAck { session_present: false, code: refusal.code, properties })
            };
            // One that takes not even five bytes is closed without a word.
            c.link.push_first(&[connack(p.as_properties()), connack(Properties::EMPTY)], ctx);
        });
        self.say_close(conn, refusal.code);
        self.shut_gently(conn);
        Next::Gone
    }

    /// The first packet was malformed or not CONNECT.
    pub(super) fn refuse_malformed(&mut self, conn: Conn, fault: &Fault) {
        match fault.connect_version {
            // 3.x has no way to say more than this [MQTT-3.1.2-2 of 3.1.1].
            Some(version)
                if version == Version::V5 || fault.code == ReasonCode::UNSUPPORTED_PROTOCOL_VERSION =>
            {
                self.refuse(conn, version, &Refusal { code: fault.code, text: fault.text.to_string() });
            }
            _ => self.close_silently(conn),
        }
    }

    /// A connection serves its session no more. `reason` is what was said, by whichever side.
    pub(super) fn lose_connection(&mut self, conn: Conn, end: End, reason: Option<ReasonCode>) {
        let now = self.local.now;
        let Some(c) = self.local.conns.get_mut(conn) else { return };
        let Some(index) = c.session.take() else { return };
        c.enter(Phase::Closing, &mut self.local.gauges);
        c.wait = Wait::Nothing;
        self.drop_grant(conn);
        self.drop_exchange(conn);
        self.drop_inquiries(conn);
        if let Some(slot) = self.local.conns.slot(conn) {
            self.quota.forget(slot);
            self.forget_inquiry(slot);
        }
        self.partials.retain(|p| !p.is_of(conn));
        self.local.counters.disconnects += 1;
        self.note_disconnected(conn, index, reason);
        let Some(c) = self.local.conns.get(conn) else { return };
        let listener = c.listener;
        let mut gone = None;
        if let Some(session) = self.local.sessions.get_mut(index) {
            if self.local.options.of(listener).flapping.threshold > 0
                && reason != Some(ReasonCode::ADMINISTRATIVE_ACTION)
            {
                gone = Some((session.key, session.client_id.clone()));
            }
            let kept = session.expiry_s > 0 && matches!(end, End::Normal | End::Lost);
            let past = kept.then(|| c.past(session.folded(), now, reason));
            session.forget_connection(past);
        }
        self.forget_acks(conn);
        self.detach(index, end);
        if let Some((key, client_id)) = gone {
            self.note_end(key, &client_id, listener);
        }
    }
}

/// A CONNECT with the names of the client's certificate, where its listener takes them from there, and with the user
/// that it has proven to be.
fn named<'a>(connect: &Connect<'a>, names: Option<&'a PeerNames>, proven: Option<&'a Proven>) -> Connect<'a> {
    let proven = |connect: Connect<'a>| Connect {
        username: proven.map(|proven| &*proven.user).or(connect.username),
        ..connect
    };
    let Some(names) = names else { return proven(*connect) };
    proven(Connect {
        client_id: names.client_id.as_deref().unwrap_or(connect.client_id),
        username: names.username.as_deref().or(connect.username),
        ..*connect
    })
}

fn first_packet(bytes: &[u8]) -> &[u8] {
    match crate::codec::frame(bytes, u32::MAX) {
        Ok(crate::codec::Framed::Packet { total, .. }) => &bytes[..total],
        _ => bytes,
    }
}
