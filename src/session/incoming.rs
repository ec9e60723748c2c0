//! QoS 2 from a client: each packet identifier is taken once until its PUBREL.

use crate::codec::PacketId;
use crate::heap::map_bytes;
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

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        map_bytes::<PacketId, Moment>(self.0.capacity())
    }

    /// Messages that wait for PUBREL.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What a PUBLISH with this identifier is. `max` identifiers may wait; those that have waited for
    /// `forget_ms` make room, and are appended to `forgotten`.
    pub fn check(
        &mut self,
        id: PacketId,
        max: usize,
        now: Moment,
        forget_ms: u64,
        forgotten: &mut Vec<PacketId>,
    ) -> Arrival {
        if self.0.contains_key(&id) {
            return Arrival::Again;
        }
        if self.0.len() >= max {
            let late = |_: &PacketId, since: &mut Moment| now.since_ms(*since) >= forget_ms;
            forgotten.extend(self.0.extract_if(late).map(|(id, _)| id));
            if self.0.len() >= max {
                return Arrival::TooMany;
            }
        }
        Arrival::New
    }

    /// The identifiers.
    pub fn ids(&self) -> impl Iterator<Item = PacketId> {
        self.0.keys().copied()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_makes_room_after_its_time_and_not_before() {
        let id = |n: u16| PacketId::new(n).expect("not 0");
        let mut incoming = Incoming::default();
        for n in 1..=3 {
            assert_eq!(incoming.check(id(n), 3, Moment(0), 1_000, &mut Vec::new()), Arrival::New);
            incoming.accept(id(n), Moment(0));
        }
        assert_eq!(incoming.check(id(3), 3, Moment(0), 1_000, &mut Vec::new()), Arrival::Again);
        // From the broker's first moment on.
        for now in [0, 1, 999] {
            assert_eq!(
                incoming.check(id(4), 3, Moment(now), 1_000, &mut Vec::new()),
                Arrival::TooMany,
                "{now}"
            );
        }
        assert_eq!(incoming.check(id(4), 3, Moment(1_000), 1_000, &mut Vec::new()), Arrival::New);
        assert!(incoming.is_empty());
    }
}
