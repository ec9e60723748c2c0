//! The lists in SUBSCRIBE and UNSUBSCRIBE, from the wire or from a slice.

use super::read::Reader;
use super::write::Sink;
use super::{DecodeError, RetainHandling, SubscribeOptions, Version};
use crate::message::QoS;
use std::fmt;

const QOS: u8 = 0x03;
const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING: u8 = 0x30;
const RETAIN_HANDLING_SHIFT: u8 = 4;
const RESERVED: u8 = 0xC0;

impl SubscribeOptions {
    /// The options byte of 5.0; its two lowest bits are that of 3.x.
    pub const fn bits(self) -> u8 {
        self.qos as u8
            | if self.no_local { NO_LOCAL } else { 0 }
            | if self.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 }
            | (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT
    }

    /// The options of a byte, with the bits that `version` has [MQTT-3.8.3-5 of 5.0], [MQTT-3-8.3-4 of 3.1.1].
    fn read(bits: u8, version: Version) -> Result<SubscribeOptions, DecodeError> {
        let reserved = if version == Version::V5 { RESERVED } else { !QOS };
        if bits & reserved != 0 {
            return Err(DecodeError::malformed("reserved subscription option bits of 0", bits & reserved));
        }
        let qos = QoS::from_bits(bits & QOS)
            .ok_or_else(|| DecodeError::protocol("a maximum QoS of 0, 1 or 2", bits & QOS))?;
        let retain_handling = match (bits & RETAIN_HANDLING) >> RETAIN_HANDLING_SHIFT {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            other => return Err(DecodeError::protocol("a Retain Handling of 0, 1 or 2", other)),
        };
        Ok(SubscribeOptions {
            qos,
            no_local: bits & NO_LOCAL != 0,
            retain_as_published: bits & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }
}

/// A list as it stands on the wire, checked, or as a slice.
#[derive(Clone, Copy)]
enum List<'a, T> {
    Wire { rest: Reader<'a>, left: usize },
    Slice(&'a [T]),
}

impl<T> List<'_, T> {
    fn len(&self) -> usize {
        match self {
            List::Wire { left, .. } => *left,
            List::Slice(slice) => slice.len(),
        }
    }
}

/// The topic filters of a SUBSCRIBE with their options, in order.
#[derive(Clone, Copy)]
pub struct Filters<'a>(List<'a, (&'a str, SubscribeOptions)>);

/// The topic filters of an UNSUBSCRIBE, in order.
#[derive(Clone, Copy)]
pub struct Topics<'a>(List<'a, &'a str>);

impl<'a> Filters<'a> {
    /// To be encoded: at least one filter [MQTT-3.8.3-2 of 5.0], each of at most 65,535 bytes.
    pub fn new(filters: &'a [(&'a str, SubscribeOptions)]) -> Filters<'a> {
        Filters(List::Slice(filters))
    }

    /// Each filter and its options.
    pub fn iter(&self) -> FilterIter<'a> {
        FilterIter(self.0)
    }

    /// How many; at least one where they were decoded.
    #[expect(clippy::len_without_is_empty, reason = "a SUBSCRIBE without filters does not exist")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes all that is left.
    pub(super) fn read(from: Reader<'a>, version: Version) -> Result<Filters<'a>, DecodeError> {
        let mut rest = from;
        let mut left = 0;
        while !rest.is_empty() {
            rest.text()?;
            SubscribeOptions::read(rest.u8()?, version)?;
            left += 1;
        }
        if left == 0 {
            return Err(DecodeError::protocol("a SUBSCRIBE with at least one topic filter", 0u8));
        }
        Ok(Filters(List::Wire { rest: from, left }))
    }

    pub(super) fn write(&self, version: Version, to: &mut impl Sink) {
        for (filter, options) in self.iter() {
            to.binary(filter.as_bytes());
            to.u8(if version == Version::V5 { options.bits() } else { options.qos as u8 });
        }
    }
}

impl<'a> Topics<'a> {
    /// To be encoded: at least one filter [MQTT-3.10.3-2 of 5.0], each of at most 65,535 bytes.
    pub fn new(filters: &'a [&'a str]) -> Topics<'a> {
        Topics(List::Slice(filters))
    }

    /// Each filter.
    pub fn iter(&self) -> TopicIter<'a> {
        TopicIter(self.0)
    }

    /// How many; at least one where they were decoded.
    #[expect(clippy::len_without_is_empty, reason = "an UNSUBSCRIBE without filters does not exist")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes all that is left.
    pub(super) fn read(from: Reader<'a>) -> Result<Topics<'a>, DecodeError> {
        let mut rest = from;
        let mut left = 0;
        while !rest.is_empty() {
            rest.text()?;
            left += 1;
        }
        if left == 0 {
            return Err(DecodeError::protocol("an UNSUBSCRIBE with at least one topic filter", 0u8));
        }
        Ok(Topics(List::Wire { rest: from, left }))
    }

    pub(super) fn write(&self, to: &mut impl Sink) {
        for filter in self.iter() {
            to.binary(filter.as_bytes());
        }
    }
}

/// See [`Filters::iter`].
#[derive(Clone)]
pub struct FilterIter<'a>(List<'a, (&'a str, SubscribeOptions)>);

impl<'a> Iterator for FilterIter<'a> {
    type Item = (&'a str, SubscribeOptions);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            List::Wire { left: 0, .. } => None,
            List::Wire { rest, left } => {
                *left -= 1;
                let filter = rest.text().expect("filters were checked when they were decoded");
                // The bits that 3.x lacks were checked to be 0, so all versions read alike from here.
                let options = rest.u8().and_then(|bits| SubscribeOptions::read(bits, Version::V5));
                Some((filter, options.expect("options were checked when they were decoded")))
            }
            List::Slice(slice) => slice.split_off_first().copied(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl ExactSizeIterator for FilterIter<'_> {}

/// See [`Topics::iter`].
#[derive(Clone)]
pub struct TopicIter<'a>(List<'a, &'a str>);

impl<'a> Iterator for TopicIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        match &mut self.0 {
            List::Wire { left: 0, .. } => None,
            List::Wire { rest, left } => {
                *left -= 1;
                Some(rest.text().expect("filters were checked when they were decoded"))
            }
            List::Slice(slice) => slice.split_off_first().copied(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl ExactSizeIterator for TopicIter<'_> {}

impl<'a> IntoIterator for Filters<'a> {
    type Item = (&'a str, SubscribeOptions);
    type IntoIter = FilterIter<'a>;

    fn into_iter(self) -> FilterIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for Topics<'a> {
    type Item = &'a str;
    type IntoIter = TopicIter<'a>;

    fn into_iter(self) -> TopicIter<'a> {
        self.iter()
    }
}

impl PartialEq for Filters<'_> {
    fn eq(&self, other: &Filters<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl PartialEq for Topics<'_> {
    fn eq(&self, other: &Topics<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Topics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
