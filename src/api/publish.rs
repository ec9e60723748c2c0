//! Publishing and subscribing over HTTP, as all dialects do it: the fields of a body become a message, the answer
//! of the shard becomes a fault where it says no.

use super::Context;
use super::endpoint::whole;
use super::fault::{Cause, Fault};
use crate::codec::{Property, PropertyBuf, ReasonCode};
use crate::desk::{Ask, Published};
use crate::message::{Head, Message, MessageRef, QoS};
use crate::stats::Source;
use crate::time::Moment;
use crate::topic::{Topic, parse_subscription};
use base64::Engine;
use serde_json::Value;

/// Who publishes where no client is named.
const SYSTEM: &str = "system";

/// A message as a body described it, checked.
#[derive(Debug)]
pub struct Outgoing {
    topic: String,
    client_id: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
    expiry_s: Option<u32>,
    properties: PropertyBuf,
}

impl Outgoing {
    /// The message of a body for one topic. The body's shape was checked by its endpoint: texts are texts.
    ///
    /// # Errors
    /// [`Cause::BadTopic`] or [`Cause::BadValue`], with what was expected.
    pub fn read(topic: String, body: &Value) -> Result<Outgoing, Fault> {
        topic_name("topic", &topic)?;
        if topic.starts_with("$SYS/") {
            let text = "topic: expected one outside $SYS/, which the broker alone publishes to";
            return Err(Fault::new(Cause::BadTopic, text));
        }
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let payload = text("payload").unwrap_or_default();
        let payload = match text("encoding") {
            Some("base64") => base64::engine::general_purpose::STANDARD
                .decode(payload)
                .map_err(|e| bad(format!("payload: expected base64: {e}")))?,
            _ => payload.as_bytes().to_vec(),
        };
        let given = body.get("properties").filter(|value| value.is_object());
        let (properties, expiry_s) = match given {
            Some(given) => read_properties(given, &payload)?,
            None => (PropertyBuf::new(), None),
        };
        Ok(Outgoing {
            topic,
            client_id: text("clientid").filter(|id| !id.is_empty()).unwrap_or(SYSTEM).to_owned(),
            payload,
            qos: qos(body),
            retain: body.get("retain").and_then(Value::as_bool).unwrap_or(false),
            expiry_s,
            properties,
        })
    }

    fn message(&self, cx: &Context) -> Message {
        let expires = self.expiry_s.map_or(Moment::NEVER, |s| cx.desk.now().plus_s(u64::from(s)));
        let publisher = cx.desk.key(&self.client_id);
        let head = Head { expires, ..Head::new(self.qos, self.retain, publisher, Source::Http) };
        let properties = self.properties.as_properties();
        Message::new(&MessageRef {
            topic: &self.topic,
            properties: properties.raw(),
            payload: &self.payload,
            head,
        })
    }
}

fn bad(text: String) -> Fault {
    Fault::new(Cause::BadValue, text)
}

fn topic_name(name: &str, topic: &str) -> Result<(), Fault> {
    Topic::new(topic, 0).map(drop).map_err(|e| Fault::new(Cause::BadTopic, format!("{name}: {e}")))
}

fn qos(body: &Value) -> QoS {
    let level = body.get("qos").and_then(whole).unwrap_or(0);
    QoS::from_bits(level as u8).unwrap_or_default()
}

/// The properties that go on to subscribers, and the message expiry interval.
fn read_properties(given: &Value, payload: &[u8]) -> Result<(PropertyBuf, Option<u32>), Fault> {
    let text = |name: &str| given.get(name).and_then(Value::as_str);
    let mut p = PropertyBuf::new();
    let mut push = |name: &str, property: Property<'_>| {
        if p.push(property) {
            Ok(())
        } else {
            Err(bad(format!("{name}: expected at most 65,535 bytes without U+0000")))
        }
    };
    if given.get("subscription_identifier").is_some_and(|id| !id.is_null()) {
        return Err(bad("subscription_identifier: expected none, for a publisher has none".to_owned()));
    }
    if let Some(format) = given.get("payload_format_indicator").and_then(whole) {
        if format == 1 && std::str::from_utf8(payload).is_err() {
            return Err(bad("payload: expected UTF-8, as payload_format_indicator says".to_owned()));
        }
        push("payload_format_indicator", Property::PayloadFormatIndicator(format as u8))?;
    }
    if let Some(topic) = text("response_topic") {
        topic_name("response_topic", topic)?;
        push("response_topic", Property::ResponseTopic(topic))?;
    }
    if let Some(data) = text("correlation_data") {
        push("correlation_data", Property::CorrelationData(data.as_bytes()))?;
    }
    if let Some(kind) = text("content_type") {
        push("content_type", Property::ContentType(kind))?;
    }
    for (name, value) in given.get("user_properties").and_then(Value::as_object).into_iter().flatten() {
        let written = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        push("user_properties", Property::UserProperty(name, &written))?;
    }
    let expiry_s = given.get("message_expiry_interval").and_then(whole).map(|s| s as u32);
    Ok((p, expiry_s))
}

/// Publishes a message, behind all that were published before in the name of the same client.
///
/// # Errors
/// Why nobody got it.
pub async fn publish(cx: &Context, outgoing: &Outgoing) -> Result<(), Fault> {
    let message = outgoing.message(cx);
    let published = cx.desk.ask_home(&outgoing.client_id, |reply| Ask::Publish { message, reply }).await?;
    match published {
        Published::Taken | Published::NoSubscriber => Ok(()),
        Published::Refused(code) => Err(refused(code)),
    }
}

/// A subscription that a client is to have, or to have no more.
#[derive(Debug)]
pub struct Wish {
    /// Client identifier.
    pub client_id: String,
    /// Topic filter, `$share/name/filter` included.
    pub filter: String,
    qos: QoS,
}

impl Wish {
    /// The wish of a body for one filter.
    pub fn read(client_id: &str, filter: String, body: &Value) -> Wish {
        Wish { client_id: client_id.to_owned(), filter, qos: qos(body) }
    }

    fn check(&self) -> Result<(), Fault> {
        let wrong = |e| Fault::new(Cause::BadTopic, format!("topic: {e}"));
        parse_subscription(&self.filter, 0).map(drop).map_err(wrong)
    }
}

/// Subscribes a connected client; the QoS that it was granted, `None` where it is not connected.
///
/// # Errors
/// Why it was refused.
pub async fn subscribe(cx: &Context, wish: &Wish) -> Result<Option<u8>, Fault> {
    wish.check()?;
    let (client_id, filter, qos) = (wish.client_id.as_str().into(), wish.filter.as_str().into(), wish.qos);
    let code =
        cx.desk.ask_home(&wish.client_id, |reply| Ask::Subscribe { client_id, filter, qos, reply }).await?;
    granted(code)
}

/// Ends a subscription of a connected client; whether there was one, `None` where it is not connected.
///
/// # Errors
/// Why it was refused.
pub async fn unsubscribe(cx: &Context, wish: &Wish) -> Result<Option<bool>, Fault> {
    wish.check()?;
    let (client_id, filter) = (wish.client_id.as_str().into(), wish.filter.as_str().into());
    let code =
        cx.desk.ask_home(&wish.client_id, |reply| Ask::Unsubscribe { client_id, filter, reply }).await?;
    Ok(granted(code)?.map(|code| code == ReasonCode::SUCCESS.0))
}

fn granted(code: Option<u8>) -> Result<Option<u8>, Fault> {
    match code.map(ReasonCode) {
        Some(code) if code.is_error() => Err(refused(code)),
        other => Ok(other.map(|code| code.0)),
    }
}

/// What a reason code is over HTTP.
fn refused(code: ReasonCode) -> Fault {
    let cause = match code {
        ReasonCode::TOPIC_NAME_INVALID | ReasonCode::TOPIC_FILTER_INVALID => Cause::BadTopic,
        ReasonCode::QUOTA_EXCEEDED => Cause::Busy,
        _ => Cause::BadValue,
    };
    Fault::new(cause, code.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fault(topic: &str, body: Value) -> (Cause, String) {
        let fault = Outgoing::read(topic.to_owned(), &body).unwrap_err();
        (fault.cause, fault.message.into_owned())
    }

    #[test]
    fn a_body_becomes_a_message() {
        let body = json!({
            "payload": "SGVsbG8=", "encoding": "base64", "qos": 1, "retain": true, "clientid": "",
            "properties": {"message_expiry_interval": 60, "user_properties": {"id": 10010, "name": "n"},
                           "content_type": "text/plain", "correlation_data": "x"}
        });
        let message = Outgoing::read("a/b".to_owned(), &body).unwrap();
        assert_eq!(
            (message.payload.as_slice(), message.qos, message.retain),
            (&b"Hello"[..], QoS::AtLeastOnce, true)
        );
        assert_eq!((message.client_id.as_str(), message.expiry_s), (SYSTEM, Some(60)));
        let properties: Vec<_> = message.properties.as_properties().iter().collect();
        assert_eq!(
            properties,
            [
                Property::CorrelationData(b"x"),
                Property::ContentType("text/plain"),
                Property::UserProperty("id", "10010"),
                Property::UserProperty("name", "n"),
            ]
        );
    }

    #[test]
    fn what_mqtt_forbids_is_refused() {
        for topic in ["", "a/#", "+", "a\0b", "$SYS/brokers"] {
            assert_eq!(fault(topic, json!({"payload": "x"})).0, Cause::BadTopic, "{topic:?}");
        }
        let wrong = |properties: Value| fault("a", json!({"payload": "x", "properties": properties})).0;
        assert_eq!(wrong(json!({"subscription_identifier": 1})), Cause::BadValue);
        assert_eq!(wrong(json!({"response_topic": "a/+"})), Cause::BadTopic);
        assert_eq!(wrong(json!({"content_type": "a\0"})), Cause::BadValue);
        assert_eq!(wrong(json!({"user_properties": {"x".repeat(65_536): "y"}})), Cause::BadValue);
        let not_text =
            json!({"payload": "/w==", "encoding": "base64", "properties": {"payload_format_indicator": 1}});
        assert_eq!(fault("a", not_text).0, Cause::BadValue);
        assert_eq!(fault("a", json!({"payload": "?", "encoding": "base64"})).0, Cause::BadValue);
    }
}
