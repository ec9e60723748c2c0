//! QoS 2 from a client: each packet identifier is taken once until its PUBREL.

use crate::codec::PacketId;
use crate::map::Map;
use crate::time::Moment;

/// What a QoS 2 PUBLISH is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// New: route it, then answer PUBREC.
    New,
    /// Known: answer PUBREC, do not route it again [MQTT-4.3.3-10 of 5.0].
    Again,
    /// More than the Receive Maximum [MQTT-3.3.4-9 of 5.0].
    TooMany,
}

/// Identifiers of QoS 2 messages that wait for PUBREL.
#[derive(Debug, Default)]
pub struct Incoming(Map<PacketId, Moment>);

impl Incoming {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Messages that wait for PUBREL.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What a PUBLISH with this identifier is. `max` identifiers may wait; those that have waited since
    /// before `forget` make room.
    pub fn check(&mut self, id: PacketId, max: usize, forget: Moment) -> Arrival {
        if self.0.contains_key(&id) {
            return Arrival::Again;
        }
        if self.0.len() >= max {
            self.0.retain(|_, since| *since > forget);
            if self.0.len() >= max {
                return Arrival::TooMany;
            }
        }
        Arrival::New
    }

    /// The message with this identifier was taken.
    pub fn accept(&mut self, id: PacketId, now: Moment) {
        self.0.insert(id, now);
    }

    /// Takes PUBREL; false when the identifier is unknown.
    pub fn release(&mut self, id: PacketId) -> bool {
        self.0.remove(&id).is_some()
    }
}
