//! The connected side of a session: what its client can take, and the bytes that wait to leave.

use super::Options;
use crate::codec::{
    Ack, AckKind, Packet, PacketId, PacketType, Property, PropertyBuf, PublishOut, ReasonCode, Version,
};
use crate::codec::{encode_ack, encode_publish, publish_len};
use crate::heap::{allocated, boxed, map_bytes, vec_bytes};
use crate::limits::{PACKET_BYTES_MAX, POOL_BUFFER_BYTES_MAX, POOL_BUFFERS_MAX};
use crate::map::Map;
use crate::message::{MessageRef, QoS};
use crate::stats::{Counters, Gauges, Ledger, LossCause, Memory, Recorder, Source};
use crate::time::{Moment, Stamp};
use crate::traffic::Recent;

/// What the rules need of their surroundings.
pub struct Ctx<'a> {
    /// The time of this tick.
    pub now: Moment,
    /// The operator's options.
    pub options: &'a Options,
    /// Counters of the shard.
    pub counters: &'a mut Counters,
    /// What the shard holds.
    pub gauges: &'a mut Gauges,
    /// How long things take.
    pub recorder: &'a mut Recorder,
    /// What was lost, by cause and client.
    pub ledger: &'a mut Ledger,
    /// The ledger of memory, of which the rows are kept that change in small pieces.
    pub memory: &'a mut Memory,
    /// Output buffers for reuse.
    pub pool: &'a mut Pool,
    /// Stored messages that are done with.
    pub done: &'a mut Vec<Stored>,
}

impl Ctx<'_> {
    /// A message has been written to a client for the first time. `stamp` is that of its publication, or
    /// [`Stamp::NONE`].
    #[inline]
    pub fn note_delivery(&mut self, source: Source, qos: QoS, stamp: Stamp) {
        self.counters.delivered[source as usize][qos as usize] += 1;
        self.recorder.delivered(stamp);
    }
}

/// The place of a stored message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The queue in the store; never 0.
    pub queue: u64,
    /// The place in it; never 0.
    pub seq: u64,
    /// It is noted that its QoS 2 handshake had come to PUBREL.
    pub released: bool,
}

/// Output buffers for reuse: idle connections hold none.
#[derive(Default, Debug)]
pub struct Pool {
    spare: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// Gives `buffer` some capacity if it has none.
    #[inline]
    pub fn fill(&mut self, buffer: &mut Vec<u8>) {
        if buffer.capacity() == 0
            && let Some(spare) = self.spare.pop()
        {
            self.bytes -= allocated(spare.capacity());
            *buffer = spare;
        }
    }

    /// Bytes that it keeps.
    pub fn bytes(&self) -> usize {
        self.bytes + vec_bytes::<Vec<u8>>(self.spare.capacity())
    }

    /// Takes a buffer back; a large one goes to the allocator.
    pub fn put(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0 && capacity <= POOL_BUFFER_BYTES_MAX && self.spare.len() < POOL_BUFFERS_MAX {
            buffer.clear();
            self.bytes += allocated(capacity);
            self.spare.push(buffer);
        }
    }
}

/// The connected side of a session.
#[derive(Debug)]
pub struct Link {
    /// Protocol version of the connection.
    pub version: Version,
    /// Encoded packets that wait to leave.
    pub out: Vec<u8>,
    /// Bytes that were given to the driver and have not left yet.
    pub sending: u32,
    /// The client's Receive Maximum, within the operator's `max_inflight`.
    pub window: u16,
    /// QoS 2 messages from the client that may wait for PUBREL: the Receive Maximum that it was told, which holds
    /// for as long as the connection whatever the options become; 65,535 in 3.x.
    pub receive_max: u16,
    /// The client's Maximum Packet Size; `u32::MAX` without one [MQTT-3.1.2-24 of 5.0].
    pub packet_bytes_max: u32,
    /// Request Problem Information.
    pub problem_information: bool,
    /// What went over the connection, since it was folded.
    pub traffic: Recent,
    /// Topic aliases in both directions, once one is in use, the mountpoint, where there is one, and whether messages are
    /// held back.
    extras: Option<Box<Extras>>,
    /// Topic Alias Maximum of the client, within the operator's.
    alias_out_max: u16,
}

/// What few links have: topic aliases that are in use, a mountpoint, and messages that are held back.
#[derive(Debug, Default)]
struct Extras {
    /// What stands before the client's topics.
    mount: Box<str>,
    /// Messages are held back.
    held: bool,
    inbound: Vec<Box<str>>,
    outbound: Map<Box<str>, u16>,
    /// Bytes of their topics.
    topic_bytes: usize,
}

impl Extras {
    fn bytes(&self) -> usize {
        boxed::<Extras>()
            + allocated(self.mount.len())
            + vec_bytes::<Box<str>>(self.inbound.capacity())
            + map_bytes::<Box<str>, u16>(self.outbound.capacity())
            + self.topic_bytes
    }
}

/// What is sent besides the message itself.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// QoS of this delivery.
    pub qos: QoS,
    /// Packet identifier at QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Re-delivery.
    pub dup: bool,
    /// RETAIN of this delivery.
    pub retain: bool,
    /// Subscription identifiers.
    pub ids: &'a [u32],
}

/// Why a message was not written to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsent {
    /// Its message expiry interval has passed [MQTT-3.3.2-5 of 5.0].
    Expired,
    /// It is larger than the client's Maximum Packet Size [MQTT-3.1.2-25 of 5.0].
    TooLarge,
}

impl Unsent {
    /// As a cause of loss.
    pub fn cause(self) -> LossCause {
        match self {
            Unsent::Expired => LossCause::Expired,
            Unsent::TooLarge => LossCause::PacketTooLarge,
        }
    }
}

impl Link {
    /// A link for a client that announced these maxima.
    pub fn new(version: Version, window: u16, packet_bytes_max: u32, alias_out_max: u16) -> Link {
        Link {
            version,
            out: Vec::new(),
            sending: 0,
            window: window.max(1),
            receive_max: u16::MAX,
            packet_bytes_max,
            problem_information: true,
            traffic: Recent::default(),
            extras: None,
            alias_out_max,
        }
    }

    /// Bytes on the heap: output that is not with the driver, and topic aliases.
    pub fn bytes(&self) -> usize {
        self.out.capacity() + self.extras.as_ref().map_or(0, |extras| extras.bytes())
    }

    /// Puts what the client reads and writes below a mountpoint; nothing where it is empty. Such a link is never
    /// [`Link::plain`], for it gets frames of its own.
    pub fn set_mount(&mut self, mount: &str) {
        if !mount.is_empty() {
            self.extras.get_or_insert_default().mount = mount.into();
            self.packet_bytes_max = self.packet_bytes_max.min(PACKET_BYTES_MAX);
        }
    }

    /// What stands before the client's topics.
    #[inline]
    pub fn mount(&self) -> Option<&str> {
        self.extras.as_ref().map(|extras| &*extras.mount).filter(|mount| !mount.is_empty())
    }

    /// A topic as the client knows it. One that is not below its mountpoint, as the session may have from another
    /// listener, is told in full.
    #[inline]
    fn inner<'a>(&self, topic: &'a str) -> &'a str {
        self.mount().and_then(|mount| topic.strip_prefix(mount)).unwrap_or(topic)
    }

    /// Bytes that have not left yet.
    pub fn backlog(&self) -> usize {
        self.out.len() + self.sending as usize
    }

    /// Whether more messages may be written before some bytes left.
    #[inline]
    pub fn has_room(&self, options: &Options) -> bool {
        !self.is_held() && self.has_output_room(options)
    }

    /// Whether it is sent no further message for a while, whatever room there is: it was sent as many as it may.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.held)
    }

    /// Holds messages back, or does so no more.
    pub fn hold(&mut self, held: bool) {
        if held || self.extras.is_some() {
            self.extras.get_or_insert_default().held = held;
        }
    }

    /// Whether more answers may be written before some bytes left.
    #[inline]
    pub fn has_output_room(&self, options: &Options) -> bool {
        self.backlog() < options.max_output_bytes as usize
    }

    /// Whether every delivery of a message with the same RETAIN and no identifiers looks the same.
    #[inline]
    pub fn plain(&self) -> bool {
        self.alias_out_max == 0 && self.packet_bytes_max == u32::MAX
    }

    /// Appends a packet.
    pub fn push(&mut self, packet: &Packet, ctx: &mut Ctx) {
        ctx.pool.fill(&mut self.out);
        let at = self.out.len();
        self.traffic.send_pkt += 1;
        packet.encode(self.version, &mut self.out);
        ctx.counters.packets_out[usize::from(self.out[at] >> 4)] += 1;
    }

    /// Appends an acknowledgement.
    #[inline]
    pub fn push_ack(&mut self, kind: AckKind, id: PacketId, code: ReasonCode, ctx: &mut Ctx) {
        ctx.pool.fill(&mut self.out);
        self.traffic.send_pkt += 1;
        ctx.counters.packets_out[PacketType::from(kind) as usize] += 1;
        encode_ack(&mut self.out, self.version, kind, id, code);
    }

    /// Appends an acknowledgement, and what it is about where a 5.0 client wants to know [MQTT-3.1.2-29] and its
    /// Maximum Packet Size has room for it [MQTT-3.4.2-2].
    pub fn push_ack_with(
        &mut self,
        kind: AckKind,
        id: PacketId,
        code: ReasonCode,
        text: &str,
        ctx: &mut Ctx,
    ) {
        if self.version == Version::V5 && self.problem_information {
            let mut p = PropertyBuf::new();
            p.push(Property::ReasonString(text));
            let packet = Packet::Ack(Ack { kind, packet_id: id, code, properties: p.as_properties() });
            if self.fits(&packet) {
                return self.push(&packet, ctx);
            }
        }
        self.push_ack(kind, id, code, ctx);
    }

    /// Whether a packet is within the client's Maximum Packet Size [MQTT-3.1.2-24].
    pub fn fits(&self, packet: &Packet) -> bool {
        self.packet_bytes_max == u32::MAX
            || packet.encoded_len(self.version) <= self.packet_bytes_max as usize
    }

    /// Appends the first of these packets that fits; says whether one did.
    pub fn push_first(&mut self, packets: &[Packet], ctx: &mut Ctx) -> bool {
        let found = packets.iter().find(|packet| self.fits(packet));
        if let Some(packet) = found {
            self.push(packet, ctx);
        }
        found.is_some()
    }

    /// Appends a PUBLISH, or says why not.
    pub fn push_publish(&mut self, m: &MessageRef, e: Envelope, ctx: &mut Ctx) -> Result<(), Unsent> {
        let mut expiry_s = None;
        if m.head.expires != Moment::NEVER {
            let left_ms = m.head.expires.since_ms(ctx.now);
            // What was sent before is finished: it is not deleted any more [MQTT-3.3.2-5], [MQTT-4.3.3-7].
            if left_ms == 0 && !e.dup {
                ctx.counters.expired_messages += 1;
                return Err(Unsent::Expired);
            }
            // To the nearest second, for this shard's clock may be behind the one that took the message; 0 only
            // where nothing is left.
            expiry_s = u32::try_from(((left_ms + 500) / 1_000).max(u64::from(left_ms > 0))).ok();
        }
        let mut p = PublishOut {
            dup: e.dup,
            qos: e.qos,
            retain: e.retain,
            packet_id: e.packet_id,
            topic: self.inner(m.topic),
            alias: None,
            expiry_s,
            subscription_ids: e.ids,
            forward: m.properties,
            payload: m.payload,
        };
        if self.packet_bytes_max != u32::MAX && publish_len(self.version, &p) > self.packet_bytes_max as usize
        {
            return Err(Unsent::TooLarge);
        }
        if self.alias_out_max > 0 {
            self.alias_out(&mut p);
        }
        ctx.pool.fill(&mut self.out);
        self.traffic.send_pkt += 1;
        self.traffic.send_msg += 1;
        ctx.counters.packets_out[PacketType::Publish as usize] += 1;
        ctx.counters.redelivered += u64::from(e.dup);
        encode_publish(&mut self.out, self.version, &p);
        Ok(())
    }

    /// Replaces a topic by its alias, or gives it one while there are any left. A first use that would make
    /// the packet too large for the client goes without.
    fn alias_out(&mut self, p: &mut PublishOut) {
        let aliases = self.extras.get_or_insert_default();
        if let Some(alias) = aliases.outbound.get(p.topic) {
            p.alias = Some(*alias);
            p.topic = "";
        } else if aliases.outbound.len() < usize::from(self.alias_out_max) {
            let alias = aliases.outbound.len() as u16 + 1;
            let with_alias = PublishOut { alias: Some(alias), ..*p };
            if self.packet_bytes_max == u32::MAX
                || publish_len(self.version, &with_alias) <= self.packet_bytes_max as usize
            {
                aliases.topic_bytes += allocated(p.topic.len());
                aliases.outbound.insert(p.topic.into(), alias);
                p.alias = Some(alias);
            }
        }
    }

    /// The topic that a client's alias stands for, or notes what it stands for from now on. `topic` is empty
    /// where the packet has none. `alias_max` is what was offered [MQTT-3.3.2-8, -9, -12 of 5.0].
    pub fn alias_in<'a>(
        &'a mut self,
        topic: &'a str,
        alias: u16,
        alias_max: u16,
    ) -> Result<&'a str, ReasonCode> {
        if alias == 0 || alias > alias_max {
            return Err(ReasonCode::TOPIC_ALIAS_INVALID);
        }
        let Extras { inbound, topic_bytes, .. } = &mut **self.extras.get_or_insert_default();
        let at = usize::from(alias) - 1;
        if topic.is_empty() {
            let known = inbound.get(at).map(|t| &**t).filter(|t| !t.is_empty());
            return known.ok_or(ReasonCode::PROTOCOL_ERROR);
        }
        if inbound.len() <= at {
            inbound.resize(at + 1, "".into());
        }
        if *inbound[at] != *topic {
            *topic_bytes = *topic_bytes + allocated(topic.len()) - allocated(inbound[at].len());
            inbound[at] = topic.into();
        }
        Ok(topic)
    }
}
