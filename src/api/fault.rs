//! What a request that fails is answered: one table of causes, and a body for each dialect.

use super::Away;
use super::dialect::Dialect;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::borrow::Cow;

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// A parameter has a value that it cannot have.
    BadValue,
    /// A parameter that is needed is not there.
    NoParameter,
    /// The body is no JSON.
    NotJson,
    /// A topic name or topic filter that MQTT forbids.
    BadTopic,
    /// There are no credentials, or an empty name or password.
    NoCredentials,
    /// Name, password or token are wrong.
    WrongCredentials,
    /// The token was right and is no longer.
    ExpiredToken,
    /// Another site sent it, or it was sent to a name that is not ours.
    Foreign,
    /// There is no such client.
    UnknownClient,
    /// There is no such path, or no such thing.
    NotFound,
    /// The path does not take this method.
    WrongMethod,
    /// It cannot be done in this state, such as unloading a part that cannot be unloaded.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// Too much is asked for at once.
    Busy,
    /// The answer took too long.
    TooLate,
    /// A shard gave no answer.
    Away,
    /// A fault of the broker.
    Internal,
}

/// One row: the cause, its HTTP status, its result code of `/api/v2` and `/api/v4`, and what it means.
type Row = (Cause, u16, u16, &'static str);

/// Every cause. The result codes are those of NanoMQ's API; what has none there takes the nearest.
pub const CAUSES: &[Row] = &[
    (Cause::BadValue, 400, 108, "a parameter has a wrong value"),
    (Cause::NoParameter, 400, 107, "a parameter is missing"),
    (Cause::NotJson, 400, 109, "the body is not JSON"),
    (Cause::BadTopic, 400, 115, "a topic name or filter is not allowed"),
    (Cause::NoCredentials, 401, 104, "credentials are missing"),
    (Cause::WrongCredentials, 401, 103, "name, password or token is wrong"),
    (Cause::ExpiredToken, 401, 116, "the token has expired"),
    (Cause::Foreign, 403, 108, "sent by another site, or to a name that is not ours"),
    (Cause::UnknownClient, 404, 112, "there is no such client"),
    (Cause::NotFound, 404, 108, "there is nothing here"),
    (Cause::WrongMethod, 405, 108, "the path does not take this method"),
    (Cause::Conflict, 409, 108, "it cannot be done with this"),
    (Cause::TooLarge, 413, 108, "the body is too large"),
    (Cause::Busy, 503, 101, "too many requests at once"),
    (Cause::TooLate, 503, 101, "the answer took too long"),
    (Cause::Away, 503, 101, "a shard gave no answer: the broker stops"),
    (Cause::Internal, 500, 102, "a fault of the broker"),
];

impl Cause {
    fn row(self) -> &'static Row {
        // Each cause has a row, which a test checks; the last row is what an unlisted one would be.
        CAUSES.iter().find(|row| row.0 == self).unwrap_or(&CAUSES[CAUSES.len() - 1])
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The result code of `/api/v2` and `/api/v4`.
    pub fn code(self) -> u16 {
        self.row().2
    }

    /// What it means.
    pub fn meaning(self) -> &'static str {
        self.row().3
    }
}

/// A request that fails: why, and in words what was expected and what came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Why.
    pub cause: Cause,
    /// In words, for people.
    pub message: Cow<'static, str>,
}

impl Fault {
    /// A fault with words of its own.
    pub fn new(cause: Cause, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault { cause, message: message.into() }
    }

    /// Its body in a dialect.
    pub fn body(&self, dialect: Dialect) -> Value {
        let (status, code) = (self.cause.row().1, self.cause.code());
        match dialect {
            Dialect::V2 => json!({"code": code, "msg": self.message, "data": null}),
            Dialect::V4 => json!({"code": code, "message": self.message}),
            Dialect::V1 | Dialect::Own => json!({"error": {"code": status, "message": self.message}}),
        }
    }

    /// The answer in a dialect. Headers that `response` has already, such as `Allow`, stay.
    pub fn dress(&self, dialect: Dialect, response: Response) -> Response {
        let mut head = response.into_parts().0;
        head.status = self.cause.status();
        let mut add = |name: HeaderName, value: &'static str| {
            head.headers.append(name, HeaderValue::from_static(value));
        };
        match self.cause {
            Cause::NoCredentials | Cause::WrongCredentials => {
                add(WWW_AUTHENTICATE, "Basic realm=\"ringmq\", charset=\"UTF-8\"");
                add(WWW_AUTHENTICATE, "Bearer realm=\"ringmq\"");
            }
            Cause::ExpiredToken => add(WWW_AUTHENTICATE, "Bearer realm=\"ringmq\", error=\"invalid_token\""),
            Cause::Busy | Cause::TooLate | Cause::Away => add(RETRY_AFTER, "1"),
            _ => {}
        }
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Response::from_parts(head, self.body(dialect).to_string().into())
    }
}

impl From<Away> for Fault {
    fn from(_: Away) -> Fault {
        Cause::Away.into()
    }
}

impl From<Cause> for Fault {
    fn from(cause: Cause) -> Fault {
        Fault::new(cause, cause.meaning())
    }
}

/// The body comes later, from the layer that knows the dialect.
impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = self.cause.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_one_row_and_a_status_that_exists() {
        for (i, row) in CAUSES.iter().enumerate() {
            assert!(CAUSES[..i].iter().all(|other| other.0 != row.0), "{row:?}");
            assert_eq!(row.0.status().as_u16(), row.1);
            assert!((101..=116).contains(&row.2), "{row:?}");
        }
        let last = Cause::Internal as usize;
        assert_eq!(CAUSES.len(), last + 1, "a row for each cause");
    }

    #[test]
    fn a_fault_is_told_in_each_dialect() {
        let fault = Fault::new(Cause::NoParameter, "topic is missing");
        assert_eq!(fault.body(Dialect::V4), json!({"code": 107, "message": "topic is missing"}));
        assert_eq!(fault.body(Dialect::V2), json!({"code": 107, "msg": "topic is missing", "data": null}));
        let bare = json!({"error": {"code": 400, "message": "topic is missing"}});
        assert_eq!((fault.body(Dialect::V1), fault.body(Dialect::Own)), (bare.clone(), bare));
    }
}
