//! Retained messages: listed, looked up, forgotten.

use super::{HERE, LIMIT, META, OK, PAGE, data, listed, page};
use crate::api::Context;
use crate::api::dialect::Answer;
use crate::api::endpoint::{Args, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, Field, QOS, Shape, may, must};
use crate::desk::{Ask, Listing};
use crate::message::Message;
use crate::time::Moment;
use crate::topic::Filter;
use axum::extract::State;
use axum::routing::{delete, get};
use base64::Engine;
use serde_json::{Value, json};

const TOPIC: Field = may("topic", Shape::Text, "A topic, or a topic filter; `#` where it is left out.");

const RETAINED: Shape = Shape::Object(&[
    must("topic", Shape::Text, "Topic."),
    must("qos", QOS, "QoS that it was published with."),
    must("payload", Shape::Text, "The message: as it is where it is UTF-8, else as base64."),
    must("encoding", Shape::OneOf(&["plain", "base64"]), "What `payload` is."),
    must("payload_len", COUNT, "Bytes of the message."),
    must("expiry_s", Shape::Maybe(&COUNT), "Seconds until it expires; null where it does not."),
    must("properties_len", COUNT, "Bytes of its properties of 5.0."),
]);

/// Retained messages.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/retains",
        name: "list_retained",
        about: "Retained messages, by topic within each shard.",
        query: &[PAGE, LIMIT, TOPIC],
        answer: Reply::Json(Shape::Object(&[OK, META, must("data", Shape::List(&RETAINED), "Messages.")])),
        causes: &[Cause::BadTopic],
        serve: || get(list),
        ..HERE
    },
    Endpoint {
        method: "DELETE",
        path: "/retains",
        name: "delete_retained",
        about: "Forgets the retained messages of a topic or of all topics that a filter matches.",
        query: &[Field { required: true, ..TOPIC }],
        answer: Reply::Json(Shape::Object(&[OK, must("count", COUNT, "Messages that were forgotten.")])),
        causes: &[Cause::BadTopic, Cause::NoParameter],
        serve: || delete(forget),
        ..HERE
    },
    Endpoint {
        path: "/retains/{topic}",
        name: "lookup_retained",
        about: "The retained message of a topic.",
        answer: Reply::Json(Shape::Object(&[OK, must("data", Shape::List(&RETAINED), "The message.")])),
        causes: &[Cause::BadTopic, Cause::NotFound],
        serve: || get(one),
        ..HERE
    },
    Endpoint {
        method: "DELETE",
        path: "/retains/{topic}",
        name: "delete_retained_of_topic",
        about: "Forgets the retained message of a topic.",
        answer: Reply::Json(Shape::Object(&[OK, must("count", COUNT, "1.")])),
        causes: &[Cause::BadTopic, Cause::NotFound],
        serve: || delete(forget_one),
        ..HERE
    },
];

/// The filter that a request names. `#` matches no topic that begins with `$`; those are asked for by name.
fn filter(args: &Args) -> Result<Box<str>, Fault> {
    let text = args.text("topic").unwrap_or("#");
    let wrong = |e| Fault::new(Cause::BadTopic, format!("topic: {e}"));
    Filter::new(text, 0).map(|filter| filter.as_str().into()).map_err(wrong)
}

async fn list(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let (number, limit) = page(&args);
    let paged = cx.desk.page(Listing::Retained, &filter(&args)?, number, limit).await?;
    Ok(listed(&paged, |message| row(&cx, message)))
}

fn row(cx: &Context, message: &Message) -> Value {
    let view = message.view();
    let (encoding, payload) = match std::str::from_utf8(view.payload) {
        Ok(text) => ("plain", text.to_owned()),
        Err(_) => ("base64", base64::engine::general_purpose::STANDARD.encode(view.payload)),
    };
    let expiry_s = expiry_s(cx, message);
    json!({
        "topic": view.topic,
        "qos": view.head.qos as u8,
        "payload": payload,
        "encoding": encoding,
        "payload_len": view.payload.len(),
        "expiry_s": expiry_s,
        "properties_len": view.properties.len(),
    })
}

/// Seconds until it expires; `None` where it does not.
pub fn expiry_s(cx: &Context, message: &Message) -> Option<u64> {
    let expires = message.view().head.expires;
    (expires != Moment::NEVER).then(|| expires.since_ms(cx.desk.now()).div_ceil(1_000))
}

async fn one(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let filter = filter(&args)?;
    let found = cx.desk.page(Listing::Retained, &filter, 1, 1).await?;
    match found.rows.first() {
        Some(message) => Ok(data(vec![row(&cx, message)])),
        None => Err(nothing(&filter)),
    }
}

fn nothing(topic: &str) -> Fault {
    Fault::new(Cause::NotFound, format!("expected a topic with a retained message, got {topic:?}"))
}

async fn forget(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let count = forget_all(&cx, &filter(&args)?).await?;
    Ok(Answer(json!({"code": 0, "count": count})))
}

async fn forget_one(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let filter = filter(&args)?;
    match forget_all(&cx, &filter).await? {
        0 => Err(nothing(&filter)),
        count => Ok(Answer(json!({"code": 0, "count": count}))),
    }
}

/// Forgets the retained messages that a filter matches; how many.
pub async fn forget_all(cx: &Context, filter: &str) -> Result<u64, Fault> {
    let filter: Box<str> = filter.into();
    let (mut position, mut count) = (Some(Default::default()), 0);
    while let Some(at) = position {
        let listed = cx.desk.list(Listing::Retained, &filter, at, 0, 1_000).await?;
        for message in &listed.rows {
            let topic = message.topic();
            let known = cx.desk.ask_home(topic, |reply| Ask::Forget { topic: topic.into(), reply }).await?;
            count += u64::from(known);
        }
        position = listed.next;
    }
    Ok(count)
}
