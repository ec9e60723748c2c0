//! Publishing, and subscribing in the name of a client.

use super::at;
use crate::api::Context;
use crate::api::dialect::Answer;
use crate::api::endpoint::{Body, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::publish::{publish, subscribe, unsubscribe};
use crate::api::shape::{Shape, must};
use crate::api::v4::messages::{CLIENT, MESSAGE, SUBSCRIBE, messages, wishes};
use axum::extract::State;
use axum::routing::post;
use serde_json::{Map, Value};

/// One subscription that is to end.
const UNSUBSCRIBE: Shape = Shape::Object(&[must("topic", Shape::Text, "Topic filter."), CLIENT]);

/// The endpoints.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: "POST",
        body: Some(MESSAGE),
        answer: Reply::Json(Shape::Text),
        causes: &[Cause::BadTopic],
        serve: || post(publish_one),
        ..at("/mqtt/publish", "publish", "Publishes a message to one topic or several.")
    },
    Endpoint {
        method: "POST",
        body: Some(SUBSCRIBE),
        answer: Reply::Json(Shape::Map(&Shape::Flag)),
        causes: &[Cause::BadTopic, Cause::UnknownClient],
        serve: || post(subscribe_one),
        ..at(
            "/mqtt/subscribe",
            "subscribe",
            "Subscribes a connected client; answers for each topic filter whether.",
        )
    },
    Endpoint {
        method: "POST",
        body: Some(UNSUBSCRIBE),
        answer: Reply::Json(Shape::Flag),
        causes: &[Cause::BadTopic, Cause::UnknownClient],
        serve: || post(unsubscribe_one),
        ..at(
            "/mqtt/unsubscribe",
            "unsubscribe",
            "Ends a subscription of a connected client; whether there was one.",
        )
    },
];

async fn publish_one(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    for message in messages(&body)? {
        publish(&cx, &message).await?;
    }
    Ok(Answer("ok".into()))
}

fn unknown(client_id: &str) -> Fault {
    Fault::new(Cause::UnknownClient, format!("expected a client that is connected, got {client_id:?}"))
}

async fn subscribe_one(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    let mut results = Map::new();
    for wish in wishes(&body)? {
        let granted = match subscribe(&cx, &wish).await {
            Ok(Some(_)) => true,
            Ok(None) => return Err(unknown(&wish.client_id)),
            Err(fault) if fault.cause == Cause::BadTopic => return Err(fault),
            Err(_) => false,
        };
        results.insert(wish.filter, granted.into());
    }
    Ok(Answer(Value::Object(results)))
}

async fn unsubscribe_one(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    let mut ended = false;
    for wish in wishes(&body)? {
        ended = unsubscribe(&cx, &wish).await?.ok_or_else(|| unknown(&wish.client_id))?;
    }
    Ok(Answer(ended.into()))
}
