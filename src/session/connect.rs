//! CONNECT: what a client asks for, checked against what the operator allows, and the answer's properties.

use super::Options;
use crate::codec::{Connect, Properties, Property, PropertyBuf, ReasonCode, Version, Will};
use crate::message::{Head, Message, MessageRef, QoS};
use crate::stats::Source;
use crate::time::Moment;
use crate::topic::Topic;

/// A CONNECT that is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Reason code of CONNACK.
    pub code: ReasonCode,
    /// What was expected and what came.
    pub text: String,
}

/// A will, as long as it may be published.
#[derive(Debug)]
pub struct StoredWill {
    message: Message,
    /// Will Delay Interval in seconds.
    pub delay_s: u32,
    /// Message Expiry Interval in seconds, from publication on.
    pub expiry_s: Option<u32>,
    /// When it is due, once the connection is gone.
    pub due: Moment,
}

impl StoredWill {
    /// A will that was kept. `key` is that of its client.
    pub fn restore(
        message: &Message,
        key: u64,
        delay_s: u32,
        expiry_s: Option<u32>,
        due: Moment,
    ) -> StoredWill {
        let view = message.view();
        let head = Head { publisher: key, ..view.head };
        StoredWill { message: Message::new(&MessageRef { head, ..view }), delay_s, expiry_s, due }
    }

    /// The message as it was given with CONNECT.
    pub fn kept(&self) -> &Message {
        &self.message
    }

    /// The message, published now.
    pub fn message(&self, now: Moment) -> Message {
        let Some(expiry_s) = self.expiry_s else { return self.message.clone() };
        let view = self.message.view();
        let head = Head { expires: now.plus_s(u64::from(expiry_s)), ..view.head };
        Message::new(&MessageRef { head, ..view })
    }
}

/// What was agreed with a client.
#[derive(Debug)]
pub struct Accepted {
    /// Session Expiry Interval in seconds.
    pub expiry_s: u32,
    /// Whether that differs from what the client asked for.
    pub expiry_changed: bool,
    /// Messages that may be unacknowledged.
    pub window: u16,
    /// Topic Alias Maximum of the client, within the operator's.
    pub alias_out_max: u16,
    /// Keep Alive in seconds that holds.
    pub keep_alive_s: u16,
    /// Request Response Information.
    pub response_information: bool,
    /// The will.
    pub will: Option<Box<StoredWill>>,
}

/// Checks a CONNECT. `key` is that of the client identifier, `mount` what stands before the client's topics.
pub fn check_connect(c: &Connect, key: u64, mount: &str, options: &Options) -> Result<Accepted, Refusal> {
    let refuse = |code, text: String| Err(Refusal { code, text });
    if c.client_id.len() > options.max_clientid_len as usize {
        let text = format!(
            "expected a client identifier of at most {} bytes, got {}",
            options.max_clientid_len,
            c.client_id.len()
        );
        return refuse(ReasonCode::CLIENT_ID_NOT_VALID, text);
    }
    let (properties, most) = (c.properties.len(), options.max_properties as usize);
    if most != 0 && properties > most {
        return refuse(ReasonCode::QUOTA_EXCEEDED, properties_too_long(properties, most));
    }
    let mut accepted = Accepted {
        expiry_s: 0,
        expiry_changed: false,
        window: options.max_inflight,
        alias_out_max: 0,
        keep_alive_s: c.keep_alive_s,
        response_information: false,
        will: None,
    };
    if c.version < Version::V5 && !c.clean_start {
        accepted.expiry_s = options.session_expiry_s;
    }
    for property in c.properties.iter() {
        match property {
            Property::SessionExpiryInterval(s) => {
                accepted.expiry_s = s.min(options.session_expiry_max_s);
                accepted.expiry_changed = accepted.expiry_s != s;
            }
            Property::ReceiveMaximum(n) => accepted.window = n.min(options.max_inflight),
            Property::TopicAliasMaximum(n) => accepted.alias_out_max = n.min(options.max_topic_alias),
            Property::RequestResponseInformation(b) => accepted.response_information = b != 0,
            _ => {}
        }
    }
    if options.server_keep_alive_s != 0 && c.version == Version::V5 {
        accepted.keep_alive_s = options.server_keep_alive_s;
    }
    accepted.will = match &c.will {
        Some(will) => Some(Box::new(check_will(will, key, mount, options)?)),
        None => None,
    };
    Ok(accepted)
}

fn check_will(will: &Will, key: u64, mount: &str, options: &Options) -> Result<StoredWill, Refusal> {
    let refuse = |code, text: String| Err(Refusal { code, text });
    if let Err(e) = Topic::new(will.topic, options.max_topic_levels as usize) {
        return refuse(ReasonCode::TOPIC_NAME_INVALID, format!("will topic: {e}"));
    }
    if will.topic.starts_with("$SYS/") {
        let text = "will topic: expected one outside $SYS/, which the broker alone publishes to";
        return refuse(ReasonCode::NOT_AUTHORIZED, text.into());
    }
    if will.qos > options.qos_max() {
        let text = format!("expected a will QoS of at most {}, got {}", options.max_qos, will.qos as u8);
        return refuse(ReasonCode::QOS_NOT_SUPPORTED, text);
    }
    if will.retain && !options.retain_available {
        return refuse(ReasonCode::RETAIN_NOT_SUPPORTED, "expected a will without RETAIN".into());
    }
    if options.check_payload_format && !format_holds(will.properties, will.payload) {
        return refuse(ReasonCode::PAYLOAD_FORMAT_INVALID, format!("will: {PAYLOAD_FORMAT}"));
    }
    let full = [mount, will.topic].concat();
    if let Err(e) = Topic::new(&full, 0) {
        return refuse(ReasonCode::TOPIC_NAME_INVALID, format!("will topic below its mountpoint: {e}"));
    }
    let mut scratch = Vec::new();
    let mut stored = (0, None);
    for property in will.properties.iter() {
        match property {
            Property::WillDelayInterval(s) => stored.0 = s,
            Property::MessageExpiryInterval(s) => stored.1 = Some(s),
            _ => {}
        }
    }
    let head = Head::new(will.qos, will.retain, key, Source::Will);
    let message = Message::new(&MessageRef {
        topic: &full,
        properties: will.routing().forward.bytes(&mut scratch),
        payload: will.payload,
        head,
    });
    Ok(StoredWill { message, delay_s: stored.0, expiry_s: stored.1, due: Moment::NEVER })
}

/// What is said of more properties than the operator allows.
pub fn properties_too_long(bytes: usize, most: usize) -> String {
    format!("expected at most {most} bytes of properties, got {bytes}")
}

/// What is said of a payload that is not what its format indicator says.
pub const PAYLOAD_FORMAT: &str = "expected a payload in UTF-8, as its Payload Format Indicator says";

/// Whether a payload is what its Payload Format Indicator says, if there is one.
pub fn format_holds(properties: Properties, payload: &[u8]) -> bool {
    let text = properties.iter().any(|p| p == Property::PayloadFormatIndicator(1));
    !text || std::str::from_utf8(payload).is_ok()
}

/// What a CONNECT says about the packets that its client takes, also where it is refused: its Maximum Packet
/// Size, and Request Problem Information.
pub fn answer_terms(c: &Connect) -> (u32, bool) {
    let mut terms = (u32::MAX, true);
    for property in c.properties.iter() {
        match property {
            Property::MaximumPacketSize(n) => terms.0 = n,
            Property::RequestProblemInformation(b) => terms.1 = b != 0,
            _ => {}
        }
    }
    terms
}

/// Properties of a CONNACK that accepts (5.0): what differs from the standard's defaults.
pub fn connack_properties(a: &Accepted, assigned: Option<&str>, o: &Options) -> PropertyBuf {
    let mut p = PropertyBuf::new();
    if a.expiry_changed {
        p.push(Property::SessionExpiryInterval(a.expiry_s));
    }
    p.push(Property::ReceiveMaximum(o.max_awaiting_rel.max(1)));
    if o.qos_max() < QoS::ExactlyOnce {
        p.push(Property::MaximumQoS(o.max_qos));
    }
    p.push(Property::MaximumPacketSize(o.max_packet_size));
    if let Some(id) = assigned {
        p.push(Property::AssignedClientIdentifier(id));
    }
    if o.max_topic_alias > 0 {
        p.push(Property::TopicAliasMaximum(o.max_topic_alias));
    }
    for (available, property) in [
        (o.retain_available, Property::RetainAvailable(0)),
        (o.wildcard_available, Property::WildcardSubscriptionAvailable(0)),
        (o.shared_available, Property::SharedSubscriptionAvailable(0)),
    ] {
        if !available {
            p.push(property);
        }
    }
    if o.server_keep_alive_s != 0 {
        p.push(Property::ServerKeepAlive(o.server_keep_alive_s));
    }
    if a.response_information && !o.response_information.is_empty() {
        p.push(Property::ResponseInformation(&o.response_information));
    }
    p
}
