//! The fifteen packet types, and where properties and reason codes may stand.

use super::{AckKind, DecodeError, Version};

/// A set of [`PacketType`]s and the will, for the tables of properties and reason codes.
pub(super) type Places = u16;

pub(super) const WILL: Places = 1;
pub(super) const CONNECT: Places = PacketType::Connect.place();
pub(super) const CONNACK: Places = PacketType::ConnAck.place();
pub(super) const PUBLISH: Places = PacketType::Publish.place();
pub(super) const PUBACK: Places = PacketType::PubAck.place();
pub(super) const PUBREC: Places = PacketType::PubRec.place();
pub(super) const PUBREL: Places = PacketType::PubRel.place();
pub(super) const PUBCOMP: Places = PacketType::PubComp.place();
pub(super) const SUBSCRIBE: Places = PacketType::Subscribe.place();
pub(super) const SUBACK: Places = PacketType::SubAck.place();
pub(super) const UNSUBSCRIBE: Places = PacketType::Unsubscribe.place();
pub(super) const UNSUBACK: Places = PacketType::UnsubAck.place();
pub(super) const DISCONNECT: Places = PacketType::Disconnect.place();
pub(super) const AUTH: Places = PacketType::Auth.place();
pub(super) const NOWHERE: Places = 0;

/// The bit of the first byte that is DUP in PUBLISH, and in 3.1 in PUBREL, SUBSCRIBE and UNSUBSCRIBE.
pub(super) const DUP: u8 = 0x08;

/// The type of a packet: the upper half of its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PacketType {
    /// CONNECT.
    Connect = 1,
    /// CONNACK.
    ConnAck,
    /// PUBLISH.
    Publish,
    /// PUBACK.
    PubAck,
    /// PUBREC.
    PubRec,
    /// PUBREL.
    PubRel,
    /// PUBCOMP.
    PubComp,
    /// SUBSCRIBE.
    Subscribe,
    /// SUBACK.
    SubAck,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// UNSUBACK.
    UnsubAck,
    /// PINGREQ.
    PingReq,
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect,
    /// AUTH.
    Auth,
}

const TYPES: [PacketType; 15] = [
    PacketType::Connect,
    PacketType::ConnAck,
    PacketType::Publish,
    PacketType::PubAck,
    PacketType::PubRec,
    PacketType::PubRel,
    PacketType::PubComp,
    PacketType::Subscribe,
    PacketType::SubAck,
    PacketType::Unsubscribe,
    PacketType::UnsubAck,
    PacketType::PingReq,
    PacketType::PingResp,
    PacketType::Disconnect,
    PacketType::Auth,
];

impl PacketType {
    /// The type that a packet's first byte says.
    ///
    /// # Errors
    /// Malformed: type 0, and flag bits that no version allows there [MQTT-2.1.3-1 of 5.0].
    #[inline]
    pub fn of(first: u8) -> Result<PacketType, DecodeError> {
        let index = usize::from(first >> 4).wrapping_sub(1);
        let Some(&kind) = TYPES.get(index) else {
            return Err(DecodeError::malformed("a packet type from 1 to 15", 0u8));
        };
        let flags = first & 0x0F;
        match kind {
            PacketType::Publish if flags & 0x06 == 0x06 => Err(DecodeError::malformed("QoS 0, 1 or 2", 3u8)),
            PacketType::Publish => Ok(kind),
            _ if flags == kind.flags() || kind.takes_dup() && flags == kind.flags() | DUP => Ok(kind),
            _ => Err(DecodeError::malformed("the fixed header's flags as the standard lists them", flags)),
        }
    }

    /// The type that a packet's first byte says, with the flag bits that `version` allows.
    #[inline]
    pub(super) fn of_version(first: u8, version: Version) -> Result<PacketType, DecodeError> {
        let kind = PacketType::of(first)?;
        if kind.takes_dup() && first & DUP != 0 && version != Version::V31 {
            return Err(DecodeError::malformed("the fixed header's flags 2", first & 0x0F));
        }
        Ok(kind)
    }

    /// The first byte of a packet of this type; PUBLISH adds its flags.
    pub(super) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.flags()
    }

    /// This type as a set.
    pub(super) const fn place(self) -> Places {
        1 << self as u8
    }

    /// The reserved flag bits as they must be.
    const fn flags(self) -> u8 {
        match self {
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0x02,
            _ => 0,
        }
    }

    /// 3.1 re-sends these with DUP set; 3.1.1 reserved the bit.
    const fn takes_dup(self) -> bool {
        matches!(self, PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe)
    }
}

impl From<AckKind> for PacketType {
    fn from(kind: AckKind) -> PacketType {
        match kind {
            AckKind::PubAck => PacketType::PubAck,
            AckKind::PubRec => PacketType::PubRec,
            AckKind::PubRel => PacketType::PubRel,
            AckKind::PubComp => PacketType::PubComp,
        }
    }
}
