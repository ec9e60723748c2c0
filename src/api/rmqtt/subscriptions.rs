//! Who subscribed to what: subscriptions and routes.

use super::{LIMIT, at, limit};
use crate::api::Context;
use crate::api::dialect::Answer;
use crate::api::endpoint::{Args, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, QOS, Shape, may, must};
use crate::api::v4::subscriptions::subscription_query;
use crate::desk::{Listing, RouteQuery, SubscriptionRow};
use crate::topic::Topic;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Value, json};

const SUBSCRIPTIONS: Shape = Shape::List(&Shape::Object(&[
    must("node_id", COUNT, "The node that it is on."),
    must("clientid", Shape::Text, "Client identifier."),
    must(
        "client_addr",
        Shape::Maybe(&Shape::Text),
        "Address and port; null while the client is not connected.",
    ),
    must("topic", Shape::Text, "Topic filter."),
    must("qos", QOS, "Maximum QoS."),
    must("share", Shape::Maybe(&Shape::Text), "Share name; null where it is not shared."),
]));
const ROUTES: Shape = Shape::List(&Shape::Object(&[
    must("node_id", COUNT, "The node that has subscribers."),
    must("topic", Shape::Text, "Topic filter."),
]));

/// The endpoints.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        query: &[
            LIMIT,
            may("clientid", Shape::Text, "Client identifier."),
            may("topic", Shape::Text, "The topic filter, as it is."),
            may("qos", QOS, "Maximum QoS."),
            may("share", Shape::Text, "Share name."),
            may("_match_topic", Shape::Text, "A topic that it matches, or a filter that it is below."),
        ],
        answer: Reply::Json(SUBSCRIPTIONS),
        serve: || get(list),
        ..at("/subscriptions", "query_subscriptions", "Subscriptions of all clients.")
    },
    Endpoint {
        answer: Reply::Json(SUBSCRIPTIONS),
        serve: || get(list),
        ..at("/subscriptions/{clientid}", "get_client_subscriptions", "Subscriptions of a client.")
    },
    Endpoint {
        query: &[LIMIT],
        answer: Reply::Json(ROUTES),
        serve: || get(routes),
        ..at("/routes", "get_routes", "Topic filters that have subscribers.")
    },
    Endpoint {
        query: &[LIMIT],
        answer: Reply::Json(ROUTES),
        causes: &[Cause::BadTopic],
        serve: || get(routes),
        ..at("/routes/{topic}", "get_route", "Topic filters with subscribers that match a topic.")
    },
];

async fn list(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let query = subscription_query(&args);
    let listed = cx.desk.list(Listing::Subscriptions, &query, Default::default(), 0, limit(&args)).await?;
    Ok(Answer(listed.rows.iter().map(|s| row(&cx, s)).collect()))
}

fn row(cx: &Context, s: &SubscriptionRow) -> Value {
    json!({
        "node_id": cx.facts.node.id,
        "clientid": s.client_id,
        "client_addr": s.peer.map(|peer| peer.to_string()),
        "topic": s.filter,
        "qos": s.qos as u8,
        "share": s.share,
    })
}

async fn routes(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    if let Some(topic) = args.text("topic") {
        Topic::new(topic, 0).map_err(|error| Fault::new(Cause::BadTopic, format!("topic: {error}")))?;
    }
    let query = RouteQuery { topic: args.text("topic").map(Box::from) };
    let listed = cx.desk.list(Listing::Routes, &query, Default::default(), 0, limit(&args)).await?;
    let node = cx.facts.node.id;
    Ok(Answer(listed.rows.iter().map(|route| json!({"node_id": node, "topic": route.filter})).collect()))
}
