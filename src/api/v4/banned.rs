//! `banned`, as EMQX has it: who may not come for a while.

use super::{DONE, HERE, LIMIT, META, OK, PAGE, data, done, page};
use crate::api::Context;
use crate::api::dialect::Answer;
use crate::api::endpoint::{Args, Body, Endpoint, Reply, whole};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, Field, Shape, may, must};
use crate::auth::{Ban, Banned};
use crate::limits::{BAN_S_DEFAULT, BAN_TEXT_BYTES_MAX};
use axum::extract::State;
use axum::routing::{delete, get, post};
use serde_json::{Value, json};
use std::time::SystemTime;

const AS: Field = must("as", Shape::OneOf(Banned::KINDS), "What `who` is.");
const WHO: Field = must(
    "who",
    Shape::Name,
    "A client identifier, a user name, or an address or network such as `10.0.0.0/8`.",
);

const BAN: Shape = Shape::Object(&[
    AS,
    WHO,
    must("by", Shape::Text, "Who made it."),
    must("reason", Shape::Text, "Why."),
    must("at", COUNT, "Since when, in seconds since 1970."),
    must("until", COUNT, "Until when, in seconds since 1970."),
    may("node", Shape::Text, "In a list: `node.name`."),
]);

const NEW: Shape = Shape::Object(&[
    AS,
    WHO,
    may("by", Shape::Text, "Who makes it. Default: `user`."),
    may("reason", Shape::Text, "Why."),
    may("at", COUNT, "Since when, in seconds since 1970, as it will be shown. Default: now."),
    may("until", COUNT, "Until when, in seconds since 1970. Default: 300 s from now."),
]);

/// Bans.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/banned",
        name: "list_banned",
        about: "Bans that hold, in the order in which they were made.",
        query: &[PAGE, LIMIT],
        answer: Reply::Json(Shape::Object(&[OK, META, must("data", Shape::List(&BAN), "Bans.")])),
        serve: || get(list),
        ..HERE
    },
    Endpoint {
        method: "POST",
        path: "/banned",
        name: "create_banned",
        about: "Keeps a client, a user or a network away, and disconnects those who are there. An earlier ban of the \
                same is replaced. They outlive a restart where `broker.durability` is on.",
        body: Some(NEW),
        answer: Reply::Json(Shape::Object(&[OK, must("data", BAN, "The ban.")])),
        causes: &[Cause::Conflict],
        serve: || post(create),
        ..HERE
    },
    Endpoint {
        method: "DELETE",
        path: "/banned/{as}/{who}",
        name: "delete_banned",
        about: "Takes a ban back.",
        answer: Reply::Json(DONE),
        serve: || delete(remove),
        ..HERE
    },
];

fn row(ban: &Ban) -> Value {
    json!({
        "as": ban.who.kind(),
        "who": ban.who.to_string(),
        "by": ban.by,
        "reason": ban.reason,
        "at": ban.at_s,
        "until": ban.until_s,
    })
}

async fn list(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let (number, limit) = page(&args);
    let skip = usize::try_from(number - 1).unwrap_or(usize::MAX).saturating_mul(limit);
    let (count, rows) = cx.bans.page(&cx.desk, skip, limit).await?;
    let has_next = skip.saturating_add(rows.len()) < count && !rows.is_empty();
    let rows: Vec<Value> = rows
        .iter()
        .map(|ban| {
            let mut row = row(ban);
            row["node"] = (*cx.facts.node.name).into();
            row
        })
        .collect();
    let meta = json!({"page": number, "limit": limit, "count": count, "hasnext": has_next});
    Ok(Answer(json!({"code": 0, "meta": meta, "data": rows})))
}

async fn create(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    let text = |name: &str, default: &str| -> Result<Box<str>, Fault> {
        let text = body[name].as_str().unwrap_or(default);
        if text.len() > BAN_TEXT_BYTES_MAX {
            let what = format!("{name}: expected at most {BAN_TEXT_BYTES_MAX} bytes, got {}", text.len());
            return Err(Fault::new(Cause::BadValue, what));
        }
        Ok(text.into())
    };
    let who = banned(body["as"].as_str(), body["who"].as_str())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (by, reason) = (text("by", "user")?, text("reason", "")?);
    let at_s = whole(&body["at"]).unwrap_or(now);
    let until_s = whole(&body["until"]).unwrap_or(now + BAN_S_DEFAULT);
    if until_s <= now {
        let what = format!("until: expected a time to come, later than {now}, got {until_s}");
        return Err(Fault::new(Cause::BadValue, what));
    }
    let ban = Ban { who, by, reason, at_s, until_s };
    let answer = data(row(&ban));
    if !cx.bans.put(&cx.desk, ban).await? {
        let what = "there is no room for a further ban; ban a network, or wait until some have ended";
        return Err(Fault::new(Cause::Conflict, what));
    }
    Ok(answer)
}

async fn remove(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let who = banned(args.text("as"), args.text("who"))?;
    if cx.bans.remove(&cx.desk, who.clone()).await? {
        return Ok(done());
    }
    let (kind, text) = (who.kind(), who.to_string());
    Err(Fault::new(Cause::NotFound, format!("expected a ban that is there, got {kind} {text:?}")))
}

/// Whom a request means. A text that no client can have is no harm.
fn banned(kind: Option<&str>, who: Option<&str>) -> Result<Banned, Fault> {
    let (kind, who) = (kind.unwrap_or_default(), who.unwrap_or_default());
    if who.len() > usize::from(u16::MAX) {
        return Err(Fault::new(Cause::BadValue, "who: expected at most 65535 bytes"));
    }
    Banned::read(kind, who).map_err(|what| Fault::new(Cause::BadValue, format!("who: {what}")))
}
