//! The OpenAPI 3.1 document, made from the table of endpoints, and a page to browse it.

use super::Context;
use super::dialect::{Answer, Dialect};
use super::endpoint::{ENDPOINT, Endpoint, Reply, all};
use super::fault::Cause;
use super::shape::{Field, Shape};
use axum::http::header::{CONTENT_SECURITY_POLICY, HeaderName};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// The document and the page.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        dialects: &[Dialect::Own],
        path: "/api/openapi.json",
        name: "openapi",
        about: "This document.",
        answer: Reply::Json(Shape::Map(&Shape::Any)),
        serve: || -> MethodRouter<Context> { get(async || Answer(document().clone())) },
        ..ENDPOINT
    },
    Endpoint {
        dialects: &[Dialect::Own],
        path: "/api/docs",
        name: "docs",
        about: "A page that shows this document and sends requests.",
        answer: Reply::Other("text/html"),
        serve: || -> MethodRouter<Context> { get(page) },
        ..ENDPOINT
    },
];

/// Everything that the page may do: what stands in it, and requests to where it came from.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn page() -> Response {
    let policy: [(HeaderName, &str); 1] = [(CONTENT_SECURITY_POLICY, POLICY)];
    (policy, Html(include_str!("page.html"))).into_response()
}

/// The document.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(build)
}

fn build() -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for (dialect, endpoint) in all() {
        let methods = paths.entry(endpoint.at(dialect)).or_default();
        methods.insert(endpoint.method.to_lowercase(), operation(dialect, endpoint));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ringmq",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The management API of ringmq: /api/v4 as of NanoMQ and EMQX, /api/v1 and /api/v2 as \
                            of RMQTT, and its own. Parameters of a query that are not listed are ignored.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": tag(Dialect::V4), "description": "As of NanoMQ and EMQX."},
            {"name": tag(Dialect::V2), "description": "As of RMQTT, each body wrapped."},
            {"name": tag(Dialect::V1), "description": "As of RMQTT, bare bodies."},
            {"name": tag(Dialect::Own), "description": "This broker's own."}
        ],
        "paths": paths,
        "security": [{"basic": []}, {"bearer": []}],
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "A configured token or a JWT."}
            }
        }
    })
}

fn tag(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::V1 => "v1",
        Dialect::V2 => "v2",
        Dialect::V4 => "v4",
        Dialect::Own => "ringmq",
    }
}

fn operation(dialect: Dialect, endpoint: &Endpoint) -> Value {
    let mut operation = json!({
        "operationId": format!("{}_{}_{}", tag(dialect), endpoint.method.to_lowercase(), endpoint.name),
        "tags": [tag(dialect)],
        "summary": endpoint.about,
        "responses": responses(dialect, endpoint)
    });
    let path = endpoint.path_parameters().map(|field| parameter("path", field));
    let query = endpoint.query.iter().map(|field| parameter("query", field));
    let parameters: Vec<Value> = path.chain(query).collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(shape) = &endpoint.body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": shape.schema()}}});
    }
    if endpoint.open {
        operation["security"] = json!([]);
    } else if endpoint.near {
        // An empty requirement: without credentials, where that is served.
        operation["security"] = json!([{}, {"basic": []}, {"bearer": []}]);
    }
    operation
}

fn parameter(place: &str, field: &Field) -> Value {
    json!({
        "name": field.name,
        "in": place,
        "required": field.required,
        "description": field.about,
        "schema": field.shape.schema()
    })
}

fn responses(dialect: Dialect, endpoint: &Endpoint) -> Value {
    let success = match endpoint.answer {
        Reply::Json(Shape::Text) if dialect == Dialect::V1 => {
            json!({"text/plain": {"schema": {"type": "string"}}})
        }
        Reply::Json(shape) => json!({"application/json": {"schema": dressed(dialect, &shape)}}),
        Reply::Other(kind) => json!({kind: {"schema": {"type": "string"}}}),
    };
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({"description": "Success.", "content": success}));
    let mut by_status: BTreeMap<u16, Vec<Cause>> = BTreeMap::new();
    for cause in endpoint.causes() {
        by_status.entry(cause.status().as_u16()).or_default().push(cause);
    }
    for (status, causes) in by_status {
        let means = |cause: &Cause| match dialect {
            Dialect::V2 | Dialect::V4 => format!("{}: {}", cause.code(), cause.meaning()),
            Dialect::V1 | Dialect::Own => cause.meaning().to_owned(),
        };
        let description: Vec<String> = causes.iter().map(means).collect();
        let mut schema = fault(dialect, &causes);
        if let (503, true, Reply::Json(shape)) = (status, endpoint.open, endpoint.answer) {
            schema = json!({"anyOf": [dressed(dialect, &shape), schema]});
        }
        let mut response = json!({"description": description.join("; "), "content": {"application/json": {"schema": schema}}});
        if status == 401 {
            response["headers"] =
                json!({"WWW-Authenticate": {"schema": {"type": "string"}, "required": true}});
        }
        responses.insert(status.to_string(), response);
    }
    responses.into()
}

/// The schema of a success.
fn dressed(dialect: Dialect, shape: &Shape) -> Value {
    match dialect {
        Dialect::V2 => json!({
            "type": "object",
            "properties": {"code": {"const": 0}, "msg": {"const": ""}, "data": shape.schema()},
            "required": ["code", "msg", "data"]
        }),
        _ => shape.schema(),
    }
}

/// The schema of a refusal for one of these causes.
fn fault(dialect: Dialect, causes: &[Cause]) -> Value {
    let mut codes: Vec<u16> = causes.iter().map(|cause| cause.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    let status = causes.first().map_or(500, |cause| cause.status().as_u16());
    let text = json!({"type": "string"});
    match dialect {
        Dialect::V2 => json!({
            "type": "object",
            "properties": {"code": {"enum": codes}, "msg": text, "data": {"type": "null"}},
            "required": ["code", "msg", "data"]
        }),
        Dialect::V4 => json!({
            "type": "object",
            "properties": {"code": {"enum": codes}, "message": text},
            "required": ["code", "message"]
        }),
        Dialect::V1 | Dialect::Own => json!({
            "type": "object",
            "properties": {
                "error": {
                    "type": "object",
                    "properties": {"code": {"const": status}, "message": text},
                    "required": ["code", "message"]
                }
            },
            "required": ["error"]
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_endpoint_is_in_the_document_once() {
        let document = document();
        let mut names = BTreeSet::new();
        for (dialect, endpoint) in all() {
            let operation = &document["paths"][endpoint.at(dialect)][endpoint.method.to_lowercase()];
            let name = operation["operationId"].as_str().expect("it is described");
            assert!(names.insert(name.to_owned()), "{name} is there twice");
            assert!(
                operation["responses"]["200"].is_object() && operation["responses"]["500"].is_object(),
                "{name}"
            );
            assert_eq!(operation["responses"]["401"].is_null(), endpoint.open, "{name}");
            let without = operation["security"][0] == json!({});
            assert_eq!(
                without,
                endpoint.near && !endpoint.open,
                "{name}: without credentials where that is served"
            );
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        let page = include_str!("page.html");
        for part in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(part), "{part}");
        }
    }
}
