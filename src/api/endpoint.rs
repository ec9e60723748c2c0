//! The table of endpoints: what routes a request, checks its arguments, lists the endpoints of a dialect and
//! describes them in the OpenAPI document. Each part of the API has a table of its own; [`TABLES`] joins them.

use super::Context;
use super::dialect::{Answer, Dialect};
use super::fault::{Cause, Fault};
use super::shape::{Field, Shape};
use crate::auth::Banned;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use axum::{Router, middleware};
use serde_json::{Map, Value, json};

/// Every table.
pub const TABLES: &[&[Endpoint]] = &[
    super::v4::broker::ENDPOINTS,
    super::v4::alarms::ENDPOINTS,
    super::v4::banned::ENDPOINTS,
    super::v4::acl_cache::ENDPOINTS,
    super::v4::clients::ENDPOINTS,
    super::v4::subscriptions::ENDPOINTS,
    super::v4::messages::ENDPOINTS,
    super::v4::retained::ENDPOINTS,
    super::v4::control::ENDPOINTS,
    super::events::STREAM,
    super::events::TRACES,
    super::measure::NAMED,
    super::measure::PROMETHEUS,
    super::measure::SHARDS,
    super::rmqtt::node::ENDPOINTS,
    super::rmqtt::clients::ENDPOINTS,
    super::rmqtt::subscriptions::ENDPOINTS,
    super::rmqtt::messages::ENDPOINTS,
    super::rmqtt::retained::ENDPOINTS,
    super::rmqtt::plugins::ENDPOINTS,
    super::probes::ENDPOINTS,
    super::openapi::ENDPOINTS,
];

/// One endpoint: a method at a path.
pub struct Endpoint {
    /// The dialects that have it.
    pub dialects: &'static [Dialect],
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// The path below the dialect's prefix; `{name}` is a parameter, described in [`PATH_PARAMETERS`].
    pub path: &'static str,
    /// Its name in the list of endpoints, unique within a dialect and method.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// Parameters of the query; others are let through.
    pub query: &'static [Field],
    /// The body that it takes.
    pub body: Option<Shape>,
    /// What it answers with 200.
    pub answer: Reply,
    /// Why it may refuse, beside what holds for all, see [`Endpoint::causes`].
    pub causes: &'static [Cause],
    /// Whether it is served without credentials.
    pub open: bool,
    /// Whether it is served without credentials on a loopback address.
    pub near: bool,
    /// What serves it: `|| get(handler)`, with the one method of this row.
    pub serve: fn() -> MethodRouter<Context>,
}

/// A row to begin with: no dialect, no parameters, no body.
pub const ENDPOINT: Endpoint = Endpoint {
    dialects: &[],
    method: "GET",
    path: "",
    name: "",
    about: "",
    query: &[],
    body: None,
    answer: Reply::Json(Shape::Any),
    causes: &[],
    open: false,
    near: false,
    serve: MethodRouter::new,
};

/// What an endpoint answers.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// An [`Answer`] of this shape; `/api/v2` wraps it.
    Json(Shape),
    /// Another type of content, with its name.
    Other(&'static str),
}

/// Parameters of paths, each with one meaning everywhere.
pub const PATH_PARAMETERS: &[Field] = &[
    super::shape::must("node", Shape::Integer(0, u32::MAX as i64), "Identifier of a node, `node.id`."),
    super::shape::must("clientid", Shape::Name, "Client identifier."),
    super::shape::must("username", Shape::Name, "User name."),
    super::shape::must("topic", Shape::Name, "Topic, percent-encoded."),
    super::shape::must("plugin", Shape::Name, "Name of a built-in part."),
    super::shape::must("trace", Shape::Name, "Name of a trace's file."),
    super::shape::must("as", Shape::OneOf(Banned::KINDS), "What `who` is."),
    super::shape::must(
        "who",
        Shape::Name,
        "Client identifier, user name, address or network, percent-encoded.",
    ),
    super::shape::must("action", Shape::OneOf(&["stop", "restart"]), "What to do."),
];

impl Endpoint {
    /// Its whole path in a dialect.
    pub fn at(&self, dialect: Dialect) -> String {
        format!("{}{}", dialect.prefix(), self.path)
    }

    /// The parameters of its path.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static Field> {
        PATH_PARAMETERS.iter().filter(|field| self.path.contains(&format!("{{{}}}", field.name)))
    }

    /// Why it may refuse, each cause once.
    pub fn causes(&self) -> Vec<Cause> {
        let mut causes = self.causes.to_vec();
        causes.extend([
            Cause::Foreign,
            Cause::TooLarge,
            Cause::Busy,
            Cause::TooLate,
            Cause::Away,
            Cause::Internal,
        ]);
        if !self.open {
            causes.extend([Cause::NoCredentials, Cause::WrongCredentials, Cause::ExpiredToken]);
        }
        if !self.query.is_empty() || self.path.contains('{') {
            causes.push(Cause::BadValue);
        }
        if self.body.is_some() {
            causes.extend([Cause::NoParameter, Cause::BadValue, Cause::NotJson]);
        }
        if self.path.contains('{') {
            causes.push(Cause::NotFound);
        }
        causes.sort();
        causes.dedup();
        causes
    }
}

/// Every endpoint in each of its dialects.
pub fn all() -> impl Iterator<Item = (Dialect, &'static Endpoint)> {
    let rows = TABLES.iter().flat_map(|table| table.iter());
    rows.flat_map(|endpoint| endpoint.dialects.iter().map(move |dialect| (*dialect, endpoint)))
}

/// Whether this path is served without credentials.
pub fn is_open(path: &str) -> bool {
    is_any(path, |endpoint| endpoint.open)
}

/// Whether this path is served without credentials on a loopback address.
pub fn is_near(path: &str) -> bool {
    is_any(path, |endpoint| endpoint.near)
}

fn is_any(path: &str, which: fn(&Endpoint) -> bool) -> bool {
    let path = if path == "/" { path } else { path.strip_suffix('/').unwrap_or(path) };
    all().any(|(dialect, endpoint)| which(endpoint) && endpoint.at(dialect) == path)
}

/// A router for all of them. A path is served with and without a slash at its end.
pub fn router() -> Router<Context> {
    let mut paths: Vec<(String, MethodRouter<Context>)> = Vec::new();
    for (dialect, endpoint) in all() {
        let served = (endpoint.serve)().layer(middleware::from_fn(
            move |path: RawPathParams, request: Request, next: Next| check(endpoint, path, request, next),
        ));
        let path = endpoint.at(dialect);
        match paths.iter_mut().find(|(known, _)| *known == path) {
            Some((_, methods)) => *methods = std::mem::take(methods).merge(served),
            None => paths.push((path, served)),
        }
    }
    paths.into_iter().fold(Router::new(), |router, (path, methods)| {
        let router = router.route(&path, methods.clone());
        if path.ends_with('/') { router } else { router.route(&format!("{path}/"), methods) }
    })
}

/// Reads path and query by the endpoint's table, for [`Args`].
async fn check(
    endpoint: &'static Endpoint,
    path: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    match Args::read(endpoint, &path, request.uri().query().unwrap_or_default()) {
        Ok(args) => {
            request.extensions_mut().insert(args);
            next.run(request).await
        }
        Err(fault) => fault.into_response(),
    }
}

/// The checked parameters of path and query. A handler takes it as an argument.
#[derive(Clone, Default, Debug)]
pub struct Args {
    values: Map<String, Value>,
    body: Option<&'static Shape>,
}

impl Args {
    fn read(endpoint: &'static Endpoint, path: &RawPathParams, query: &str) -> Result<Args, Fault> {
        let mut values = Map::new();
        for (name, text) in path {
            let field = PATH_PARAMETERS.iter().find(|field| field.name == name);
            let value = field.map_or_else(|| Ok(text.into()), |field| field.shape.read(name, text))?;
            values.insert(name.to_owned(), value);
        }
        for (name, text) in form_urlencoded::parse(query.as_bytes()) {
            let Some(field) = endpoint.query.iter().find(|field| field.name == name) else { continue };
            if values.insert(name.clone().into_owned(), field.shape.read(&name, &text)?).is_some() {
                return Err(Fault::new(Cause::BadValue, format!("{name} is there twice")));
            }
        }
        match endpoint.query.iter().find(|field| field.required && !values.contains_key(field.name)) {
            Some(field) => Err(Fault::new(Cause::NoParameter, format!("{} is missing", field.name))),
            None => Ok(Args { values, body: endpoint.body.as_ref() }),
        }
    }

    /// A text, if it was given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_str()
    }

    /// A whole number that is not negative, if it was given.
    pub fn number(&self, name: &str) -> Option<u64> {
        whole(self.values.get(name)?)
    }

    /// A flag, if it was given.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.values.get(name)?.as_bool()
    }
}

impl<S: Sync> FromRequestParts<S> for Args {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Args, Fault> {
        // Without a row of the table there are no parameters.
        Ok(parts.extensions.get::<Args>().cloned().unwrap_or_default())
    }
}

/// A body of JSON that has the shape of its endpoint, whatever its content type says, as the documents' own
/// examples leave that out. It is the last argument of a handler.
#[derive(Debug)]
pub struct Body(pub Value);

impl FromRequest<Context> for Body {
    type Rejection = Fault;

    async fn from_request(request: Request, context: &Context) -> Result<Body, Fault> {
        let shape = request.extensions().get::<Args>().and_then(|args| args.body);
        let bytes =
            axum::body::to_bytes(request.into_body(), context.body_bytes_max()).await.map_err(|error| {
                let large = std::error::Error::source(&error)
                    .is_some_and(|e| e.is::<http_body_util::LengthLimitError>());
                if large {
                    Fault::from(Cause::TooLarge)
                } else {
                    Fault::new(Cause::BadValue, "the body was cut off")
                }
            })?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Fault::new(Cause::NotJson, format!("the body is not JSON: {error}")))?;
        shape.map_or(Ok(()), |shape| shape.check("", &value))?;
        Ok(Body(value))
    }
}

/// A whole number that is not negative, also where it is written as `1.0`.
pub fn whole(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|n| n.fract() == 0.0 && *n >= 0.0 && *n < 2f64.powi(63));
    value.as_u64().or_else(|| float().map(|n| n as u64))
}

/// The list of a dialect's endpoints, as `GET` of its prefix answers it.
pub fn list(dialect: Dialect) -> Answer {
    let mut rows: Vec<Value> = Vec::new();
    for (_, endpoint) in all().filter(|(d, endpoint)| *d == dialect && !endpoint.path.is_empty()) {
        let path = match dialect {
            // As NanoMQ and EMQX write them.
            Dialect::V4 if endpoint.path.contains('{') => endpoint.path.replace('{', ":").replace('}', ""),
            Dialect::V4 => format!("{}/", endpoint.path),
            _ => endpoint.path.to_owned(),
        };
        let name = listed_name(dialect, endpoint);
        rows.push(json!({"path": path, "name": name, "method": endpoint.method, "descr": endpoint.about}));
    }
    Answer(if dialect == Dialect::V4 { json!({"code": 0, "data": rows}) } else { rows.into() })
}

/// RMQTT has one name for what is asked of one node and of all: `get_brokers` for `/brokers/{node}`.
fn listed_name(dialect: Dialect, endpoint: &Endpoint) -> &'static str {
    let of_all = endpoint.path.strip_suffix("/{node}").filter(|_| endpoint.name.starts_with("get_"));
    let rows = || all().filter(|(d, e)| *d == dialect && e.method == endpoint.method);
    let named = of_all.and_then(|path| rows().find(|(_, e)| e.path == path));
    named.map_or(endpoint.name, |(_, e)| e.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_endpoint_is_there_once_and_describes_itself() {
        let mut seen = BTreeSet::new();
        for (dialect, endpoint) in all() {
            let at = endpoint.at(dialect);
            assert!(seen.insert((at.clone(), endpoint.method)), "{} {at} is there twice", endpoint.method);
            assert!(endpoint.about.ends_with('.') && !endpoint.name.is_empty(), "{at}");
            assert!(["GET", "POST", "PUT", "DELETE"].contains(&endpoint.method), "{at}");
            let parameters = endpoint.path.matches('{').count();
            assert_eq!(endpoint.path_parameters().count(), parameters, "{at}: a parameter is not described");
        }
    }

    #[test]
    fn the_routes_do_not_contradict_each_other() {
        let _ = router();
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        assert_eq!([json!(7), json!(7.0)].map(|n| whole(&n)), [Some(7), Some(7)]);
        assert_eq!([json!(7.5), json!(-1), json!("7"), json!(1e300)].map(|n| whole(&n)), [None; 4]);
    }

    #[test]
    fn open_paths_are_known_with_and_without_a_slash() {
        assert!(is_open("/health") && is_open("/ready/"));
        assert!(is_near("/metrics/") && !is_near("/api/v4/metrics") && !is_open("/metrics"));
        assert!(!is_open("/api/openapi.json") && !is_open("/nowhere") && !is_open(""));
    }
}
