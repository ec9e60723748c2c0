//! `/api/v1` and `/api/v2`: RMQTT's dialect. The two have the same endpoints and differ in how an answer is
//! dressed, which [`super::dialect`] does: bare in v1, in `{"code":0,"msg":"","data":…}` in v2.

pub mod clients;
pub mod messages;
pub mod node;
pub mod plugins;
pub mod retained;
pub mod subscriptions;

use super::Context;
use super::dialect::Dialect;
use super::endpoint::{Args, ENDPOINT, Endpoint};
use super::fault::{Cause, Fault};
use super::shape::{Field, Shape, may};
use crate::limits::HTTP_ROWS_MAX;

/// Rows at most.
const LIMIT: Field =
    may("_limit", Shape::Integer(1, i64::MAX), "Rows at most; 10,000 at most, and by default.");

/// What all endpoints here have.
const BOTH: Endpoint = Endpoint { dialects: &[Dialect::V1, Dialect::V2], ..ENDPOINT };

/// A row with a path, a name and a meaning.
const fn at(path: &'static str, name: &'static str, about: &'static str) -> Endpoint {
    Endpoint { path, name, about, ..BOTH }
}

fn limit(args: &Args) -> usize {
    let limit = args.number("_limit").and_then(|limit| usize::try_from(limit).ok());
    limit.unwrap_or(HTTP_ROWS_MAX).min(HTTP_ROWS_MAX)
}

/// Whether the path names this node, the only one there is.
fn this_node(cx: &Context, args: &Args) -> Result<(), Fault> {
    let (own, asked) = (u64::from(cx.facts.node.id), args.number("node"));
    if asked.is_none_or(|asked| asked == own) {
        return Ok(());
    }
    Err(Fault::new(Cause::NotFound, format!("expected node {own}, got {}", asked.unwrap_or_default())))
}
