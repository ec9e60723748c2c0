//! The wire format of MQTT 3.1, 3.1.1 and 5.0, both directions, and nothing else: no rule of a session.
//!
//! Reading: [`frame`] finds where a packet ends, [`decode`] turns exactly one packet into a [`Packet`] that
//! borrows from its bytes. Writing: [`Packet::encode`] for anything, [`encode_publish`], [`encode_ack`] and
//! [`encode_pingresp`] for the data path. Nothing here allocates except for growing an output buffer.
//!
//! Invariants: whatever [`decode`] returned can be read without an error (strings are well-formed and free
//! of U+0000, properties are where the standard allows them and hold values that it allows, no reserved bit
//! is set), and `encode` writes what [`decode`] accepts.
//!
//! Traps: whether a will topic or a topic filter is valid is the session's to say, because answers exist for
//! both. A subscription identifier in PUBLISH is legal on the wire, for servers send it; the server's side of
//! a session must refuse it [MQTT-3.3.4-6 of 5.0]. No Local on a shared subscription is the session's to
//! refuse too [MQTT-3.8.3-4 of 5.0].

mod decode;
mod encode;
mod error;
mod filters;
mod frame;
mod packet;
mod packet_type;
mod properties;
mod property;
mod read;
mod reason;
mod routing;
#[cfg(test)]
mod tests;
mod write;

pub use decode::{decode, decode_publish};
pub use encode::{PublishOut, encode_ack, encode_pingresp, encode_publish, publish_len};
pub use error::{DecodeError, Got};
pub use filters::{FilterIter, Filters, TopicIter, Topics};
pub use frame::{Framed, frame};
pub use packet::*;
pub use packet_type::PacketType;
pub use properties::{Properties, PropertyBuf, PropertyIter};
pub use property::Property;
pub use reason::ReasonCode;
pub use routing::{Forward, Routing, WillRouting};
