//! Alarms, as EMQX has them: what is wrong now, and what was.

use super::{DONE, HERE, OK, data, done};
use crate::api::Context;
use crate::api::alarms::Alarm;
use crate::api::dialect::Answer;
use crate::api::endpoint::{Endpoint, Reply};
use crate::api::fault::Fault;
use crate::api::shape::{COUNT, Shape, must};
use crate::api::times::date_time;
use axum::extract::State;
use axum::routing::{delete, get};
use serde_json::{Value, json};
use std::time::SystemTime;

const ALARMS: Reply = Reply::Json(Shape::Object(&[
    OK,
    must(
        "data",
        Shape::List(&Shape::Object(&[
            must("node", Shape::Text, "`node.name`."),
            must(
                "alarms",
                Shape::List(&Shape::Object(&[
                    must("name", Shape::Text, "Which."),
                    must("message", Shape::Text, "What is or was wrong, and what to do."),
                    must("details", Shape::Map(&Shape::Any), "Nothing more is known."),
                    must("activated", Shape::Flag, "Whether it is wrong now."),
                    must("activate_at", Shape::Text, "Since when."),
                    must("deactivate_at", Shape::Text, "Until when; `infinity` while it is wrong."),
                    must("duration", COUNT, "Milliseconds that it was wrong."),
                ])),
                "Alarms.",
            ),
        ])),
        "One for each node.",
    ),
]));

/// Alarms.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/alarms",
        name: "list_alarms",
        about: "What is wrong now, and behind it what was, the last one first.",
        answer: ALARMS,
        serve: || get(async |cx: State<Context>| list(cx, |_| true).await),
        ..HERE
    },
    Endpoint {
        path: "/alarms/activated",
        name: "list_activated_alarms",
        about: "What is wrong now.",
        answer: ALARMS,
        serve: || get(async |cx: State<Context>| list(cx, |alarm| alarm.until.is_none()).await),
        ..HERE
    },
    Endpoint {
        path: "/alarms/deactivated",
        name: "list_deactivated_alarms",
        about: "What was wrong, the last one first.",
        answer: ALARMS,
        serve: || get(async |cx: State<Context>| list(cx, |alarm| alarm.until.is_some()).await),
        ..HERE
    },
    Endpoint {
        method: "DELETE",
        path: "/alarms/deactivated",
        name: "clear_deactivated_alarms",
        about: "Forgets what was wrong.",
        answer: Reply::Json(DONE),
        serve: || {
            delete(async |State(cx): State<Context>| {
                cx.alarms.forget_past();
                done()
            })
        },
        ..HERE
    },
];

async fn list(State(cx): State<Context>, wanted: fn(&Alarm) -> bool) -> Result<Answer, Fault> {
    crate::api::sys::look_for_alarms(&cx).await?;
    let book = cx.alarms.book();
    let rows: Vec<Value> =
        book.active.iter().chain(&book.past).filter(|alarm| wanted(alarm)).map(row).collect();
    Ok(data(json!([{"node": cx.facts.node.name, "alarms": rows}])))
}

/// An alarm as JSON.
pub fn row(alarm: &Alarm) -> Value {
    let until = alarm.until.unwrap_or_else(SystemTime::now);
    json!({
        "name": alarm.name,
        "message": alarm.message,
        "details": {},
        "activated": alarm.until.is_none(),
        "activate_at": date_time(alarm.since),
        "deactivate_at": alarm.until.map_or_else(|| "infinity".to_owned(), date_time),
        "duration": until.duration_since(alarm.since).unwrap_or_default().as_millis() as u64,
    })
}
