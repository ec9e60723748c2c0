//! The properties of 5.0: one table that says of each its identifier, type and places.

use super::packet_type::*;
use super::read::{Reader, has_any};
use super::write::Sink;
use super::{DecodeError, ReasonCode};
use crate::limits::SUBSCRIPTION_ID_MAX;

/// How a field of a property is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Byte,
    Two,
    Four,
    VarInt,
    Text,
    Binary,
}

/// A row of the table.
pub(super) struct Row {
    pub name: &'static str,
    pub fields: &'static [Kind],
    /// Where it may stand.
    pub places: Places,
    /// Where it may stand more than once.
    pub repeats: Places,
}

/// One line per property: identifier, name, its fields (type and how it is written), where it may stand, and
/// where it may stand more than once.
macro_rules! properties {
    ($($id:literal $name:ident($($field:ident $value:ty: $kind:ident),+) in $places:expr, repeats in $repeats:expr;)+) => {
        /// A property, by its name in the standard [MQTT-2.2.2.2 of 5.0].
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Property<'a> {
            $(#[doc = concat!("Identifier ", stringify!($id), ".")] $name($($value),+),)+
        }

        /// The row of an identifier, `None` where the standard has none.
        #[inline]
        pub(super) fn row(id: u8) -> Option<&'static Row> {
            match id {
                $($id => Some(&Row {
                    name: stringify!($name),
                    fields: &[$(Kind::$kind),+],
                    places: $places,
                    repeats: $repeats,
                }),)+
                _ => None,
            }
        }

        /// The identifiers in use.
        #[cfg(test)]
        pub(super) const IDS: &[u8] = &[$($id),+];

        impl<'a> Property<'a> {
            /// Its identifier.
            pub const fn id(&self) -> u8 {
                match self { $(Property::$name(..) => $id,)+ }
            }

            /// Reads the fields that follow the identifier `id`.
            pub(super) fn read(id: u8, from: &mut Reader<'a>) -> Result<Property<'a>, DecodeError> {
                match id {
                    $($id => Ok(Property::$name($(<$value as Field<'a>>::read(Kind::$kind, from)?),+)),)+
                    _ => Err(unknown(id)),
                }
            }

            /// Writes identifier and fields.
            pub(super) fn write(&self, to: &mut impl Sink) {
                to.u8(self.id());
                match *self {
                    $(Property::$name($($field),+) => { $($field.write(Kind::$kind, to);)+ })+
                }
            }

            /// Whether each field can be written: strings and binary data of at most 65,535 bytes, strings
            /// without U+0000.
            pub(super) fn fits(&self) -> bool {
                match *self { $(Property::$name($($field),+) => $($field.fits())&&+,)+ }
            }
        }
    };
}

const MESSAGE: Places = PUBLISH | WILL;
const ENDS: Places = CONNACK | DISCONNECT;
const ACKS: Places = PUBACK | PUBREC | PUBREL | PUBCOMP | SUBACK | UNSUBACK;
const LOGIN: Places = CONNECT | CONNACK;
const EVERYWHERE: Places = LOGIN | MESSAGE | ACKS | SUBSCRIBE | UNSUBSCRIBE | DISCONNECT | AUTH;

properties! {
    0x01 PayloadFormatIndicator(value u8: Byte) in MESSAGE, repeats in NOWHERE;
    0x02 MessageExpiryInterval(value u32: Four) in MESSAGE, repeats in NOWHERE;
    0x03 ContentType(value &'a str: Text) in MESSAGE, repeats in NOWHERE;
    0x08 ResponseTopic(value &'a str: Text) in MESSAGE, repeats in NOWHERE;
    0x09 CorrelationData(value &'a [u8]: Binary) in MESSAGE, repeats in NOWHERE;
    0x0B SubscriptionIdentifier(value u32: VarInt) in PUBLISH | SUBSCRIBE, repeats in PUBLISH;
    0x11 SessionExpiryInterval(value u32: Four) in LOGIN | DISCONNECT, repeats in NOWHERE;
    0x12 AssignedClientIdentifier(value &'a str: Text) in CONNACK, repeats in NOWHERE;
    0x13 ServerKeepAlive(value u16: Two) in CONNACK, repeats in NOWHERE;
    0x15 AuthenticationMethod(value &'a str: Text) in LOGIN | AUTH, repeats in NOWHERE;
    0x16 AuthenticationData(value &'a [u8]: Binary) in LOGIN | AUTH, repeats in NOWHERE;
    0x17 RequestProblemInformation(value u8: Byte) in CONNECT, repeats in NOWHERE;
    0x18 WillDelayInterval(value u32: Four) in WILL, repeats in NOWHERE;
    0x19 RequestResponseInformation(value u8: Byte) in CONNECT, repeats in NOWHERE;
    0x1A ResponseInformation(value &'a str: Text) in CONNACK, repeats in NOWHERE;
    0x1C ServerReference(value &'a str: Text) in ENDS, repeats in NOWHERE;
    0x1F ReasonString(value &'a str: Text) in ENDS | ACKS | AUTH, repeats in NOWHERE;
    0x21 ReceiveMaximum(value u16: Two) in LOGIN, repeats in NOWHERE;
    0x22 TopicAliasMaximum(value u16: Two) in LOGIN, repeats in NOWHERE;
    0x23 TopicAlias(value u16: Two) in PUBLISH, repeats in NOWHERE;
    0x24 MaximumQoS(value u8: Byte) in CONNACK, repeats in NOWHERE;
    0x25 RetainAvailable(value u8: Byte) in CONNACK, repeats in NOWHERE;
    0x26 UserProperty(name &'a str: Text, value &'a str: Text) in EVERYWHERE, repeats in EVERYWHERE;
    0x27 MaximumPacketSize(value u32: Four) in LOGIN, repeats in NOWHERE;
    0x28 WildcardSubscriptionAvailable(value u8: Byte) in CONNACK, repeats in NOWHERE;
    0x29 SubscriptionIdentifierAvailable(value u8: Byte) in CONNACK, repeats in NOWHERE;
    0x2A SharedSubscriptionAvailable(value u8: Byte) in CONNACK, repeats in NOWHERE;
}

pub(super) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
pub(super) const AUTHENTICATION_METHOD: u8 = 0x15;
pub(super) const AUTHENTICATION_DATA: u8 = 0x16;
pub(super) const TOPIC_ALIAS: u8 = 0x23;

impl Property<'_> {
    /// The rules of the standard for its value alone.
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        match *self {
            Property::PayloadFormatIndicator(value)
            | Property::RequestProblemInformation(value)
            | Property::RequestResponseInformation(value)
            | Property::MaximumQoS(value)
            | Property::RetainAvailable(value)
            | Property::WildcardSubscriptionAvailable(value)
            | Property::SubscriptionIdentifierAvailable(value)
            | Property::SharedSubscriptionAvailable(value)
                if value > 1 =>
            {
                Err(DecodeError::protocol("a property value of 0 or 1", value))
            }
            Property::ReceiveMaximum(0) => Err(DecodeError::protocol("a Receive Maximum above 0", 0u8)),
            Property::MaximumPacketSize(0) => {
                Err(DecodeError::protocol("a Maximum Packet Size above 0", 0u8))
            }
            Property::SubscriptionIdentifier(value) if value == 0 || value > SUBSCRIPTION_ID_MAX => {
                Err(DecodeError::protocol("a Subscription Identifier from 1 to 268,435,455", value))
            }
            Property::TopicAlias(0) => {
                Err(DecodeError::new(ReasonCode::TOPIC_ALIAS_INVALID, "a Topic Alias above 0", 0u8))
            }
            Property::ResponseTopic("") => Err(DecodeError::protocol("a Response Topic", "an empty string")),
            Property::ResponseTopic(topic) if has_any(topic.as_bytes(), |b| (b == b'+') | (b == b'#')) => {
                Err(DecodeError::protocol("a Response Topic without wildcards", "+ or #"))
            }
            _ => Ok(()),
        }
    }
}

/// An identifier that the standard does not define.
#[cold]
pub(super) fn unknown(id: u8) -> DecodeError {
    DecodeError::malformed("a property identifier of the standard", id)
}

/// A field of a property, as a value.
trait Field<'a>: Copy {
    fn read(kind: Kind, from: &mut Reader<'a>) -> Result<Self, DecodeError>;
    fn write(self, kind: Kind, to: &mut impl Sink);

    /// Whether it can be written.
    fn fits(self) -> bool {
        true
    }
}

impl<'a> Field<'a> for u8 {
    fn read(_: Kind, from: &mut Reader<'a>) -> Result<u8, DecodeError> {
        from.u8()
    }

    fn write(self, _: Kind, to: &mut impl Sink) {
        to.u8(self);
    }
}

impl<'a> Field<'a> for u16 {
    fn read(_: Kind, from: &mut Reader<'a>) -> Result<u16, DecodeError> {
        from.u16()
    }

    fn write(self, _: Kind, to: &mut impl Sink) {
        to.u16(self);
    }
}

impl<'a> Field<'a> for u32 {
    fn read(kind: Kind, from: &mut Reader<'a>) -> Result<u32, DecodeError> {
        if kind == Kind::VarInt { from.varint() } else { from.u32() }
    }

    fn write(self, kind: Kind, to: &mut impl Sink) {
        if kind == Kind::VarInt { to.varint(self as usize) } else { to.u32(self) }
    }
}

impl<'a> Field<'a> for &'a str {
    fn read(_: Kind, from: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
        from.text()
    }

    fn write(self, _: Kind, to: &mut impl Sink) {
        to.binary(self.as_bytes());
    }

    fn fits(self) -> bool {
        self.len() <= usize::from(u16::MAX) && !self.as_bytes().contains(&0)
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn read(_: Kind, from: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
        from.binary()
    }

    fn write(self, _: Kind, to: &mut impl Sink) {
        to.binary(self);
    }

    fn fits(self) -> bool {
        self.len() <= usize::from(u16::MAX)
    }
}
