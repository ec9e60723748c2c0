//! What RMQTT has as plugins, and this broker as built-in parts: listed, with their configuration. A part that is
//! one setting can be unloaded and loaded, which is to turn the setting off and on; the others are immutable, and
//! active where they are always there, or where the configuration says what they need.

use super::{at, this_node};
use crate::api::Context;
use crate::api::control::{Order, Settings, order};
use crate::api::dialect::Answer;
use crate::api::endpoint::{Args, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, Shape, must};
use crate::limits::HTTP_ROWS_MAX;
use axum::extract::State;
use axum::routing::{get, put};
use serde_json::{Map, Value, json};

/// A built-in part.
struct Part {
    name: &'static str,
    descr: &'static str,
    works: Works,
    /// Its keys of the configuration.
    keys: &'static [&'static str],
}

/// When a part works.
#[derive(Clone, Copy)]
enum Works {
    Always,
    /// While this setting is on, which loading and unloading change.
    While(&'static str),
    /// Where one of these has a value, which a restart or a reload of the configuration brings.
    Where(&'static [&'static str]),
}

const PARTS: &[Part] = &[
    Part {
        name: "rmqtt-http-api",
        descr: "This API.",
        works: Works::Always,
        keys: &["http.listen", "http.auth", "http.hosts", "http.max_body_bytes"],
    },
    Part { name: "rmqtt-counter", descr: "Metrics and statistics.", works: Works::Always, keys: &[] },
    Part {
        name: "rmqtt-acl",
        descr: "Rules about who may publish and subscribe to what.",
        works: Works::Where(&["auth.acl_file"]),
        keys: &["auth.acl_file", "auth.deny_action"],
    },
    Part {
        name: "rmqtt-auth-http",
        descr: "Asks an HTTP server who clients are.",
        works: Works::Where(&["auth.http_auth_url"]),
        keys: &[
            "auth.http_auth_url",
            "auth.http_auth_method",
            "auth.http_auth_params",
            "auth.http_superuser_url",
            "auth.http_superuser_method",
            "auth.http_superuser_params",
            "auth.http_timeout_ms",
        ],
    },
    Part {
        name: "rmqtt-auth-jwt",
        descr: "Clients that bring JSON Web Tokens.",
        works: Works::Where(&[
            "auth.jwt_secret",
            "auth.jwt_public_key",
            "auth.jwt_jwks_file",
            "auth.jwt_jwks_url",
        ]),
        keys: &["auth.jwt_public_key", "auth.jwt_jwks_file", "auth.jwt_jwks_url", "auth.jwt_claims"],
    },
    Part {
        name: "rmqtt-retainer",
        descr: "Retained messages.",
        works: Works::While("mqtt.retain_available"),
        keys: &["mqtt.retain_available", "mqtt.max_retained", "mqtt.max_retained_bytes"],
    },
    Part {
        name: "rmqtt-shared-subscription",
        descr: "Shared subscriptions.",
        works: Works::While("mqtt.shared_available"),
        keys: &["mqtt.shared_available", "mqtt.shared_strategy"],
    },
    Part {
        name: "rmqtt-sys-topic",
        descr: "What the broker publishes below $SYS/.",
        works: Works::Where(&["sys.interval_s"]),
        keys: &["sys.interval_s", "sys.client_events", "sys.local_only"],
    },
];

const PLUGIN: Shape = Shape::Object(&[
    must("name", Shape::Text, "Name."),
    must("version", Shape::Maybe(&Shape::Text), "Version."),
    must("descr", Shape::Maybe(&Shape::Text), "What it is."),
    must("active", Shape::Flag, "Whether it works."),
    must("inited", Shape::Flag, "Whether it is ready to."),
    must("immutable", Shape::Flag, "Whether it cannot be unloaded."),
    must("attrs", Shape::Any, "Further properties: none."),
]);

/// The endpoints.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        answer: Reply::Json(Shape::List(&Shape::Object(&[
            must("node", COUNT, "`node.id`."),
            must("plugins", Shape::List(&PLUGIN), "Its built-in parts."),
        ]))),
        serve: || get(all),
        ..at("/plugins", "all_plugins", "The built-in parts of all nodes.")
    },
    Endpoint {
        answer: Reply::Json(Shape::List(&PLUGIN)),
        serve: || get(of_node),
        ..at("/plugins/{node}", "node_plugins", "The built-in parts of a node.")
    },
    Endpoint {
        answer: Reply::Json(PLUGIN),
        serve: || get(one),
        ..at("/plugins/{node}/{plugin}", "node_plugin_info", "A built-in part.")
    },
    Endpoint {
        answer: Reply::Json(Shape::Map(&Shape::Any)),
        serve: || get(configuration),
        ..at("/plugins/{node}/{plugin}/config", "node_plugin_config", "The configuration of a built-in part.")
    },
    Endpoint {
        method: "PUT",
        answer: Reply::Json(Shape::Text),
        causes: &[Cause::BadValue],
        serve: || put(reload),
        ..at(
            "/plugins/{node}/{plugin}/config/reload",
            "node_plugin_config_reload",
            "Reads the configuration again, as SIGHUP does.",
        )
    },
    Endpoint {
        method: "PUT",
        answer: Reply::Json(Shape::Text),
        causes: &[Cause::Conflict],
        serve: || put(load),
        ..at("/plugins/{node}/{plugin}/load", "node_plugin_load", "Turns a built-in part on.")
    },
    Endpoint {
        method: "PUT",
        answer: Reply::Json(Shape::Flag),
        serve: || put(unload),
        ..at(
            "/plugins/{node}/{plugin}/unload",
            "node_plugin_unload",
            "Turns a built-in part off, unless it is immutable; whether it did.",
        )
    },
];

async fn settings(cx: &Context) -> Result<Settings, Fault> {
    order(&cx.orders, Order::Settings).await
}

async fn rows(cx: &Context) -> Result<Vec<Value>, Fault> {
    let settings = settings(cx).await?;
    Ok(PARTS.iter().map(|part| row(part, &settings)).collect())
}

fn row(part: &Part, settings: &Settings) -> Value {
    json!({
        "name": part.name,
        "version": env!("CARGO_PKG_VERSION"),
        "descr": part.descr,
        "active": is_active(part, settings),
        "inited": is_active(part, settings) || !is_immutable(part),
        "immutable": is_immutable(part),
        "attrs": null,
    })
}

fn is_active(part: &Part, settings: &Settings) -> bool {
    let has = |key: &&str| match settings.keys.get(*key) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::Number(n)) => n.as_u64() != Some(0),
        Some(Value::String(text)) => !text.is_empty(),
        _ => false,
    };
    match part.works {
        Works::Always => true,
        Works::While(key) => has(&key),
        Works::Where(keys) => keys.iter().any(has),
    }
}

fn is_immutable(part: &Part) -> bool {
    !matches!(part.works, Works::While(_))
}

/// The part that the path names, with or without `rmqtt-` in front.
fn part(cx: &Context, args: &Args) -> Result<&'static Part, Fault> {
    this_node(cx, args)?;
    let asked = args.text("plugin").unwrap_or_default();
    let named = |part: &&Part| part.name == asked || part.name.strip_prefix("rmqtt-") == Some(asked);
    PARTS.iter().find(named).ok_or_else(|| {
        let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        Fault::new(Cause::NotFound, format!("expected one of {}, got {asked:?}", names.join(", ")))
    })
}

async fn all(State(cx): State<Context>) -> Result<Answer, Fault> {
    Ok(Answer(json!([{"node": cx.facts.node.id, "plugins": rows(&cx).await?}])))
}

async fn of_node(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    this_node(&cx, &args)?;
    Ok(Answer(rows(&cx).await?.into()))
}

async fn one(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let part = part(&cx, &args)?;
    Ok(Answer(row(part, &settings(&cx).await?)))
}

async fn configuration(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let part = part(&cx, &args)?;
    let settings = settings(&cx).await?;
    // The last part of a key, as in its own section of the file.
    let short = |key: &str| key.split('.').next_back().unwrap_or(key).to_owned();
    let keys = part.keys.iter().filter_map(|key| Some((short(key), settings.keys.get(*key)?.clone())));
    let mut config: Map<String, Value> = keys.collect();
    if part.name == "rmqtt-http-api" {
        let listen = cx.facts.http.first().map_or(Value::Null, |addr| addr.to_string().into());
        config.insert("http_laddr".to_owned(), listen);
        config.insert("max_row_limit".to_owned(), HTTP_ROWS_MAX.into());
        config.insert("workers".to_owned(), 1.into());
    }
    Ok(Answer(config.into()))
}

async fn reload(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    part(&cx, &args)?;
    order(&cx.orders, Order::Reread).await??;
    Ok(Answer("ok".into()))
}

async fn switch(cx: &Context, key: &str, on: bool) -> Result<(), Fault> {
    let wanted = Map::from_iter([(key.to_owned(), on.into())]);
    order(&cx.orders, |reply| Order::Change { wanted, keep: false, reply }).await??;
    Ok(())
}

/// Loading what is loaded is done already.
async fn load(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let part = part(&cx, &args)?;
    match part.works {
        Works::While(key) => switch(&cx, key, true).await?,
        Works::Where(keys) if !is_active(part, &settings(&cx).await?) => {
            let text = format!("{} works where the configuration has {}", part.name, keys.join(" or "));
            return Err(Fault::new(Cause::Conflict, text));
        }
        _ => {}
    }
    Ok(Answer("ok".into()))
}

/// Whether it was unloaded; what is immutable is not.
async fn unload(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let part = part(&cx, &args)?;
    let Works::While(key) = part.works else { return Ok(Answer(false.into())) };
    let active = is_active(part, &settings(&cx).await?);
    switch(&cx, key, false).await?;
    Ok(Answer(active.into()))
}
