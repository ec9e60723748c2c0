//! What the properties of a message mean to a router, and which of them go on to subscribers.

use super::properties::RawIter;
use super::property::{MESSAGE_EXPIRY_INTERVAL, SUBSCRIPTION_IDENTIFIER, TOPIC_ALIAS};
use super::{Properties, Property, Publish, Will};

/// What the properties of a PUBLISH mean to a router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Routing<'a> {
    /// Payload Format Indicator is 1: the payload says of itself that it is UTF-8.
    pub payload_format: bool,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// Topic Alias, not 0.
    pub alias: Option<u16>,
    /// It holds a Subscription Identifier, which a client must not send [MQTT-3.3.4-6 of 5.0].
    pub has_subscription_id: bool,
    /// What goes on to subscribers.
    pub forward: Forward<'a>,
}

/// What the properties of a will mean to a router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WillRouting<'a> {
    /// Payload Format Indicator is 1: the payload says of itself that it is UTF-8.
    pub payload_format: bool,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// Will Delay Interval in seconds, 0 where it is left out.
    pub delay_s: u32,
    /// What goes on to subscribers.
    pub forward: Forward<'a>,
}

/// The properties that go on to subscribers, unaltered and in order [MQTT-3.3.2-4, -15 to -18, -20 of 5.0]:
/// all but topic alias, subscription identifier, message expiry and will delay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Forward<'a> {
    /// From the first to the last property that goes on.
    span: Properties<'a>,
    /// Bytes of those in it that go on.
    len: usize,
}

impl<'a> Forward<'a> {
    /// Bytes of the wire form, without the length in front.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing goes on.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The wire form, without the length in front. It is copied together in `scratch` only where something
    /// that does not go on stands between properties that do.
    pub fn bytes<'s>(&self, scratch: &'s mut Vec<u8>) -> &'s [u8]
    where
        'a: 's,
    {
        if self.len == self.span.raw().len() {
            return self.span.raw();
        }
        scratch.clear();
        scratch.reserve(self.len);
        for (id, whole) in RawIter::new(self.span) {
            if goes_on(id) {
                scratch.extend_from_slice(whole);
            }
        }
        debug_assert_eq!(scratch.len(), self.len);
        scratch
    }
}

const WILL_DELAY_INTERVAL: u8 = Property::WillDelayInterval(0).id();
const PAYLOAD_FORMAT_INDICATOR: u8 = Property::PayloadFormatIndicator(0).id();

#[inline]
fn goes_on(id: u8) -> bool {
    !matches!(id, MESSAGE_EXPIRY_INTERVAL | SUBSCRIPTION_IDENTIFIER | TOPIC_ALIAS | WILL_DELAY_INTERVAL)
}

/// What a scan of a message's properties finds.
#[derive(Default)]
struct Scan<'a> {
    payload_format: bool,
    expiry_s: Option<u32>,
    alias: Option<u16>,
    has_subscription_id: bool,
    delay_s: u32,
    forward: Forward<'a>,
}

#[inline]
fn scan(properties: Properties<'_>) -> Scan<'_> {
    let mut found = Scan::default();
    let (mut at, mut len, mut start, mut end) = (0, 0, None, 0);
    for (id, whole) in RawIter::new(properties) {
        at += whole.len();
        if goes_on(id) {
            start.get_or_insert(at - whole.len());
            end = at;
            len += whole.len();
        }
        match (id, whole) {
            (PAYLOAD_FORMAT_INDICATOR, [_, value]) => found.payload_format = *value == 1,
            (MESSAGE_EXPIRY_INTERVAL, [_, s @ ..]) => {
                found.expiry_s = s.try_into().ok().map(u32::from_be_bytes)
            }
            (TOPIC_ALIAS, [_, alias @ ..]) => found.alias = alias.try_into().ok().map(u16::from_be_bytes),
            (WILL_DELAY_INTERVAL, [_, s @ ..]) => found.delay_s = s.try_into().map_or(0, u32::from_be_bytes),
            (SUBSCRIPTION_IDENTIFIER, _) => found.has_subscription_id = true,
            _ => {}
        }
    }
    found.forward = Forward { span: properties.between(start.unwrap_or(0), end), len };
    found
}

impl<'a> Publish<'a> {
    /// What its properties mean to a router.
    #[inline]
    pub fn routing(&self) -> Routing<'a> {
        let Scan { payload_format, expiry_s, alias, has_subscription_id, forward, .. } =
            scan(self.properties);
        Routing { payload_format, expiry_s, alias, has_subscription_id, forward }
    }
}

impl<'a> Will<'a> {
    /// What its properties mean to a router.
    pub fn routing(&self) -> WillRouting<'a> {
        let Scan { payload_format, expiry_s, delay_s, forward, .. } = scan(self.properties);
        WillRouting { payload_format, expiry_s, delay_s, forward }
    }
}
