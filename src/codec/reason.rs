//! The reason codes of 5.0, and what becomes of them in 3.x.

use super::packet_type::*;
use super::{DecodeError, PacketType};
use std::fmt;

/// A reason code [MQTT-2.4 of 5.0]. 3.x has return codes in CONNACK and SUBACK alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ReasonCode(pub u8);

/// One line per code: value, constant, name, and the packets that may hold it.
macro_rules! reason_codes {
    ($($value:literal $constant:ident $name:literal in $places:expr;)+) => {
        impl ReasonCode {
            $(#[doc = concat!($name, ".")] pub const $constant: ReasonCode = ReasonCode($value);)+

            /// All of them.
            pub const ALL: &[ReasonCode] = &[$(ReasonCode($value)),+];
        }

        const fn row(code: ReasonCode) -> Option<(&'static str, Places)> {
            match code.0 {
                $($value => Some(($name, $places)),)+
                _ => None,
            }
        }
    };
}

const PUBLISHED: Places = PUBACK | PUBREC;
const ENDS: Places = CONNACK | DISCONNECT;

reason_codes! {
    0x00 SUCCESS "Success" in CONNACK | PUBLISHED | PUBREL | PUBCOMP | SUBACK | UNSUBACK | DISCONNECT | AUTH;
    0x01 GRANTED_QOS_1 "Granted QoS 1" in SUBACK;
    0x02 GRANTED_QOS_2 "Granted QoS 2" in SUBACK;
    0x04 DISCONNECT_WITH_WILL "Disconnect with Will Message" in DISCONNECT;
    0x10 NO_MATCHING_SUBSCRIBERS "No matching subscribers" in PUBLISHED;
    0x11 NO_SUBSCRIPTION_EXISTED "No subscription existed" in UNSUBACK;
    0x18 CONTINUE_AUTHENTICATION "Continue authentication" in AUTH;
    0x19 REAUTHENTICATE "Re-authenticate" in AUTH;
    0x80 UNSPECIFIED_ERROR "Unspecified error" in ENDS | PUBLISHED | SUBACK | UNSUBACK;
    0x81 MALFORMED_PACKET "Malformed Packet" in ENDS;
    0x82 PROTOCOL_ERROR "Protocol Error" in ENDS;
    0x83 IMPLEMENTATION_SPECIFIC_ERROR "Implementation specific error" in ENDS | PUBLISHED | SUBACK | UNSUBACK;
    0x84 UNSUPPORTED_PROTOCOL_VERSION "Unsupported Protocol Version" in CONNACK;
    0x85 CLIENT_ID_NOT_VALID "Client Identifier not valid" in CONNACK;
    0x86 BAD_USERNAME_OR_PASSWORD "Bad User Name or Password" in CONNACK;
    0x87 NOT_AUTHORIZED "Not authorized" in ENDS | PUBLISHED | SUBACK | UNSUBACK;
    0x88 SERVER_UNAVAILABLE "Server unavailable" in CONNACK;
    0x89 SERVER_BUSY "Server busy" in ENDS;
    0x8A BANNED "Banned" in CONNACK;
    0x8B SERVER_SHUTTING_DOWN "Server shutting down" in DISCONNECT;
    0x8C BAD_AUTHENTICATION_METHOD "Bad authentication method" in ENDS;
    0x8D KEEP_ALIVE_TIMEOUT "Keep Alive timeout" in DISCONNECT;
    0x8E SESSION_TAKEN_OVER "Session taken over" in DISCONNECT;
    0x8F TOPIC_FILTER_INVALID "Topic Filter invalid" in SUBACK | UNSUBACK | DISCONNECT;
    0x90 TOPIC_NAME_INVALID "Topic Name invalid" in ENDS | PUBLISHED;
    0x91 PACKET_ID_IN_USE "Packet Identifier in use" in PUBLISHED | SUBACK | UNSUBACK;
    0x92 PACKET_ID_NOT_FOUND "Packet Identifier not found" in PUBREL | PUBCOMP;
    0x93 RECEIVE_MAXIMUM_EXCEEDED "Receive Maximum exceeded" in DISCONNECT;
    0x94 TOPIC_ALIAS_INVALID "Topic Alias invalid" in DISCONNECT;
    0x95 PACKET_TOO_LARGE "Packet too large" in ENDS;
    0x96 MESSAGE_RATE_TOO_HIGH "Message rate too high" in DISCONNECT;
    0x97 QUOTA_EXCEEDED "Quota exceeded" in ENDS | PUBLISHED | SUBACK;
    0x98 ADMINISTRATIVE_ACTION "Administrative action" in DISCONNECT;
    0x99 PAYLOAD_FORMAT_INVALID "Payload format invalid" in ENDS | PUBLISHED;
    0x9A RETAIN_NOT_SUPPORTED "Retain not supported" in ENDS;
    0x9B QOS_NOT_SUPPORTED "QoS not supported" in ENDS;
    0x9C USE_ANOTHER_SERVER "Use another server" in ENDS;
    0x9D SERVER_MOVED "Server moved" in ENDS;
    0x9E SHARED_NOT_SUPPORTED "Shared Subscriptions not supported" in SUBACK | DISCONNECT;
    0x9F CONNECTION_RATE_EXCEEDED "Connection rate exceeded" in ENDS;
    0xA0 MAXIMUM_CONNECT_TIME "Maximum connect time" in DISCONNECT;
    0xA1 SUBSCRIPTION_IDS_NOT_SUPPORTED "Subscription Identifiers not supported" in SUBACK | DISCONNECT;
    0xA2 WILDCARD_NOT_SUPPORTED "Wildcard Subscriptions not supported" in SUBACK | DISCONNECT;
}

impl ReasonCode {
    /// 0x80 and above: it says that something failed.
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// The name in the standard, `None` for a value that it does not define.
    pub const fn name(self) -> Option<&'static str> {
        match row(self) {
            Some((name, _)) => Some(name),
            None => None,
        }
    }

    /// Whether packets of this type may hold it.
    pub const fn is_allowed_in(self, packet: PacketType) -> bool {
        match row(self) {
            Some((_, places)) => places & packet.place() != 0,
            None => false,
        }
    }

    /// Whether a return code of a 3.x CONNACK says this. Where none does, a server closes the connection
    /// without CONNACK [MQTT-3.2.2-6 of 3.1.1].
    pub const fn has_connack_return_code(self) -> bool {
        !matches!(
            self,
            ReasonCode::MALFORMED_PACKET
                | ReasonCode::PROTOCOL_ERROR
                | ReasonCode::TOPIC_NAME_INVALID
                | ReasonCode::PACKET_TOO_LARGE
                | ReasonCode::PAYLOAD_FORMAT_INVALID
                | ReasonCode::RETAIN_NOT_SUPPORTED
                | ReasonCode::QOS_NOT_SUPPORTED
        )
    }

    /// The return code of a 3.x CONNACK that says it best: 0 to 5.
    pub const fn connack_return_code(self) -> u8 {
        match self {
            code if !code.is_error() => 0,
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => 1,
            ReasonCode::CLIENT_ID_NOT_VALID => 2,
            ReasonCode::BAD_USERNAME_OR_PASSWORD => 4,
            ReasonCode::NOT_AUTHORIZED | ReasonCode::BANNED | ReasonCode::BAD_AUTHENTICATION_METHOD => 5,
            _ => 3,
        }
    }

    /// What the return code of a 3.x CONNACK means; `None` above 5.
    pub(super) const fn from_connack_return_code(code: u8) -> Option<ReasonCode> {
        match code {
            0 => Some(ReasonCode::SUCCESS),
            1 => Some(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION),
            2 => Some(ReasonCode::CLIENT_ID_NOT_VALID),
            3 => Some(ReasonCode::SERVER_UNAVAILABLE),
            4 => Some(ReasonCode::BAD_USERNAME_OR_PASSWORD),
            5 => Some(ReasonCode::NOT_AUTHORIZED),
            _ => None,
        }
    }

    /// The code, where packets of this type may hold it.
    pub(super) fn check(self, packet: PacketType) -> Result<ReasonCode, DecodeError> {
        if self.is_allowed_in(packet) {
            return Ok(self);
        }
        let expected = "a reason code that this packet may hold";
        Err(match self.name() {
            Some(name) => DecodeError::protocol(expected, name),
            None => DecodeError::protocol(expected, self.0),
        })
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "reason code {:#04x}", self.0),
        }
    }
}
