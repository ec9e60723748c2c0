//! What clients do of their own accord.

use crate::client::{Client, Cx, Unacked};
use crate::link::{Awaited, Link};
use crate::net::Leave;
use crate::oracle::{Alive, Msg, MsgId, SubRec};
use crate::plan::{FILTERS, WIDE_FILTERS};
use crate::{note, trace};
use ringmq::codec::{
    AckKind, Connect, Disconnect, Filters, Packet, PacketId, Properties, Property, PropertyBuf, ReasonCode,
    RetainHandling, Subscribe, SubscribeOptions, Topics, Unsubscribe, Version, Will,
};
use ringmq::message::QoS;

impl Client {
    /// One thing that the client decides to do.
    pub fn act(&mut self, cx: &mut Cx) {
        cx.oracle.now_ms = cx.wire.now;
        let Some(link) = &self.link else {
            return self.connect(cx);
        };
        if !link.up {
            if cx.r.chance(cx.plan.leave / 2) {
                let how = cx.r.pick(&[Leave::Fin, Leave::Reset, Leave::Vanish]);
                self.leave(cx, how);
            }
            return;
        }
        if cx.r.chance(cx.plan.leave) {
            return self.go(cx);
        }
        if cx.r.chance(cx.plan.takeover) {
            // The old connection stays as it is; nobody listens to it any more.
            self.leave(cx, Leave::Vanish);
            return self.connect(cx);
        }
        if cx.r.chance(cx.plan.grey) {
            return self.grey(cx);
        }
        match cx.r.below(100) {
            0..64 => {
                let n = if cx.r.chance(self.profile.burst) { cx.r.range(2, 12) } else { 1 };
                (0..n).for_each(|_| self.publish(cx));
            }
            64..84 => self.subscribe(cx),
            84..90 => self.unsubscribe(cx),
            90..95 => {
                if let Some(l) = &mut self.link {
                    l.deaf_until = cx.wire.now + cx.r.range(1, 500);
                }
            }
            _ => self.write(&Packet::PingReq),
        }
    }

    /// Opens a connection and writes CONNECT.
    pub fn connect(&mut self, cx: &mut Cx) {
        if !self.ghosts.is_empty() && (cx.settle || cx.r.chance(700)) {
            return;
        }
        self.links += 1;
        let p = self.profile.clone();
        let socket = cx.wire.connect(p.id.clone());
        let receive_max =
            usize::from(p.receive_max.unwrap_or(u16::MAX)).min(cx.plan.options.max_inflight.into());
        let mut link = Link::new(socket, self.links, p.version, receive_max);
        (link.last_write, link.started) = (cx.wire.now, cx.wire.now);
        link.haunted = !self.ghosts.is_empty();
        if !cx.settle && cx.r.chance(10) {
            // Never a CONNECT: the server closes it after the idle timeout.
            trace::reached("mute connection");
            self.link = Some(link);
            return;
        }
        let v5 = p.version == Version::V5;
        let mut clean = p.anonymous || (!v5 && p.expiry_s == 0) || (!cx.settle && cx.r.chance(100));
        // 3.1 has no Session Present, so its clients rarely resume.
        clean |= p.version == Version::V31 && !cx.r.chance(200);
        link.clean = clean;
        link.expiry_s = match (v5, clean) {
            (true, _) => p.expiry_s,
            (false, true) => 0,
            (false, false) => cx.plan.options.session_expiry_s,
        };
        if p.anonymous {
            link.expiry_s = 0;
        }
        link.keep_alive_s = if cx.settle { 0 } else { p.keep_alive_s };
        link.no_ping = !cx.settle && cx.r.chance(100);
        link.connect_sent = true;
        if clean {
            let haunted = !self.ghosts.is_empty();
            cx.oracle.begin(self.index, haunted);
            cx.oracle.books[self.index].alive = Alive::Unknown;
            self.incoming_clear();
        }
        note!("{} CONNECT clean {clean} expiry {} keep alive {}", p.id, link.expiry_s, link.keep_alive_s);
        self.write_connect(cx, link);
        if clean && cx.r.chance(200) && p.version != Version::V31 {
            // Without waiting for CONNACK.
            self.subscribe(cx);
        }
    }

    fn write_connect(&mut self, cx: &mut Cx, mut link: Link) {
        let p = self.profile.clone();
        let v5 = p.version == Version::V5;
        let mut properties = PropertyBuf::new();
        if v5 {
            if link.expiry_s > 0 {
                properties.push(Property::SessionExpiryInterval(link.expiry_s));
            }
            if let Some(n) = p.receive_max {
                properties.push(Property::ReceiveMaximum(n));
            }
            if let Some(n) = p.max_packet {
                properties.push(Property::MaximumPacketSize(n));
            }
            if p.alias_max > 0 {
                properties.push(Property::TopicAliasMaximum(p.alias_max));
            }
        }
        let mut will_properties = PropertyBuf::new();
        let mut will = None;
        if !cx.settle && cx.r.chance(300) {
            let delay_s = if v5 && cx.r.chance(400) { cx.r.range(1, 3) as u32 } else { 0 };
            if delay_s > 0 {
                trace::reached("delayed will");
                will_properties.push(Property::WillDelayInterval(delay_s));
            }
            let id = self.new_message(cx, true, None);
            link.will = Some((id, delay_s == 0 || link.expiry_s == 0));
            will = Some(id);
        }
        let text = will.map(|id| {
            let m = &cx.oracle.msgs[id as usize];
            (m.topic.clone(), crate::oracle::payload(id, m.bytes), m.qos, m.retain)
        });
        let will = text.as_ref().map(|(topic, payload, qos, retain)| Will {
            topic,
            payload,
            qos: QoS::from_bits(*qos).unwrap(),
            retain: *retain,
            properties: will_properties.as_properties(),
        });
        let connect = Connect {
            version: p.version,
            bridge: false,
            clean_start: link.clean,
            keep_alive_s: link.keep_alive_s,
            client_id: if p.anonymous { "" } else { &p.id },
            will,
            username: None,
            password: None,
            properties: properties.as_properties(),
        };
        Packet::Connect(connect).encode(p.version, &mut link.out);
        self.link = Some(link);
    }

    fn incoming_clear(&mut self) {
        self.outgoing.clear();
        self.forget_incoming();
    }

    /// Ends the connection in one of the ways there are.
    fn go(&mut self, cx: &mut Cx) {
        match cx.r.below(5) {
            0 => self.leave(cx, Leave::Fin),
            1 => self.leave(cx, Leave::Reset),
            2 => self.leave(cx, Leave::Vanish),
            _ => self.goodbye(cx),
        }
    }

    /// DISCONNECT, then the end.
    fn goodbye(&mut self, cx: &mut Cx) {
        let Some(l) = &mut self.link else { return };
        let v5 = l.version == Version::V5;
        let with_will = v5 && cx.r.chance(200);
        let ends = v5 && l.expiry_s > 0 && cx.r.chance(100);
        let mut properties = PropertyBuf::new();
        if ends {
            properties.push(Property::SessionExpiryInterval(0));
        }
        let code = if with_will { ReasonCode::DISCONNECT_WITH_WILL } else { ReasonCode::SUCCESS };
        l.said_goodbye = !with_will;
        note!("{} DISCONNECT {code:?} ends {ends}", self.profile.id);
        self.write(&Packet::Disconnect(Disconnect { code, properties: properties.as_properties() }));
        self.pump(cx);
        let flushed = self.link.as_ref().is_some_and(|l| l.out.is_empty());
        self.leave(cx, Leave::Fin);
        if ends {
            cx.oracle.books[self.index].alive = Alive::Unknown;
            cx.oracle.books[self.index].inc().tainted = true;
        }
        if !flushed && with_will {
            note!("{} could not say all of it", self.profile.id);
        }
    }

    /// Ends connection and session, and waits for the server to close.
    pub fn farewell(&mut self) {
        let Some(l) = &mut self.link else { return };
        let mut properties = PropertyBuf::new();
        if l.version == Version::V5 && l.expiry_s > 0 {
            properties.push(Property::SessionExpiryInterval(0));
        }
        l.said_goodbye = true;
        let code = ReasonCode::SUCCESS;
        self.write(&Packet::Disconnect(Disconnect { code, properties: properties.as_properties() }));
    }

    /// Notes a message in the books.
    pub fn new_message(&mut self, cx: &mut Cx, will: bool, topic: Option<&str>) -> MsgId {
        let topic = topic.unwrap_or_else(|| cx.r.pick(&cx.plan.topics));
        let may_retain = topic.starts_with("r/") || topic == "t/a";
        let retain = may_retain && cx.r.chance(cx.plan.retain);
        let clear = retain && !will && cx.r.chance(200);
        if clear {
            trace::reached("retained cleared");
        }
        let v5 = self.profile.version == Version::V5;
        let expiry_s = (v5 && !will && cx.r.chance(80)).then(|| cx.r.range(1, 20) as u32);
        let long = cx.r.chance(100);
        cx.oracle.publish(Msg {
            topic: topic.into(),
            publisher: self.index,
            qos: cx.r.pick(&[0, 1, 1, 2, 2]),
            retain,
            clear,
            will,
            bytes: cx.r.range(8, if long { cx.plan.payload_max } else { 30 }) as usize,
            expiry_s,
            sent: 0,
            sent_ms: 0,
            acked: None,
            acked_ms: 0,
            refused: false,
            times: 1,
            routed_max: 1,
        })
    }

    /// Publishes something that must reach whoever asked for it, at once.
    pub fn poke(&mut self, cx: &mut Cx, topic: &str, retain: bool) {
        cx.oracle.now_ms = cx.wire.now;
        let Some(l) = self.link.as_ref().filter(|l| l.up && l.out.is_empty()) else { return };
        if self.outgoing.len() >= l.server_receive_max.min(12) {
            return;
        }
        let id = self.new_message(cx, false, Some(topic));
        let m = &mut cx.oracle.msgs[id as usize];
        (m.qos, m.retain, m.clear, m.expiry_s) = (m.qos.max(1), retain, m.clear && retain, None);
        self.send_message(cx, id);
        self.pump(cx);
    }

    /// Retains something that lasts, for a topic that nobody else publishes to.
    pub fn retain_for_good(&mut self, cx: &mut Cx, topic: &str) {
        cx.oracle.now_ms = cx.wire.now;
        let Some(l) = self.link.as_ref().filter(|l| l.up && l.out.is_empty()) else { return };
        if self.outgoing.len() >= l.server_receive_max.min(12) {
            return;
        }
        let id = self.new_message(cx, false, Some(topic));
        let m = &mut cx.oracle.msgs[id as usize];
        (m.qos, m.retain, m.clear, m.expiry_s) = (1, true, false, None);
        self.send_message(cx, id);
        self.pump(cx);
    }

    fn publish(&mut self, cx: &mut Cx) {
        let Some(l) = &self.link else { return };
        let room = self.outgoing.len() < l.server_receive_max.min(12);
        if l.out.len() > 4_000 {
            return;
        }
        let id = self.new_message(cx, false, None);
        let qos = cx.oracle.msgs[id as usize].qos;
        if qos > 0 && !room {
            cx.oracle.msgs[id as usize].qos = 0;
        }
        self.send_message(cx, id);
    }

    pub fn send_message(&mut self, cx: &mut Cx, id: MsgId) {
        let Some(l) = &mut self.link else { return };
        let (qos, topic) = (cx.oracle.msgs[id as usize].qos, cx.oracle.msgs[id as usize].topic.clone());
        let mut alias = None;
        if l.server_alias_max > 0 && cx.r.chance(300) {
            trace::reached("topic alias in");
            let known = l.aliases_out.iter().position(|t| *t == topic);
            if known.is_none() && l.aliases_out.len() < usize::from(l.server_alias_max) {
                l.aliases_out.push(topic);
                alias = Some((l.aliases_out.len() as u16, false));
            } else {
                alias = known.map(|at| (at as u16 + 1, true));
            }
        }
        let conn = l.number;
        let pid = (qos > 0).then(|| self.next_pid());
        if let Some(pid) = pid {
            self.outgoing.push_back(Unacked { pid, msg: id, released: false, conn });
        }
        self.write_publish(cx, id, pid, false, alias);
    }

    pub fn subscribe(&mut self, cx: &mut Cx) {
        if self.link.as_ref().is_none_or(|l| l.awaited.len() >= 3) {
            return;
        }
        let v5 = self.profile.version == Version::V5;
        let member = self.profile.group.clone();
        let n = if cx.plan.rings.0 < 8 { cx.r.pick(&[1, 1, 2, 5, 9]) } else { cx.r.pick(&[1, 1, 1, 2, 3]) };
        let id = if v5 && cx.r.chance(400) { cx.r.range(1, 5) as u32 } else { 0 };
        let mut filters = Vec::new();
        for _ in 0..n {
            let shared = member.is_some() && cx.r.chance(500);
            let (group, filter) = match &member {
                Some((group, filter)) if shared => (Some(group.clone()), filter.clone()),
                None if cx.r.chance(250) => (None, cx.r.pick(WIDE_FILTERS).to_string()),
                _ => (None, cx.r.pick(FILTERS).to_string()),
            };
            let options = SubscribeOptions {
                // Members take everything with QoS 1 or 2, so that each message counts.
                qos: QoS::from_bits(cx.r.pick(if shared { &[1, 2] } else { &[0, 1, 2, 2] })).unwrap(),
                no_local: v5 && !shared && cx.r.chance(100),
                retain_as_published: v5 && cx.r.chance(200),
                retain_handling: match cx.r.below(if v5 { 4 } else { 1 }) {
                    1 => RetainHandling::SendIfNew,
                    2 => RetainHandling::DoNotSend,
                    _ => RetainHandling::Send,
                },
            };
            filters.push((group, filter, options));
        }
        self.send_subscribe(cx, &filters, id);
    }

    pub fn send_subscribe(
        &mut self,
        cx: &mut Cx,
        filters: &[(Option<String>, String, SubscribeOptions)],
        id: u32,
    ) {
        let pid = self.next_pid();
        let requested = cx.oracle.tick();
        let inc = cx.oracle.books[self.index].inc();
        let mut recs = Vec::new();
        let mut texts = Vec::new();
        for (group, filter, options) in filters {
            recs.push(inc.subs.len());
            inc.subs.push(SubRec {
                filter: filter.clone(),
                group: group.clone(),
                qos: options.qos as u8,
                no_local: options.no_local,
                wants_retained: options.retain_handling != RetainHandling::DoNotSend,
                always_retained: options.retain_handling == RetainHandling::Send,
                as_published: options.retain_as_published,
                id,
                requested,
                granted: None,
                refused: false,
                unsub_sent: None,
                unsub_acked: None,
            });
            let text = group.as_ref().map_or(filter.clone(), |g| format!("$share/{g}/{filter}"));
            note!("{} SUBSCRIBE {text} qos {} id {id} pid {pid}", self.profile.id, options.qos as u8);
            texts.push((text, *options));
        }
        let mut properties = PropertyBuf::new();
        if id != 0 {
            properties.push(Property::SubscriptionIdentifier(id));
        }
        let texts: Vec<(&str, SubscribeOptions)> = texts.iter().map(|(t, o)| (t.as_str(), *o)).collect();
        let packet = Subscribe {
            packet_id: PacketId::new(pid).expect("an identifier is never 0"),
            properties: properties.as_properties(),
            filters: Filters::new(&texts),
        };
        self.write(&Packet::Subscribe(packet));
        if let Some(l) = &mut self.link {
            l.awaited.insert(pid, Awaited::Sub(recs));
        }
    }

    fn unsubscribe(&mut self, cx: &mut Cx) {
        let seq = cx.oracle.tick();
        let inc = cx.oracle.books[self.index].inc();
        if inc.subs.is_empty() || self.link.as_ref().is_none_or(|l| l.awaited.len() >= 3) {
            return;
        }
        let chosen = inc.subs[cx.r.below(inc.subs.len())].clone();
        let mut recs = Vec::new();
        for (at, rec) in inc.subs.iter_mut().enumerate() {
            if rec.filter == chosen.filter && rec.group == chosen.group {
                rec.unsub_sent.get_or_insert(seq);
                recs.push(at);
            }
        }
        let text =
            chosen.group.as_ref().map_or(chosen.filter.clone(), |g| format!("$share/{g}/{}", chosen.filter));
        let pid = self.next_pid();
        note!("{} UNSUBSCRIBE {text} pid {pid}", self.profile.id);
        let texts = [text.as_str()];
        let packet = Unsubscribe {
            packet_id: PacketId::new(pid).expect("an identifier is never 0"),
            properties: Properties::EMPTY,
            filters: Topics::new(&texts),
        };
        self.write(&Packet::Unsubscribe(packet));
        if let Some(l) = &mut self.link {
            l.awaited.insert(pid, Awaited::Unsub(recs));
        }
    }

    /// Packets from the standard's grey zones, and some that it forbids.
    fn grey(&mut self, cx: &mut Cx) {
        trace::reached("grey packet");
        let v5 = self.profile.version == Version::V5;
        let pid = 60_000 + cx.r.below(1_000) as u16;
        let kind = cx.r.below(12);
        note!("{} grey {kind}", self.profile.id);
        let Some(l) = self.link.as_mut().filter(|l| !l.awaited.contains_key(&pid)) else { return };
        match kind {
            0..=2 => {
                l.grey_pids.insert(pid);
                self.send_ack([AckKind::PubAck, AckKind::PubRel, AckKind::PubRec][kind], pid);
            }
            3 => {
                let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
                self.send_subscribe(cx, &[(None, "t#".into(), options)], 0);
            }
            4 => {
                if self.outgoing.len() >= l.server_receive_max {
                    return;
                }
                let id = self.new_message(cx, false, Some("$SYS/x"));
                self.send_message(cx, id);
            }
            5 => {
                l.grey = true;
                let mut again = Link::new(l.socket, l.number, l.version, 1);
                std::mem::swap(&mut again.out, &mut l.out);
                let connect = Connect {
                    version: l.version,
                    bridge: false,
                    clean_start: true,
                    keep_alive_s: 0,
                    client_id: &self.profile.id,
                    will: None,
                    username: None,
                    password: None,
                    properties: Properties::EMPTY,
                };
                Packet::Connect(connect).encode(l.version, &mut again.out);
                l.out = again.out;
            }
            6 => {
                l.grey = true;
                let junk: Vec<u8> = (0..cx.r.range(1, 20)).map(|_| cx.r.next() as u8).collect();
                l.out.push(0x0F);
                l.out.extend(junk);
            }
            7 => {
                let packet_id = PacketId::new(pid).expect("an identifier is never 0");
                l.awaited.insert(pid, Awaited::Unsub(Vec::new()));
                let filters = Topics::new(&["no/such", "bad#"]);
                self.write(&Packet::Unsubscribe(Unsubscribe {
                    packet_id,
                    properties: Properties::EMPTY,
                    filters,
                }));
            }
            8 => (0..5).for_each(|_| self.write(&Packet::PingReq)),
            9 => {
                l.out.extend([0x30, 0x20, 0x00]);
                self.pump(cx);
                self.leave(cx, Leave::Fin);
            }
            10 => {
                let open = self.outgoing.iter().find(|u| !u.released).cloned();
                let Some(open) = open.filter(|u| cx.oracle.msgs[u.msg as usize].qos == 2) else { return };
                cx.oracle.msgs[open.msg as usize].times += 1;
                l.twice.insert(open.pid);
                // If the first was refused and the second is not, the server holds one that we forgot.
                l.grey |= cx.oracle.may_refuse;
                self.write_publish(cx, open.msg, Some(open.pid), true, None);
            }
            _ if v5 => {
                l.grey = true;
                l.out.extend([0x30, 0x07, 0x00, 0x01, b'x', 0x03, 0x23, 0xFF, 0xFF]);
            }
            _ => {}
        }
    }
}
