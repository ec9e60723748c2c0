//! Retained messages, as RMQTT's newer versions have them: listed and forgotten.

use super::at;
use crate::api::Context;
use crate::api::dialect::Answer;
use crate::api::endpoint::{Args, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, Field, QOS, Shape, may, must};
use crate::api::v4::retained::expiry_s;
use crate::desk::{Ask, Listing};
use crate::limits::HTTP_ROWS_MAX;
use crate::message::Message;
use crate::topic::{Filter, Topic};
use axum::extract::State;
use axum::routing::{delete, get};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

const PUBLISH: Shape = Shape::Object(&[
    must("topic", Shape::Text, "Topic."),
    must("payload", Shape::Text, "The message in base64."),
    must("qos", QOS, "QoS that it was published with."),
    must("retain", Shape::Flag, "true."),
]);

const RETAINED: Shape = Shape::Object(&[
    must("topic", Shape::Text, "Topic."),
    must("client_id", Shape::Maybe(&Shape::Text), "null: who published it is not kept."),
    must("remaining_ttl", Shape::Maybe(&COUNT), "Seconds until it expires; null where it does not."),
    must("publish", PUBLISH, "What was published."),
]);

/// The endpoints.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        query: &[
            may("topic_filter", Shape::Text, "A topic filter; `#` where it is left out or empty."),
            may("offset", COUNT, "Messages to leave out at the start."),
            may("limit", COUNT, "Messages at most; 10,000 at most, and by default."),
        ],
        answer: Reply::Json(Shape::Object(&[
            must("items", Shape::List(&RETAINED), "Messages, by topic within each shard."),
            must("has_more", Shape::Flag, "Whether there are further ones behind them."),
        ])),
        causes: &[Cause::BadTopic],
        serve: || get(list),
        ..at("/retains", "get_retains", "Retained messages.")
    },
    Endpoint {
        method: "DELETE",
        query: &[Field { required: true, ..may("topic", Shape::Text, "Topic, without wildcards.") }],
        answer: Reply::Json(Shape::Text),
        causes: &[Cause::BadTopic, Cause::NoParameter, Cause::NotFound],
        serve: || delete(forget),
        ..at("/retains", "delete_retain", "Forgets the retained message of a topic.")
    },
];

async fn list(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let text = args.text("topic_filter").filter(|text| !text.is_empty()).unwrap_or("#");
    let wrong = |e| Fault::new(Cause::BadTopic, format!("topic_filter: {e}"));
    let filter: Box<str> = Filter::new(text, 0).map_err(wrong)?.as_str().into();
    let limit = args.number("limit").filter(|limit| *limit > 0).and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(HTTP_ROWS_MAX).min(HTTP_ROWS_MAX);
    let skip = args.number("offset").unwrap_or(0);
    let listed = cx.desk.list(Listing::Retained, &filter, Default::default(), skip, limit).await?;
    let rows: Vec<Value> = listed.rows.iter().map(|message| row(&cx, message)).collect();
    Ok(Answer(json!({"items": rows, "has_more": listed.next.is_some()})))
}

fn row(cx: &Context, message: &Message) -> Value {
    let view = message.view();
    json!({
        "topic": view.topic,
        "client_id": null,
        "remaining_ttl": expiry_s(cx, message),
        "publish": {
            "topic": view.topic,
            "payload": BASE64_STANDARD.encode(view.payload),
            "qos": view.head.qos as u8,
            "retain": true,
        },
    })
}

async fn forget(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let topic = args.text("topic").unwrap_or_default();
    Topic::new(topic, 0).map_err(|e| Fault::new(Cause::BadTopic, format!("topic: {e}")))?;
    if cx.desk.ask_home(topic, |reply| Ask::Forget { topic: topic.into(), reply }).await? {
        return Ok(Answer("ok".into()));
    }
    Err(Fault::new(Cause::NotFound, format!("expected a topic with a retained message, got {topic:?}")))
}
