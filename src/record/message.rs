//! Records of messages: retained ones, and entries of queues.

use super::bytes::{Reader, Writer};
use super::{BadRecord, Day};
use crate::limits::SUBSCRIPTION_ID_MAX;
use crate::message::{Head, Message, MessageRef, QoS};
use crate::stats::Source;
use crate::topic::Topic;

/// A QoS 1 or 2 message in the queue of a session. Its packet identifier follows from its place in the queue.
#[derive(Clone, Debug)]
pub struct EntryRecord {
    /// The message; `None` where the entry points to a body of its own.
    pub message: Option<Message>,
    /// QoS of this delivery: 1 or 2.
    pub qos: QoS,
    /// RETAIN of this delivery.
    pub retain: bool,
    /// Subscription identifiers.
    pub ids: Vec<u32>,
    /// Where it comes from as the session sees it.
    pub source: Source,
}

/// Each source with its number in a record; numbers are never given to another.
const SOURCES: &[(Source, u8)] = &[
    (Source::Client, 0),
    (Source::Http, 1),
    (Source::Will, 2),
    (Source::Retained, 3),
    (Source::System, 4),
    (Source::Bridge, 5),
];

fn source_bits(source: Source) -> u8 {
    SOURCES.iter().find(|(known, _)| *known == source).map_or(0, |(_, bits)| *bits)
}

fn read_source(bits: u8) -> Result<Source, BadRecord> {
    SOURCES.iter().find(|(_, known)| *known == bits).map(|(s, _)| *s).ok_or(BadRecord::Field("source"))
}

/// A message by itself.
pub fn encode_message(m: &MessageRef, day: Day) -> Box<[u8]> {
    let mut w = Writer::new(m.topic.len() + m.properties.len() + m.payload.len() + 32);
    put_message(&mut w, m, day);
    w.finish()
}

/// A message that was written by [`encode_message`]. It has no publisher: the keys of clients are new in each run.
///
/// # Errors
/// When the record is damaged or of another version.
pub fn decode_message(record: &[u8], day: Day) -> Result<Message, BadRecord> {
    let mut r = Reader::new(record)?;
    let message = read_message(&mut r, day)?;
    r.finish()?;
    Ok(message)
}

pub(super) fn put_message(w: &mut Writer, m: &MessageRef, day: Day) {
    w.u8(m.head.qos as u8 | u8::from(m.head.retain) << 2 | source_bits(m.head.source) << 3);
    w.u64(day.wall_ms(m.head.expires));
    w.text(m.topic);
    w.bytes(m.properties);
    w.bytes(m.payload);
}

pub(super) fn read_message(r: &mut Reader, day: Day) -> Result<Message, BadRecord> {
    let bits = r.u8()?;
    let qos = QoS::from_bits(bits & 3).ok_or(BadRecord::Field("QoS"))?;
    let mut head = Head::new(qos, bits & 4 != 0, 0, read_source(bits >> 3)?);
    head.expires = day.moment(r.u64()?);
    let topic = r.text("topic")?;
    Topic::new(topic, 0).map_err(|_| BadRecord::Field("topic"))?;
    let properties = r.bytes()?;
    let payload = r.bytes()?;
    Ok(Message::new(&MessageRef { topic, properties, payload, head }))
}

/// An entry of a queue; `message` is left out where it points to a body.
pub fn encode_entry(
    message: Option<&MessageRef>,
    qos: QoS,
    retain: bool,
    ids: &[u32],
    source: Source,
    day: Day,
) -> Box<[u8]> {
    let bytes = message.map_or(0, |m| m.topic.len() + m.properties.len() + m.payload.len() + 32);
    let mut w = Writer::new(bytes + 4 * ids.len() + 8);
    w.u8(qos as u8 | u8::from(retain) << 2 | source_bits(source) << 3);
    w.u32(ids.len() as u32);
    ids.iter().for_each(|id| w.u32(*id));
    w.u8(u8::from(message.is_some()));
    if let Some(m) = message {
        put_message(&mut w, m, day);
    }
    w.finish()
}

/// An entry that was written by [`encode_entry`].
///
/// # Errors
/// When the record is damaged or of another version.
pub fn decode_entry(record: &[u8], day: Day) -> Result<EntryRecord, BadRecord> {
    let mut r = Reader::new(record)?;
    let bits = r.u8()?;
    let qos = QoS::from_bits(bits & 3).filter(|qos| *qos != QoS::AtMostOnce);
    let qos = qos.ok_or(BadRecord::Field("QoS"))?;
    let count = r.u32()? as usize;
    let mut ids = Vec::new();
    for _ in 0..count {
        let id = r.u32()?;
        if id == 0 || id > SUBSCRIPTION_ID_MAX {
            return Err(BadRecord::Field("subscription identifier"));
        }
        ids.push(id);
    }
    let source = read_source(bits >> 3)?;
    let message = if r.flag("body")? { Some(read_message(&mut r, day)?) } else { None };
    r.finish()?;
    Ok(EntryRecord { message, qos, retain: bits & 4 != 0, ids, source })
}
