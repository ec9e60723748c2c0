//! The wire format of MQTT 3.1, 3.1.1 and 5.0, both directions, and nothing else: no rule of a session.

mod packet;

pub use packet::*;
