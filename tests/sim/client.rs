//! A scripted client: it follows the protocol on its side of a virtual socket, keeps its session's state, and
//! tells the oracle what it sees.

use crate::link::{Awaited, Link};
use crate::machine::kernel::Net;
use crate::net::{Leave, SocketId, Wire};
use crate::oracle::{Alive, Got, MsgId, Oracle, parse_payload, payload};
use crate::plan::{Plan, Profile};
use crate::random::Random;
use crate::{note, trace};
use ringmq::codec::{
    Ack, AckKind, ConnAck, Disconnect, Framed, Packet, PacketId, Properties, Property, Publish, SubAck,
    Version, decode, frame,
};
use std::collections::{BTreeMap, VecDeque};

/// Within this time an abandoned connection is served, or gone.
const GHOST_MS_MAX: u64 = 1_000_000;

/// What a client needs of the world.
pub struct Cx<'a> {
    pub wire: &'a mut Wire,
    pub oracle: &'a mut Oracle,
    pub r: &'a mut Random,
    pub plan: &'a Plan,
    /// No more faults of its own: it acknowledges everything and stays.
    pub settle: bool,
}

/// A PUBLISH of QoS 1 or 2 that is not completely acknowledged.
#[derive(Clone, Debug)]
pub struct Unacked {
    pub pid: u16,
    pub msg: MsgId,
    pub released: bool,
    /// The connection that it was first sent on.
    pub conn: usize,
}

#[derive(Debug)]
pub struct Client {
    pub index: usize,
    pub profile: Profile,
    pub link: Option<Link>,
    pub links: usize,
    /// Connections abandoned before their CONNACK.
    pub ghosts: Vec<SocketId>,
    /// QoS 2 to us: message, and whether PUBREC was sent.
    incoming: BTreeMap<u16, (Option<MsgId>, bool)>,
    pub outgoing: VecDeque<Unacked>,
    pub last_pid: u16,
    /// What it just learnt, for others to act upon: a filter that it is subscribed to, or a topic that something
    /// was retained for.
    pub news: Option<(String, bool)>,
}

impl Client {
    pub fn new(index: usize, profile: Profile) -> Client {
        Client {
            index,
            profile,
            link: None,
            links: 0,
            ghosts: Vec::new(),
            incoming: BTreeMap::new(),
            outgoing: VecDeque::new(),
            last_pid: 0,
            news: None,
        }
    }

    /// The shard that serves it.
    pub fn shard(&self, net: &Net) -> Option<usize> {
        net.shard_of(self.link.as_ref()?.socket)
    }

    pub fn is_up(&self) -> bool {
        self.link.as_ref().is_some_and(|l| l.up)
    }

    /// Nothing is owed either way, as far as the client knows.
    pub fn is_calm(&self) -> bool {
        self.link
            .as_ref()
            .is_some_and(|l| l.up && l.out.is_empty() && l.owed.is_empty() && l.awaited.is_empty())
            && self.outgoing.is_empty()
    }

    /// When it has something to do by itself.
    pub fn next_due(&self, wire: &Wire) -> Option<u64> {
        let l = self.link.as_ref()?;
        let now = wire.now;
        let read = wire.next_for_client(l.socket).map(|due| due.max(l.deaf_until));
        let writes = !l.out.is_empty() && wire.client_has_room(l.socket);
        let busy = ((l.up && !l.owed.is_empty()) || writes).then_some(now);
        let ping = (l.up && l.keep_alive_s > 0 && !l.no_ping).then(|| l.ping_due().max(now));
        [read, busy, ping].into_iter().flatten().min()
    }

    /// Reads, acknowledges, pings.
    pub fn step(&mut self, cx: &mut Cx) {
        cx.oracle.now_ms = cx.wire.now;
        self.ghosts.retain(|s| cx.wire.sockets[*s].closed.is_none());
        self.pump(cx);
        self.receive(cx);
        if self.link.is_some() {
            self.acknowledge(cx);
            self.ping(cx);
            self.pump(cx);
        }
    }

    /// Gives what was written to the socket.
    pub fn pump(&mut self, cx: &mut Cx) {
        let Some(l) = &mut self.link else { return };
        if !l.out.is_empty() {
            let n = cx.wire.client_write(l.socket, &l.out);
            l.out.drain(..n);
            l.last_write = cx.wire.now;
        }
    }

    fn receive(&mut self, cx: &mut Cx) {
        let Some(l) = &mut self.link else { return };
        if l.deaf_until > cx.wire.now && !cx.settle {
            return;
        }
        let max = if cx.r.chance(500) { cx.r.range(1, 64) as usize } else { usize::MAX };
        let bytes = cx.wire.client_read(l.socket, max);
        l.inbuf.extend(bytes);
        let mut inbuf = std::mem::take(&mut l.inbuf);
        let mut at = 0;
        while let Some(version) = self.link.as_ref().map(|l| l.version) {
            match frame(&inbuf[at..], u32::MAX).expect("the server writes packets") {
                Framed::Incomplete { .. } => break,
                Framed::Packet { total, .. } => {
                    let bytes = &inbuf[at..at + total];
                    let packet = decode(version, bytes).expect("the server writes packets that can be read");
                    at += total;
                    self.handle(cx, &packet, total);
                }
            }
        }
        let Some(l) = &mut self.link else { return };
        inbuf.drain(..at);
        l.inbuf = inbuf;
        if cx.wire.client_ended(l.socket) {
            trace::reached("server disconnected us");
            note!("{} sees the end of socket {}", self.profile.id, l.socket);
            l.over = true;
            cx.wire.client_leave(l.socket, Leave::Fin);
            self.lost(cx);
        }
    }

    fn handle(&mut self, cx: &mut Cx, packet: &Packet, bytes: usize) {
        let l = self.link.as_mut().expect("it was there");
        let id = &self.profile.id;
        if let (Some(max), Version::V5, true) = (self.profile.max_packet, l.version, l.up) {
            assert!(bytes <= max as usize, "{id}: a packet of {bytes} bytes, Maximum Packet Size {max}");
        }
        if !l.up {
            match packet {
                Packet::ConnAck(a) => self.handle_connack(cx, a),
                other => panic!("{id}: {other:?} before CONNACK"),
            }
            return;
        }
        match packet {
            Packet::Publish(p) => self.handle_publish(cx, p),
            Packet::Ack(a) => self.handle_ack(cx, a),
            Packet::SubAck(a) => self.handle_suback(cx, a),
            Packet::UnsubAck(a) => {
                let Some(Awaited::Unsub(recs)) = l.awaited.remove(&a.packet_id.get()) else {
                    panic!("{id}: UNSUBACK that nobody asked for");
                };
                let seq = cx.oracle.tick();
                let inc = cx.oracle.books[self.index].inc();
                note!("{id} unsubscribed {:x?}", a.codes);
                if !recs.is_empty() && a.codes.first().is_some_and(|code| *code >= 0x80) {
                    trace::reached("UNSUBSCRIBE refused by a store that cannot write");
                    return;
                }
                recs.iter().for_each(|r| inc.subs[*r].unsub_acked = Some(seq));
            }
            Packet::PingResp => {}
            Packet::Disconnect(d) => {
                let tainted = cx.oracle.books[self.index].inc().tainted;
                self.handle_disconnect(d, tainted);
            }
            other => panic!("{id}: {other:?} from the server"),
        }
    }

    fn handle_disconnect(&mut self, d: &Disconnect, tainted: bool) {
        let l = self.link.as_mut().expect("it was there");
        note!("{} is told DISCONNECT {:?} {:?}", self.profile.id, d.code, d.properties);
        trace::reached("server disconnected us");
        match d.code.0 {
            0x8D => trace::reached("keep alive timeout"),
            0x8B | 0x8E | 0x97 => {}
            // It counts messages of a session that we have forgotten.
            0x93 if tainted => self.outgoing.clear(),
            code => {
                assert!(l.grey, "{}: the server blames us: {code:#x} {:?}", self.profile.id, d.properties)
            }
        }
    }

    fn handle_connack(&mut self, cx: &mut Cx, a: &ConnAck) {
        let l = self.link.as_mut().expect("it was there");
        let id = self.profile.id.clone();
        note!("{id} gets CONNACK {:?} present {}", a.code, a.session_present);
        if a.code.is_error() {
            // Refused: without effect on the session. Its clean start did not happen.
            l.connect_sent = l.clean;
            if cx.oracle.read_only {
                trace::reached("CONNECT refused by a store that cannot write");
            }
            assert!(
                matches!(a.code.0, 0x97 | 0x88 | 0x89),
                "{id}: CONNECT is refused with {:?} {:?}",
                a.code,
                a.properties
            );
            return;
        }
        l.up = true;
        let haunted = l.haunted;
        for property in a.properties.iter() {
            match property {
                Property::ReceiveMaximum(n) => l.server_receive_max = usize::from(n),
                Property::TopicAliasMaximum(n) => l.server_alias_max = n,
                _ => {}
            }
        }
        l.resumed = a.session_present || (l.version == Version::V31 && !l.clean);
        cx.oracle.connected(self.index, l.number);
        // 3.1 has no Session Present: the oracle is told what follows from what it knows.
        if l.version == Version::V31 && !l.clean {
            cx.oracle.books[self.index].inc().tainted = true;
            cx.oracle.books[self.index].alive = Alive::Until(u64::MAX);
            self.incoming.clear();
            self.outgoing.clear();
            return;
        }
        let (clean, number) = (l.clean, l.number);
        cx.oracle.connack(self.index, clean, a.session_present, haunted);
        if !a.session_present {
            self.incoming.clear();
            self.outgoing.retain(|u| u.conn == number);
            return;
        }
        let l = self.link.as_mut().expect("it was there");
        l.carried = self.incoming.iter().map(|(pid, (_, rec))| (*pid, *rec)).collect();
        self.resend(cx);
    }

    /// Sends again what was not acknowledged, in order [MQTT-4.4.0-1].
    fn resend(&mut self, cx: &mut Cx) {
        let tainted = cx.oracle.books[self.index].inc().tainted;
        for unacked in self.outgoing.clone() {
            if unacked.released {
                trace::reached("resume to server: PUBREL unanswered");
                self.send_ack(AckKind::PubRel, unacked.pid);
            } else {
                trace::reached("resume to server: PUBLISH unanswered");
                let m = &mut cx.oracle.msgs[unacked.msg as usize];
                m.times += 1;
                if m.qos == 1 || tainted {
                    m.routed_max += 1;
                }
                self.write_publish(cx, unacked.msg, Some(unacked.pid), true, None);
            }
        }
    }

    pub fn write(&mut self, packet: &Packet) {
        if let Some(l) = &mut self.link {
            packet.encode(l.version, &mut l.out);
        }
    }

    /// Writes a PUBLISH; `alias`: its number, and whether the topic is left out.
    pub fn write_publish(
        &mut self,
        cx: &Cx,
        msg: MsgId,
        pid: Option<u16>,
        dup: bool,
        alias: Option<(u16, bool)>,
    ) {
        let m = &cx.oracle.msgs[msg as usize];
        let mut properties = ringmq::codec::PropertyBuf::new();
        let v5 = self.link.as_ref().is_some_and(|l| l.version == Version::V5);
        if let Some(s) = m.expiry_s.filter(|_| v5) {
            properties.push(Property::MessageExpiryInterval(s));
        }
        if let Some((alias, _)) = alias {
            properties.push(Property::TopicAlias(alias));
        }
        let body = if m.clear { Vec::new() } else { payload(msg, m.bytes) };
        note!(
            "{} sends m{msg} {} qos {} retain {} dup {dup} pid {pid:?}",
            self.profile.id,
            m.topic,
            m.qos,
            m.retain
        );
        let topic = if alias.is_some_and(|(_, bare)| bare) { "" } else { m.topic.as_str() };
        let publish = Publish {
            dup,
            qos: ringmq::message::QoS::from_bits(m.qos).unwrap(),
            retain: m.retain,
            topic,
            packet_id: pid.and_then(PacketId::new),
            properties: properties.as_properties(),
            payload: &body,
        };
        self.write(&Packet::Publish(publish));
    }

    pub fn send_ack(&mut self, kind: AckKind, pid: u16) {
        let packet_id = PacketId::new(pid).expect("an identifier is never 0");
        let ack =
            Ack { kind, packet_id, code: ringmq::codec::ReasonCode::SUCCESS, properties: Properties::EMPTY };
        note!("{} sends {kind:?} {pid}", self.profile.id);
        self.write(&Packet::Ack(ack));
    }

    fn handle_publish(&mut self, cx: &mut Cx, p: &Publish) {
        let l = self.link.as_mut().expect("it was there");
        let id = self.profile.id.clone();
        let mut topic = p.topic.to_string();
        let mut ids = Vec::new();
        for property in p.properties.iter() {
            match property {
                Property::TopicAlias(alias) => {
                    trace::reached("topic alias out");
                    assert!(alias <= self.profile.alias_max, "{id}: topic alias {alias} above our maximum");
                    if topic.is_empty() {
                        topic = l.aliases_in.get(&alias).expect("a topic alias that was set").clone();
                    } else {
                        l.aliases_in.insert(alias, topic.clone());
                    }
                }
                Property::SubscriptionIdentifier(id) => ids.push(id),
                _ => {}
            }
        }
        let msg = if p.payload.is_empty() { None } else { parse_payload(p.payload) };
        if let Some(m) = msg {
            let known =
                cx.oracle.msgs.get(m as usize).unwrap_or_else(|| panic!("{id}: m{m} was never published"));
            assert_eq!(payload(m, known.bytes), p.payload, "{id}: the payload of m{m} is damaged");
        } else {
            assert!(p.payload.is_empty(), "{id}: a payload that nobody published");
        }
        assert!(!p.dup || l.resumed, "{id}: DUP on a connection that resumed nothing");
        let tainted = cx.oracle.books[self.index].inc().tainted;
        let pid = p.packet_id.map_or(0, PacketId::get);
        let mut fresh = true;
        if p.qos as u8 > 0 {
            assert!(
                tainted || p.dup || !l.flight.contains_key(&pid),
                "{id}: packet identifier {pid} is in flight and used again"
            );
            l.flight.insert(pid, msg);
            let (n, max) = (l.flight.len(), l.receive_max);
            assert!(n <= max, "{id}: {n} messages in flight, Receive Maximum {max}");
            if n == max {
                trace::reached("receive maximum reached");
            }
        }
        match p.qos as u8 {
            1 => l.owed.push_back((AckKind::PubAck, pid)),
            2 => {
                l.owed.push_back((AckKind::PubRec, pid));
                if let Some(rec) = l.carried.remove(&pid) {
                    trace::reached(match rec {
                        false => "resume to client: PUBLISH unanswered",
                        true => "resume to client: PUBREC sent",
                    });
                }
                if let Some((before, _)) = self.incoming.get(&pid) {
                    fresh = false;
                    assert!(
                        tainted || *before == msg,
                        "{id}: QoS 2 identifier {pid} is used again before PUBREL"
                    );
                } else {
                    self.incoming.insert(pid, (msg, false));
                }
            }
            _ => {}
        }
        if let (true, Some(msg)) = (fresh, msg) {
            let number = l.number;
            let since_ms = l.started;
            let (qos, retain, dup) = (p.qos as u8, p.retain, p.dup);
            let got = Got { msg, qos, retain, dup, ids, conn: number, since_ms, taken: qos == 0 };
            cx.oracle.delivered(self.index, &topic, got);
        }
    }

    fn handle_ack(&mut self, cx: &mut Cx, a: &Ack) {
        let l = self.link.as_mut().expect("it was there");
        let (id, pid) = (self.profile.id.clone(), a.packet_id.get());
        note!("{id} gets {:?} {pid} {:?}", a.kind, a.code);
        if a.kind == AckKind::PubRel {
            let known = self.incoming.remove(&pid);
            if known.is_none() && l.resumed && !l.grey_pids.contains(&pid) {
                trace::reached("resume to client: PUBREL again");
            }
            if l.carried.remove(&pid) == Some(true) {
                trace::reached("resume to client: PUBREC sent");
            }
            l.owed.push_back((AckKind::PubComp, pid));
            return;
        }
        if l.grey_pids.contains(&pid) {
            return;
        }
        let tainted = cx.oracle.books[self.index].inc().tainted;
        let Some(at) = self.outgoing.iter().position(|u| u.pid == pid) else {
            let again = matches!(a.kind, AckKind::PubRec | AckKind::PubComp) && l.twice.contains(&pid);
            assert!(tainted || l.grey || again, "{id}: {:?} for {pid}, which is not in use", a.kind);
            return;
        };
        let unacked = self.outgoing[at].clone();
        let qos = cx.oracle.msgs[unacked.msg as usize].qos;
        match a.kind {
            AckKind::PubAck | AckKind::PubRec if a.code.is_error() => {
                // Identifiers that the server has taken already are not refused.
                assert!(
                    matches!(a.code.0, 0x97 | 0x87),
                    "{id}: m{} is refused with {:?}",
                    unacked.msg,
                    a.code
                );
                trace::reached("publisher refused (0x97)");
                if !cx.oracle.full_refuses && a.code.0 == 0x97 {
                    trace::reached("publisher refused by a store that cannot write");
                    cx.oracle.judge_refusal(unacked.msg);
                }
                let m = &mut cx.oracle.msgs[unacked.msg as usize];
                m.refused = m.times == 1;
                self.outgoing.remove(at);
            }
            AckKind::PubAck => {
                if cx.oracle.read_only {
                    trace::reached("acknowledged while the store cannot write");
                }
                assert_eq!(qos, 1, "{id}: PUBACK for QoS {qos}");
                let m = &cx.oracle.msgs[unacked.msg as usize];
                self.news = m.retain.then(|| (m.topic.clone(), true));
                cx.oracle.acked(unacked.msg);
                self.outgoing.remove(at);
            }
            AckKind::PubRec => {
                assert_eq!(qos, 2, "{id}: PUBREC for QoS {qos}");
                cx.oracle.acked(unacked.msg);
                self.outgoing[at].released = true;
                l.owed.push_back((AckKind::PubRel, pid));
            }
            AckKind::PubComp => {
                assert!(unacked.released || tainted, "{id}: PUBCOMP before PUBREL");
                self.outgoing.remove(at);
            }
            AckKind::PubRel => {}
        }
    }

    fn handle_suback(&mut self, cx: &mut Cx, a: &SubAck) {
        let l = self.link.as_mut().expect("it was there");
        let id = &self.profile.id;
        let Some(Awaited::Sub(recs)) = l.awaited.remove(&a.packet_id.get()) else {
            panic!("{id}: SUBACK that nobody asked for");
        };
        assert_eq!(recs.len(), a.codes.len(), "{id}: SUBACK with another number of codes");
        let seq = cx.oracle.tick();
        let inc = cx.oracle.books[self.index].inc();
        for (at, code) in recs.iter().zip(a.codes) {
            let rec = &mut inc.subs[*at];
            note!("{id} subscribed to {} {code:#x}", rec.filter);
            if rec.filter.ends_with("t#") {
                assert!(*code >= 0x80, "{id}: a bad filter is granted");
                rec.refused = true;
            } else if cx.oracle.may_refuse && matches!(*code, 0x97 | 0x80) {
                trace::reached("SUBSCRIBE refused by a store that cannot write");
                rec.refused = true;
            } else {
                assert_eq!(*code, rec.qos, "{id}: {} was asked for with QoS {}", rec.filter, rec.qos);
                rec.granted = Some(seq);
                self.news = Some((rec.filter.clone(), false));
            }
        }
    }

    fn acknowledge(&mut self, cx: &mut Cx) {
        let eager = cx.settle || cx.r.chance(cx.plan.prompt);
        while let Some(l) = &mut self.link {
            if !l.up || l.owed.is_empty() || !(eager || cx.r.chance(200)) {
                return;
            }
            let (kind, pid) = l.owed.pop_front().expect("it is not empty");
            if let (AckKind::PubAck | AckKind::PubRec, Some(Some(msg))) = (kind, l.flight.get(&pid)) {
                cx.oracle.taken(self.index, *msg);
            }
            match kind {
                AckKind::PubAck | AckKind::PubComp => drop(l.flight.remove(&pid)),
                AckKind::PubRec => {
                    if let Some(known) = self.incoming.get_mut(&pid) {
                        known.1 = true;
                    }
                }
                AckKind::PubRel => {}
            }
            self.send_ack(kind, pid);
        }
    }

    fn ping(&mut self, cx: &mut Cx) {
        let Some(l) = &self.link else { return };
        if l.up && l.keep_alive_s > 0 && !l.no_ping && l.ping_due() <= cx.wire.now {
            self.write(&Packet::PingReq);
        }
    }

    /// Leaves the connection without a word.
    pub fn leave(&mut self, cx: &mut Cx, how: Leave) {
        let Some(l) = &self.link else { return };
        cx.wire.client_leave(l.socket, how);
        self.lost(cx);
    }

    /// The connection is gone, whoever ended it.
    pub fn lost(&mut self, cx: &mut Cx) {
        let Some(l) = self.link.take() else { return };
        let haunted = l.haunted || !self.ghosts.is_empty();
        let served = l.surely_served(cx);
        let books = &mut cx.oracle.books[self.index];
        if l.up {
            let until = match l.expiry_s {
                0 => Alive::No,
                u32::MAX => Alive::Until(u64::MAX),
                s => Alive::Until(served + u64::from(s) * 1000),
            };
            books.alive = if haunted || books.alive == Alive::Unknown { Alive::Unknown } else { until };
            if let Some((will, true)) = l.will.filter(|_| !l.said_goodbye) {
                cx.oracle.acked(will);
            }
            return;
        }
        if !l.connect_sent {
            return;
        }
        trace::reached("connection abandoned before CONNACK");
        if cx.wire.sockets[l.socket].closed.is_none() {
            self.ghosts.push(l.socket);
        }
        if l.clean {
            books.alive = Alive::Unknown;
            books.inc().tainted = true;
        } else if matches!(books.alive, Alive::No)
            || matches!(books.alive, Alive::Until(ms) if ms < cx.wire.now + GHOST_MS_MAX)
        {
            // It may have begun a session.
            books.alive = Alive::Unknown;
        }
    }

    pub fn forget_incoming(&mut self) {
        self.incoming.clear();
    }

    /// A packet identifier that is not in use.
    pub fn next_pid(&mut self) -> u16 {
        loop {
            self.last_pid = if self.last_pid >= 40_000 { 1 } else { self.last_pid + 1 };
            let pid = self.last_pid;
            let awaited = self.link.as_ref().is_some_and(|l| l.awaited.contains_key(&pid));
            if !awaited && self.outgoing.iter().all(|u| u.pid != pid) {
                return pid;
            }
        }
    }
}
