//! The packets as types. All of them borrow from the bytes that they were decoded from.

use super::{Filters, Properties, ReasonCode, Topics};
use crate::message::QoS;
use std::num::NonZeroU16;

/// A packet identifier [MQTT-2.2.1-3 of 5.0].
pub type PacketId = NonZeroU16;

/// The protocol level of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Version {
    /// MQTT 3.1 (`MQIsdp`, 3).
    V31,
    /// MQTT 3.1.1 (`MQTT`, 4).
    V311,
    /// MQTT 5.0 (`MQTT`, 5).
    V5,
}

impl Version {
    /// The protocol level on the wire: 3, 4 or 5.
    pub const fn level(self) -> u8 {
        match self {
            Version::V31 => 3,
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }
}

/// Any packet.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Packet<'a> {
    /// Client to server, first on each connection.
    Connect(Connect<'a>),
    /// Server to client, the answer.
    ConnAck(ConnAck<'a>),
    /// Either way.
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP, either way.
    Ack(Ack<'a>),
    /// Client to server.
    Subscribe(Subscribe<'a>),
    /// Server to client.
    SubAck(SubAck<'a>),
    /// Client to server.
    Unsubscribe(Unsubscribe<'a>),
    /// Server to client.
    UnsubAck(UnsubAck<'a>),
    /// Client to server.
    PingReq,
    /// Server to client.
    PingResp,
    /// Either way in 5.0, client to server before.
    Disconnect(Disconnect<'a>),
    /// Either way, 5.0 only.
    Auth(Auth<'a>),
}

/// CONNECT.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Connect<'a> {
    /// Protocol name and level.
    pub version: Version,
    /// Bit 7 of a 3.x protocol level: a bridge of mosquitto says so.
    pub bridge: bool,
    /// Clean Start; Clean Session in 3.x.
    pub clean_start: bool,
    /// Keep Alive in seconds, 0 = off.
    pub keep_alive_s: u16,
    /// Client identifier, possibly empty.
    pub client_id: &'a str,
    /// The will.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Empty in 3.x.
    pub properties: Properties<'a>,
}

/// The will within CONNECT.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Will<'a> {
    /// Will topic: well-formed UTF-8; whether it is a topic name is the session's to check.
    pub topic: &'a str,
    /// Will payload.
    pub payload: &'a [u8],
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will properties.
    pub properties: Properties<'a>,
}

/// CONNACK.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ConnAck<'a> {
    /// Session Present.
    pub session_present: bool,
    /// Written as the return code that fits best in 3.x; a 3.x return code is read as the reason code that
    /// fits best.
    pub code: ReasonCode,
    /// Not written in 3.x.
    pub properties: Properties<'a>,
}

/// PUBLISH.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Publish<'a> {
    /// Re-delivery.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic name: valid (no wildcard, no U+0000), or empty where the properties hold a topic alias (5.0).
    pub topic: &'a str,
    /// Present for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Empty in 3.x.
    pub properties: Properties<'a>,
    /// The application message.
    pub payload: &'a [u8],
}

/// Which of the four acknowledgements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckKind {
    /// PUBACK.
    PubAck,
    /// PUBREC.
    PubRec,
    /// PUBREL.
    PubRel,
    /// PUBCOMP.
    PubComp,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ack<'a> {
    /// Which.
    pub kind: AckKind,
    /// Of the message.
    pub packet_id: PacketId,
    /// Success where it is left out; not written in 3.x.
    pub code: ReasonCode,
    /// Not written in 3.x.
    pub properties: Properties<'a>,
}

/// SUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Subscribe<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Empty in 3.x.
    pub properties: Properties<'a>,
    /// At least one; each well-formed UTF-8 with valid options. Whether it is a topic filter is the session's
    /// to check, for SUBACK has a reason code for that.
    pub filters: Filters<'a>,
}

/// Subscription options [MQTT-3.8.3.1 of 5.0]; 3.x has the QoS alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SubscribeOptions {
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// Retain Handling.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: retained messages are sent at each subscribe.
    #[default]
    Send = 0,
    /// 1: only when the subscription is new.
    SendIfNew = 1,
    /// 2: never.
    DoNotSend = 2,
}

/// SUBACK.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SubAck<'a> {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Not written in 3.x.
    pub properties: Properties<'a>,
    /// One reason code per filter; in 3.x each at 0x80 or above is written as 0x80.
    pub codes: &'a [u8],
}

/// UNSUBSCRIBE.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Unsubscribe<'a> {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Empty in 3.x.
    pub properties: Properties<'a>,
    /// At least one, each well-formed UTF-8.
    pub filters: Topics<'a>,
}

/// UNSUBACK.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct UnsubAck<'a> {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Not written in 3.x.
    pub properties: Properties<'a>,
    /// One per filter; not written in 3.x.
    pub codes: &'a [u8],
}

/// DISCONNECT.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Disconnect<'a> {
    /// Normal disconnection where it is left out; not written in 3.x.
    pub code: ReasonCode,
    /// Not written in 3.x.
    pub properties: Properties<'a>,
}

/// AUTH.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Auth<'a> {
    /// Success, continue authentication or re-authenticate.
    pub code: ReasonCode,
    /// With an authentication method.
    pub properties: Properties<'a>,
}
