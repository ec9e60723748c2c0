//! A version-neutral message: borrowed while it is routed, one allocation once somebody must keep it.

use crate::stats::Source;
use crate::sync::Shared;
use crate::time::{Moment, Stamp};

/// Quality of service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
#[repr(u8)]
pub enum QoS {
    /// At most once delivery.
    #[default]
    AtMostOnce = 0,
    /// At least once delivery.
    AtLeastOnce = 1,
    /// Exactly once delivery.
    ExactlyOnce = 2,
}

impl QoS {
    /// 0, 1 or 2; `None` for 3 and above.
    pub fn from_bits(bits: u8) -> Option<QoS> {
        match bits {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// A message while it is routed: nothing is owned.
#[derive(Clone, Copy, Debug)]
pub struct MessageRef<'a> {
    /// The topic name, never empty, no wildcards.
    pub topic: &'a str,
    /// The PUBLISH properties that go on to subscribers, in the wire form of 5.0, without the length in
    /// front: no topic alias, no subscription identifier, no message expiry interval.
    pub properties: &'a [u8],
    /// The application message.
    pub payload: &'a [u8],
    /// Everything of fixed size.
    pub head: Head,
}

/// What of a message has a fixed size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The QoS it was published with.
    pub qos: QoS,
    /// Whether it was published with RETAIN.
    pub retain: bool,
    /// When it expires; [`Moment::NEVER`] without a message expiry interval.
    pub expires: Moment,
    /// The key of the publisher's client identifier, for No Local and shared-subscription strategies.
    pub publisher: u64,
    /// Where it comes from.
    pub source: Source,
    /// The tick that it was published in; [`Stamp::NONE`] where its latency is of no interest.
    pub stamp: Stamp,
}

const _: () = assert!(std::mem::size_of::<Head>() == 24);

impl Head {
    /// What a message has that says no more about itself.
    pub fn new(qos: QoS, retain: bool, publisher: u64, source: Source) -> Head {
        Head { qos, retain, expires: Moment::NEVER, publisher, source, stamp: Stamp::NONE }
    }
}

/// A message that somebody keeps: one allocation, shared by all who keep it.
#[derive(Clone, Debug)]
pub struct Message(Shared<Head>);

impl Message {
    /// Copies a message out of the buffers that it was received in.
    pub fn new(from: &MessageRef) -> Message {
        Message(Shared::new(from.head, from.topic, from.properties, from.payload))
    }

    /// A view of it.
    pub fn view(&self) -> MessageRef<'_> {
        let (topic, properties, payload) = self.0.parts();
        MessageRef { topic, properties, payload, head: *self.0 }
    }

    /// Whether both are one allocation.
    pub fn is(&self, other: &Message) -> bool {
        std::ptr::eq(self.topic(), other.topic())
    }

    /// The topic name.
    pub fn topic(&self) -> &str {
        self.view().topic
    }

    /// Bytes that it holds in memory.
    pub fn bytes(&self) -> usize {
        self.0.len() + std::mem::size_of::<Head>() + 2 * std::mem::size_of::<usize>()
    }
}
