//! `/api/v4`: NanoMQ's dialect and EMQX's, with both spellings of a field where they differ.
//!
//! Every answer has a result code; lists have `meta` with `page`, `limit`, `count` and `hasnext`, and take `_page`
//! and `_limit`. What a list holds is the [`crate::desk`]'s; here it is given its names.

pub mod acl_cache;
pub mod alarms;
pub mod banned;
pub mod broker;
pub mod clients;
pub mod control;
pub mod messages;
pub mod retained;
pub mod subscriptions;

use super::Paged;
use super::dialect::{Answer, Dialect};
use super::endpoint::{Args, ENDPOINT, Endpoint};
use super::fault::{Cause, Fault};
use super::shape::{COUNT, Field, Shape, may, must};
use crate::limits::HTTP_ROWS_MAX;
use serde_json::{Value, json};

/// What holds for each endpoint here.
const HERE: Endpoint = Endpoint { dialects: &[Dialect::V4], ..ENDPOINT };

/// The number of a page.
const PAGE: Field = may("_page", Shape::Integer(1, i64::MAX), "Number of the page, from 1 on.");
/// Rows of a page.
const LIMIT: Field = may("_limit", Shape::Integer(1, i64::MAX), "Rows of a page, 10,000 at most.");

/// The result code of a success.
const OK: Field = must("code", Shape::Integer(0, 0), "0.");
/// A success that says no more.
const DONE: Shape = Shape::Object(&[OK]);
const META: Field = must(
    "meta",
    Shape::Object(&[
        must("page", COUNT, "Number of the page."),
        must("limit", COUNT, "Rows of a page."),
        must("count", COUNT, "Rows of all pages."),
        must("hasnext", Shape::Flag, "Whether there is a page behind this one."),
    ]),
    "Which page of how many rows.",
);

/// Page and limit that a query asks for.
fn page(args: &Args) -> (u64, usize) {
    let limit = args.number("_limit").and_then(|limit| usize::try_from(limit).ok());
    (args.number("_page").unwrap_or(1), limit.unwrap_or(HTTP_ROWS_MAX).min(HTTP_ROWS_MAX))
}

/// A page as an answer.
fn listed<R>(paged: &Paged<R>, row: impl FnMut(&R) -> Value) -> Answer {
    let meta =
        json!({"page": paged.number, "limit": paged.limit, "count": paged.count, "hasnext": paged.has_next});
    let data: Vec<Value> = paged.rows.iter().map(row).collect();
    Answer(json!({"code": 0, "meta": meta, "data": data}))
}

/// A success that says no more.
fn done() -> Answer {
    Answer(json!({"code": 0}))
}

fn data(data: impl Into<Value>) -> Answer {
    let data: Value = data.into();
    Answer(json!({"code": 0, "data": data}))
}

fn unknown_client(client_id: &str) -> Fault {
    Fault::new(Cause::UnknownClient, format!("expected a client that is there, got {client_id:?}"))
}
