//! Publishing, and subscribing in the name of a client, one by one and in batches.

use super::{DONE, HERE, OK, done, unknown_client};
use crate::api::Context;
use crate::api::dialect::Answer;
use crate::api::endpoint::{Body, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::publish::{Outgoing, Wish, publish, subscribe, unsubscribe};
use crate::api::shape::{COUNT, Field, QOS, Shape, may, must};
use axum::extract::State;
use axum::routing::post;
use serde_json::{Value, json};

// What may be left out may be null as well: many tools write every field that they know.
const TEXT: Shape = Shape::Maybe(&Shape::Text);
const TOPIC: Field = may("topic", TEXT, "Topic. This or `topics` must be there.");
const TOPICS: Field = may("topics", TEXT, "Several topics, separated by commas.");
/// The client that is meant.
pub const CLIENT: Field = must("clientid", Shape::Name, "Client identifier.");
const WISHED_QOS: Field = may("qos", Shape::Maybe(&QOS), "Quality of service; 0 where it is left out.");
const ENCODING: Shape = Shape::OneOf(&["plain", "base64"]);

const PROPERTIES: Shape = Shape::Object(&[
    may("payload_format_indicator", Shape::Maybe(&Shape::Integer(0, 1)), "1: the payload is UTF-8."),
    may("message_expiry_interval", Shape::Maybe(&Shape::Integer(0, u32::MAX as i64)), "Seconds."),
    may("response_topic", TEXT, "Topic of the response."),
    may("correlation_data", TEXT, "Its UTF-8 bytes are sent."),
    may("content_type", TEXT, "Type of the payload."),
    may(
        "user_properties",
        Shape::Maybe(&Shape::Map(&Shape::Any)),
        "Names and values; what is no text is sent as JSON.",
    ),
]);

/// A message.
pub const MESSAGE: Shape = Shape::Object(&[
    TOPIC,
    TOPICS,
    may("clientid", TEXT, "In whose name it is published; `system` where it is left out."),
    must("payload", Shape::Text, "The message."),
    may("encoding", Shape::Maybe(&ENCODING), "What `payload` is; `plain` where it is left out."),
    WISHED_QOS,
    may("retain", Shape::Maybe(&Shape::Flag), "Whether it is retained."),
    may("properties", Shape::Maybe(&PROPERTIES), "Properties of 5.0."),
]);
/// Subscriptions of a client.
pub const SUBSCRIBE: Shape = Shape::Object(&[TOPIC, TOPICS, CLIENT, WISHED_QOS]);
const UNSUBSCRIBE: Shape = Shape::Object(&[TOPIC, TOPICS, CLIENT]);

const RESULTS: Reply = Reply::Json(Shape::Object(&[
    OK,
    must(
        "data",
        Shape::List(&Shape::Object(&[
            must("topic", Shape::Text, "Topic or topic filter."),
            must("code", COUNT, "Result code; 0 is success."),
        ])),
        "One for each topic, in the order given.",
    ),
]));

const PUBLISH_CAUSES: &[Cause] = &[Cause::BadTopic, Cause::Busy];
const CLIENT_CAUSES: &[Cause] = &[Cause::BadTopic, Cause::UnknownClient, Cause::Conflict];

const fn post_at(path: &'static str, name: &'static str, about: &'static str) -> Endpoint {
    Endpoint { method: "POST", path, name, about, ..HERE }
}

/// Messages and subscriptions.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        body: Some(MESSAGE),
        answer: Reply::Json(DONE),
        causes: PUBLISH_CAUSES,
        serve: || post(publish_one),
        ..post_at("/mqtt/publish", "mqtt_publish", "Publishes a message to one topic or several.")
    },
    Endpoint {
        body: Some(SUBSCRIBE),
        answer: Reply::Json(DONE),
        causes: CLIENT_CAUSES,
        serve: || post(subscribe_one),
        ..post_at("/mqtt/subscribe", "mqtt_subscribe", "Subscribes a connected client.")
    },
    Endpoint {
        body: Some(UNSUBSCRIBE),
        answer: Reply::Json(DONE),
        causes: CLIENT_CAUSES,
        serve: || post(unsubscribe_one),
        ..post_at("/mqtt/unsubscribe", "mqtt_unsubscribe", "Ends subscriptions of a connected client.")
    },
    Endpoint {
        body: Some(Shape::List(&MESSAGE)),
        answer: RESULTS,
        serve: || post(publish_batch),
        ..post_at("/mqtt/publish_batch", "mqtt_publish_batch", "Publishes messages, in the order given.")
    },
    Endpoint {
        body: Some(Shape::List(&SUBSCRIBE)),
        answer: RESULTS,
        serve: || post(subscribe_batch),
        ..post_at("/mqtt/subscribe_batch", "mqtt_subscribe_batch", "Subscribes connected clients.")
    },
    Endpoint {
        body: Some(Shape::List(&UNSUBSCRIBE)),
        answer: RESULTS,
        serve: || post(unsubscribe_batch),
        ..post_at(
            "/mqtt/unsubscribe_batch",
            "mqtt_unsubscribe_batch",
            "Ends subscriptions of connected clients.",
        )
    },
];

/// The topics that a body names: `topic`, then those of `topics`.
fn topics(body: &Value) -> Result<Vec<String>, Fault> {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let mut topics: Vec<String> = text("topic").map(str::to_owned).into_iter().collect();
    // `a, b` is written as often as `a,b`.
    let several = text("topics").into_iter().flat_map(|all| all.split(','));
    topics.extend(several.map(|topic| topic.trim_matches(' ').to_owned()));
    if topics.is_empty() {
        return Err(Fault::new(Cause::NoParameter, "topic and topics are missing"));
    }
    Ok(topics)
}

/// A message for each topic of a body; nothing is published when one of them is wrong.
pub fn messages(body: &Value) -> Result<Vec<Outgoing>, Fault> {
    topics(body)?.into_iter().map(|topic| Outgoing::read(topic, body)).collect()
}

async fn publish_one(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    for message in messages(&body)? {
        publish(&cx, &message).await?;
    }
    Ok(done())
}

async fn publish_batch(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    let mut results = Vec::new();
    for item in body.as_array().into_iter().flatten() {
        for topic in topics(item)? {
            let outcome = match Outgoing::read(topic.clone(), item) {
                Ok(message) => publish(&cx, &message).await,
                Err(fault) => Err(fault),
            };
            results.push((topic, outcome));
        }
    }
    Ok(told(results))
}

/// What a batch did, each with its result code.
fn told(results: Vec<(String, Result<(), Fault>)>) -> Answer {
    let row = |(topic, outcome): (String, Result<(), Fault>)| json!({"topic": topic, "code": outcome.err().map_or(0, |fault| fault.cause.code())});
    let data: Vec<Value> = results.into_iter().map(row).collect();
    Answer(json!({"code": 0, "data": data}))
}

/// The wishes of a body: one for each topic filter.
pub fn wishes(body: &Value) -> Result<Vec<Wish>, Fault> {
    let client_id = body["clientid"].as_str().unwrap_or_default();
    let wish = |filter| Wish::read(client_id, filter, body);
    Ok(topics(body)?.into_iter().map(wish).collect())
}

async fn subscribe_one(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    for wish in wishes(&body)? {
        subscribe(&cx, &wish).await?.ok_or_else(|| unknown_client(&wish.client_id))?;
    }
    Ok(done())
}

async fn unsubscribe_one(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    for wish in wishes(&body)? {
        unsubscribe(&cx, &wish).await?.ok_or_else(|| unknown_client(&wish.client_id))?;
    }
    Ok(done())
}

async fn subscribe_batch(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    let mut results = Vec::new();
    for item in body.as_array().into_iter().flatten() {
        for wish in wishes(item)? {
            let done = subscribe(&cx, &wish).await;
            results.push(outcome(wish, done));
        }
    }
    Ok(told(results))
}

async fn unsubscribe_batch(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    let mut results = Vec::new();
    for item in body.as_array().into_iter().flatten() {
        for wish in wishes(item)? {
            let done = unsubscribe(&cx, &wish).await;
            results.push(outcome(wish, done));
        }
    }
    Ok(told(results))
}

fn outcome<T>(wish: Wish, done: Result<Option<T>, Fault>) -> (String, Result<(), Fault>) {
    let known = done.and_then(|done| done.map(drop).ok_or_else(|| unknown_client(&wish.client_id)));
    (wish.filter, known)
}
