//! Who subscribed to what: subscriptions, routes, and the topics as a tree.

use super::{HERE, LIMIT, META, OK, PAGE, listed, page};
use crate::api::Context;
use crate::api::dialect::Answer;
use crate::api::endpoint::{Args, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, QOS, Shape, may, must};
use crate::desk::{Listing, RouteQuery, SubscriptionQuery, SubscriptionRow};
use crate::limits::HTTP_TREE_ROWS_MAX;
use crate::topic::Topic;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const SUBSCRIPTION: Shape = Shape::Object(&[
    must("node", Shape::Text, "`node.name`."),
    must("clientid", Shape::Text, "Client identifier."),
    must("topic", Shape::Text, "Topic filter."),
    must("qos", QOS, "Maximum QoS."),
    must("share", Shape::Maybe(&Shape::Text), "Share name; null where it is not shared."),
    must("nl", Shape::Integer(0, 1), "No Local."),
    must("rap", Shape::Integer(0, 1), "Retain As Published."),
    must("rh", Shape::Integer(0, 2), "Retain Handling."),
]);
const SUBSCRIPTIONS: Reply =
    Reply::Json(Shape::Object(&[OK, META, must("data", Shape::List(&SUBSCRIPTION), "Subscriptions.")]));
const ROUTE: Shape = Shape::Object(&[
    must("topic", Shape::Text, "Topic filter."),
    must("node", Shape::Text, "The node that has subscribers."),
]);
const ROUTES: Reply =
    Reply::Json(Shape::Object(&[OK, META, must("data", Shape::List(&ROUTE), "Topic filters.")]));
const TREE: Shape = Shape::List(&Shape::List(&Shape::Object(&[
    must("topic", Shape::Text, "The level."),
    must("cld_cnt", COUNT, "Levels right below it."),
    may("clientid", Shape::List(&Shape::Text), "Clients whose filter ends here."),
])));

/// Subscriptions.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/subscriptions",
        name: "list_subscriptions",
        about: "Subscriptions of all clients.",
        query: &[
            PAGE,
            LIMIT,
            may("clientid", Shape::Text, "Client identifier."),
            may("topic", Shape::Text, "The topic filter, as it is."),
            may("_match_topic", Shape::Text, "A topic that it matches, or a filter that it is below."),
            may("qos", QOS, "Maximum QoS."),
            may("share", Shape::Text, "Share name."),
        ],
        answer: SUBSCRIPTIONS,
        serve: || get(list),
        ..HERE
    },
    Endpoint {
        path: "/subscriptions/{clientid}",
        name: "lookup_client_subscriptions",
        about: "Subscriptions of a client.",
        query: &[PAGE, LIMIT],
        answer: SUBSCRIPTIONS,
        serve: || get(list),
        ..HERE
    },
    Endpoint {
        path: "/routes",
        name: "list_routes",
        about: "Topic filters that have subscribers.",
        query: &[PAGE, LIMIT],
        answer: ROUTES,
        serve: || get(routes),
        ..HERE
    },
    Endpoint {
        path: "/routes/{topic}",
        name: "lookup_routes",
        about: "Topic filters with subscribers that match a topic.",
        query: &[PAGE, LIMIT],
        answer: ROUTES,
        causes: &[Cause::BadTopic],
        serve: || get(routes),
        ..HERE
    },
    Endpoint {
        path: "/topic-tree",
        name: "list_topic-tree",
        about: "The levels of all topic filters: one array for each depth, the root first.",
        answer: Reply::Json(Shape::Object(&[OK, META, must("data", TREE, "Levels by depth.")])),
        serve: || get(tree),
        ..HERE
    },
];

async fn list(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let (number, limit) = page(&args);
    let query = subscription_query(&args);
    let paged = cx.desk.page(Listing::Subscriptions, &query, number, limit).await?;
    Ok(listed(&paged, |s| row(&cx, s)))
}

/// What the parameters of a query ask for. A shared subscription is found by its filter with and without
/// `$share/name/`.
pub fn subscription_query(args: &Args) -> SubscriptionQuery {
    let text = |name: &str| args.text(name).map(Box::<str>::from);
    let (mut filter, mut share) = (text("topic"), text("share"));
    let mut nothing = false;
    if let Some(rest) = args.text("topic").and_then(|topic| topic.strip_prefix("$share/")) {
        let (name, inner) = rest.split_once('/').unwrap_or((rest, ""));
        nothing = share.as_deref().is_some_and(|share| share != name);
        (filter, share) = (Some(inner.into()), Some(name.into()));
    }
    SubscriptionQuery {
        client_id: text("clientid"),
        filter,
        match_topic: text("_match_topic"),
        qos: args.number("qos").map(|qos| qos as u8),
        share,
        nothing,
    }
}

fn row(cx: &Context, s: &SubscriptionRow) -> Value {
    json!({
        "node": cx.facts.node.name,
        "clientid": s.client_id,
        "topic": s.filter,
        "qos": s.qos as u8,
        "share": s.share,
        "nl": u8::from(s.no_local),
        "rap": u8::from(s.retain_as_published),
        "rh": s.retain_handling,
    })
}

async fn routes(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let (number, limit) = page(&args);
    if let Some(topic) = args.text("topic") {
        let wrong = |e| Fault::new(Cause::BadTopic, format!("topic: {e}"));
        Topic::new(topic, 0).map_err(wrong)?;
    }
    let query = RouteQuery { topic: args.text("topic").map(Box::from) };
    let paged = cx.desk.page(Listing::Routes, &query, number, limit).await?;
    Ok(listed(&paged, |route| json!({"topic": route.filter, "node": cx.facts.node.name})))
}

async fn tree(State(cx): State<Context>) -> Result<Answer, Fault> {
    let query = SubscriptionQuery::default();
    let paged = cx.desk.page(Listing::Subscriptions, &query, 1, HTTP_TREE_ROWS_MAX).await?;
    let data = levels(paged.rows.iter().map(|s| (&*s.filter, &*s.client_id)));
    let meta = json!({"page": 1, "limit": paged.limit, "count": paged.count, "hasnext": paged.has_next});
    Ok(Answer(json!({"code": 0, "meta": meta, "data": data})))
}

/// A level of topic filters.
#[derive(Default)]
struct Level<'a> {
    below: BTreeMap<&'a str, Level<'a>>,
    clients: BTreeSet<&'a str>,
}

/// The levels of filters with their clients, by depth; the root is alone at the first.
fn levels<'a>(subscriptions: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Vec<Value>> {
    let mut root = Level::default();
    for (filter, client_id) in subscriptions {
        let mut at = &mut root;
        for level in filter.split('/') {
            at = at.below.entry(level).or_default();
        }
        at.clients.insert(client_id);
    }
    let mut depths = vec![vec![json!({"topic": "", "cld_cnt": root.below.len()})]];
    let mut now: Vec<(&str, &Level)> = root.below.iter().map(|(text, level)| (*text, level)).collect();
    while !now.is_empty() {
        let row = |(text, level): &(&str, &Level)| json!({"topic": text, "cld_cnt": level.below.len(), "clientid": level.clients});
        depths.push(now.iter().map(row).collect());
        now = now
            .iter()
            .flat_map(|(_, level)| level.below.iter().map(|(text, below)| (*text, below)))
            .collect();
    }
    dismantle(root);
    depths
}

/// Drops the levels without recursion, for a filter may have 65,535 of them.
fn dismantle(root: Level) {
    let mut left = vec![root];
    while let Some(mut level) = left.pop() {
        left.extend(std::mem::take(&mut level.below).into_values());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_has_one_array_for_each_depth() {
        let filters = [("topic123", "a"), ("topic123/123", "b"), ("topic123/123/456", "c"), ("x/123", "b")];
        assert_eq!(
            json!(levels(filters.into_iter())),
            json!([
                [{"topic": "", "cld_cnt": 2}],
                [{"topic": "topic123", "cld_cnt": 1, "clientid": ["a"]}, {"topic": "x", "cld_cnt": 1, "clientid": []}],
                [{"topic": "123", "cld_cnt": 1, "clientid": ["b"]}, {"topic": "123", "cld_cnt": 0, "clientid": ["b"]}],
                [{"topic": "456", "cld_cnt": 0, "clientid": ["c"]}]
            ])
        );
        assert_eq!(json!(levels(std::iter::empty())), json!([[{"topic": "", "cld_cnt": 0}]]));
    }

    #[test]
    fn a_filter_of_very_many_levels_is_no_danger() {
        let deep = "/".repeat(65_534);
        assert_eq!(levels([(deep.as_str(), "a")].into_iter()).len(), 65_536);
    }
}
