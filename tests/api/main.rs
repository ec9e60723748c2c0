//! The HTTP API over a real socket, with real MQTT clients on the other side.
//!
//! One file per topic. A test that concerns the shards as well runs on both drivers ([`served`]); one about HTTP
//! alone on one of them.

#![allow(clippy::unwrap_used, reason = "a test ends at a surprise")]

#[path = "../common/mod.rs"]
mod common;

mod control;
mod desk;
mod events;
mod metrics;
mod rmqtt;
mod rmqtt_names;
mod sys;
mod v4_banned;
mod v4_broker;
mod v4_clients;
mod v4_messages;
mod v4_retained;
mod v4_subscriptions;

use common::{Broker, DRIVERS, Http};
use ringmq::api::endpoint::{Reply, all};
use serde_json::Value;

/// Runs a test on a broker with HTTP and three shards, on every driver.
fn served(settings: &[(&str, &str)], test: impl Fn(&Broker, Http)) {
    for &driver in DRIVERS {
        let broker = Broker::start_http(driver, 3, settings);
        test(&broker, Http::of(&broker));
        broker.stop();
    }
}

/// The body of a GET that is expected to be answered with 200, and to be what the OpenAPI document says. `template`
/// is its path there; `path` the one that is asked for.
fn told(http: Http, template: &str, path: &str) -> Value {
    let body = http.json(path);
    conforms("GET", template, &body);
    body
}

/// Asserts that an answer is what the OpenAPI document says.
fn conforms(method: &str, template: &str, body: &Value) {
    let found =
        all().find(|(dialect, endpoint)| endpoint.method == method && endpoint.at(*dialect) == template);
    let (_, endpoint) = found.unwrap_or_else(|| panic!("{method} {template} is in the table of endpoints"));
    let Reply::Json(shape) = endpoint.answer else { panic!("{method} {template} answers JSON") };
    if let Err(fault) = shape.check("", body) {
        panic!("{method} {template}: {}: {body:#}", fault.message);
    }
}
