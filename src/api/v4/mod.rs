//! `/api/v4`: NanoMQ's dialect and EMQX's, both spellings of a field where they differ. Every answer has a result
//! code; lists have `meta`.

mod clients;
pub mod control;

use super::dialect::Dialect;
use super::endpoint::{ENDPOINT, Endpoint, Reply, list};
use super::fault::Cause;
use super::shape::{Shape, must};
use axum::routing::{delete, get};

const V4: &[Dialect] = &[Dialect::V4];

/// What holds for each endpoint here.
const HERE: Endpoint = Endpoint { dialects: V4, ..ENDPOINT };

/// `{"code": 0}` and no more.
const DONE: Reply = Reply::Json(Shape::Object(&[must("code", Shape::Integer(0, 0), "Result code.")]));

/// `{"code": 0, "data": […]}`.
const ROWS: Reply = Reply::Json(Shape::Object(&[
    must("code", Shape::Integer(0, 0), "Result code."),
    must("data", Shape::List(&Shape::Map(&Shape::Any)), "What was found."),
]));

/// The endpoints below `/api/v4`.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "",
        name: "list_endpoints",
        about: "The endpoints of this API.",
        answer: ROWS,
        serve: || get(async || list(Dialect::V4)),
        ..HERE
    },
    Endpoint {
        path: "/clients",
        name: "list_clients",
        about: "Clients, connected or not.",
        answer: ROWS,
        serve: || get(clients::list),
        ..HERE
    },
    Endpoint {
        path: "/clients/{clientid}",
        name: "lookup_client",
        about: "One client.",
        answer: ROWS,
        serve: || get(clients::one),
        ..HERE
    },
    Endpoint {
        method: "DELETE",
        path: "/clients/{clientid}",
        name: "kickout_client",
        about: "Closes the connection of a client, publishes its will, and ends its session.",
        answer: DONE,
        causes: &[Cause::UnknownClient],
        serve: || delete(clients::kick),
        ..HERE
    },
];
