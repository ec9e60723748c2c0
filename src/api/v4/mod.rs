//! `/api/v4`: NanoMQ's dialect and EMQX's, both spellings of a field where they differ. Every answer has a result
//! code; lists have `meta`.

mod clients;

use super::{Away, Context};
use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

/// The routes below `/api/v4`.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/clients", get(clients::list))
        .route("/clients/{clientid}", get(clients::one).delete(clients::kick))
}

/// An answer that is no success: HTTP status, result code and text.
#[derive(Debug)]
struct Failure(StatusCode, u16, String);

impl From<Away> for Failure {
    fn from(away: Away) -> Failure {
        Failure(StatusCode::INTERNAL_SERVER_ERROR, 101, away.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "code": self.1, "message": self.2 }))).into_response()
    }
}

type Answer = Result<Json<Value>, Failure>;
