//! Why bytes are not a packet.

use super::{ReasonCode, Version};
use std::fmt;

/// What is wrong with a packet: what was expected, what came, and the reason code that says so to the peer.
/// Building one does not allocate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeError {
    /// For CONNACK or DISCONNECT of 5.0; [`ReasonCode::connack_return_code`] has it for 3.x.
    pub code: ReasonCode,
    /// What the standard asks for.
    pub expected: &'static str,
    /// What came instead.
    pub got: Got,
    /// Only for a CONNECT whose protocol name is known: the version in whose form a CONNACK is written.
    pub connect_version: Option<Version>,
}

/// What came instead of what was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Got {
    /// A value, a length or a count.
    Number(u32),
    /// Something that has a name.
    Text(&'static str),
}

impl DecodeError {
    #[cold]
    pub(super) fn malformed(expected: &'static str, got: impl Into<Got>) -> DecodeError {
        DecodeError::new(ReasonCode::MALFORMED_PACKET, expected, got)
    }

    #[cold]
    pub(super) fn protocol(expected: &'static str, got: impl Into<Got>) -> DecodeError {
        DecodeError::new(ReasonCode::PROTOCOL_ERROR, expected, got)
    }

    #[cold]
    pub(super) fn new(code: ReasonCode, expected: &'static str, got: impl Into<Got>) -> DecodeError {
        DecodeError { code, expected, got: got.into(), connect_version: None }
    }

    /// This error, found in a CONNECT of `version`.
    pub(super) fn in_connect(self, version: Version) -> DecodeError {
        DecodeError { connect_version: Some(version), ..self }
    }

    /// The version in whose form a CONNACK could be written, for errors in a CONNECT whose protocol name is
    /// known. 3.x answers [`ReasonCode::UNSUPPORTED_PROTOCOL_VERSION`] with return code 1 and closes without
    /// an answer otherwise; `None` means to close without an answer.
    pub fn connect_version_hint(&self) -> Option<Version> {
        self.connect_version
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.got {
            Got::Number(got) => write!(f, "expected {}, got {got}", self.expected),
            Got::Text(got) => write!(f, "expected {}, got {got}", self.expected),
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<u8> for Got {
    fn from(number: u8) -> Got {
        Got::Number(u32::from(number))
    }
}

impl From<u16> for Got {
    fn from(number: u16) -> Got {
        Got::Number(u32::from(number))
    }
}

impl From<u32> for Got {
    fn from(number: u32) -> Got {
        Got::Number(number)
    }
}

impl From<usize> for Got {
    fn from(number: usize) -> Got {
        Got::Number(u32::try_from(number).unwrap_or(u32::MAX))
    }
}

impl From<&'static str> for Got {
    fn from(text: &'static str) -> Got {
        Got::Text(text)
    }
}
