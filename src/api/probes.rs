//! `/health` and `/ready`: for those who watch processes, without credentials.

use super::dialect::{Answer, Dialect};
use super::endpoint::{ENDPOINT, Endpoint, Reply};
use super::shape::{COUNT, Shape, must};
use super::{Context, State};
use axum::extract::State as Given;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

/// The probes.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        dialects: &[Dialect::Own],
        path: "/health",
        name: "health",
        about: "Whether the broker works: 503 while it starts and while it drains.",
        answer: Reply::Json(PROBE),
        open: true,
        serve: || get(probe),
        ..ENDPOINT
    },
    Endpoint {
        dialects: &[Dialect::Own],
        path: "/ready",
        name: "ready",
        about: "Whether clients may be sent here: listeners are open and the broker does not drain; else 503.",
        answer: Reply::Json(PROBE),
        open: true,
        serve: || get(probe),
        ..ENDPOINT
    },
];

const PROBE: Shape = Shape::Object(&[
    must("status", Shape::OneOf(&["ok", "starting", "draining"]), "What the broker does."),
    must("version", Shape::Text, "Its version."),
    must("uptime_s", COUNT, "Seconds since it started."),
]);

async fn probe(Given(context): Given<Context>) -> Response {
    let (code, status) = match *context.state.borrow() {
        State::Running => (StatusCode::OK, "ok"),
        State::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        State::Draining | State::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let version = env!("CARGO_PKG_VERSION");
    let body = json!({"status": status, "version": version, "uptime_s": context.uptime().as_secs()});
    (code, Answer(body)).into_response()
}
