//! The APIs that are served side by side, and how each dresses an answer.

use super::fault::Fault;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Whose API a path belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dialect {
    /// `/api/v1`: RMQTT, bare bodies.
    V1,
    /// `/api/v2`: RMQTT, each body wrapped.
    V2,
    /// `/api/v4`: NanoMQ and EMQX.
    V4,
    /// Everything else: this broker's own.
    Own,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Dialect; 4] = [Dialect::V1, Dialect::V2, Dialect::V4, Dialect::Own];

    /// What its paths begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Dialect::V1 => "/api/v1",
            Dialect::V2 => "/api/v2",
            Dialect::V4 => "/api/v4",
            Dialect::Own => "",
        }
    }

    /// Whose path this is.
    pub fn of(path: &str) -> Dialect {
        let below = |dialect: &Dialect| {
            path.strip_prefix(dialect.prefix()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        Dialect::ALL.into_iter().find(below).unwrap_or(Dialect::Own)
    }

    /// The body of a success: type and bytes.
    fn success(self, value: &Value) -> (&'static str, String) {
        match (self, value) {
            // RMQTT answers a bare text, such as `ok`, as it is.
            (Dialect::V1, Value::String(text)) => ("text/plain; charset=utf-8", text.clone()),
            (Dialect::V2, value) => {
                ("application/json", json!({"code": 0, "msg": "", "data": value}).to_string())
            }
            (_, value) => ("application/json", value.to_string()),
        }
    }

    /// Gives an [`Answer`] or a [`Fault`] its body; everything else stays as it is.
    pub fn dress(self, mut response: Response) -> Response {
        if let Some(fault) = response.extensions_mut().remove::<Fault>() {
            response = fault.dress(self, response);
        } else if let Some(Answer(value)) = response.extensions_mut().remove::<Answer>() {
            let (kind, text) = self.success(&value);
            let mut head = response.into_parts().0;
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            response = Response::from_parts(head, text.into());
        }
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

/// What a handler answers: JSON, which the dialect of the path wraps or leaves bare.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer(pub Value);

/// The body comes later, from the layer that knows the dialect.
impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = ().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_one_dialect() {
        for (path, dialect) in [
            ("/api/v1", Dialect::V1),
            ("/api/v2/clients", Dialect::V2),
            ("/api/v4/", Dialect::V4),
            ("/api/v41", Dialect::Own),
            ("/api/openapi.json", Dialect::Own),
            ("/health", Dialect::Own),
            ("", Dialect::Own),
        ] {
            assert_eq!(Dialect::of(path), dialect, "{path}");
        }
    }

    #[test]
    fn a_success_is_bare_or_wrapped() {
        let json = |dialect: Dialect, value: Value| dialect.success(&value).1;
        assert_eq!(json(Dialect::V1, json!("ok")), "ok");
        assert_eq!(json(Dialect::V1, json!(true)), "true");
        assert_eq!(json(Dialect::V2, json!("ok")), r#"{"code":0,"data":"ok","msg":""}"#);
        assert_eq!(json(Dialect::V4, json!({"code": 0})), r#"{"code":0}"#);
    }
}
