//! What is remembered of what a back-end said about clients' rights, as EMQX has it.

use super::{DONE, HERE, OK, data, done, unknown_client};
use crate::api::Context;
use crate::api::dialect::Answer;
use crate::api::endpoint::{Args, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, Shape, must};
use crate::auth::Ruled;
use crate::auth::http::Access;
use crate::desk::Ask;
use axum::extract::State;
use axum::routing::{delete, get};
use serde_json::{Value, json};

const RULED: Shape = Shape::Object(&[
    must("access", Shape::OneOf(&["publish", "subscribe"]), "What the client wanted."),
    must("topic", Shape::Text, "Topic, or topic filter, as the client names it."),
    must("result", Shape::OneOf(&["allow", "deny"]), "What was said."),
    must("updated_time", COUNT, "When it was said, in milliseconds since 1970."),
]);

/// Rulings.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/clients/{clientid}/acl_cache",
        name: "list_acl_cache",
        about: "What is remembered of what `auth.http_acl_url` said about a connected client, the oldest first.",
        answer: Reply::Json(Shape::Object(&[OK, must("data", Shape::List(&RULED), "What was said.")])),
        causes: &[Cause::UnknownClient],
        serve: || get(list),
        ..HERE
    },
    Endpoint {
        method: "DELETE",
        path: "/clients/{clientid}/acl_cache",
        name: "clean_acl_cache",
        about: "Forgets that, so that it is asked again.",
        answer: Reply::Json(DONE),
        causes: &[Cause::UnknownClient],
        serve: || delete(clean),
        ..HERE
    },
    Endpoint {
        method: "DELETE",
        path: "/acl-cache",
        name: "clean_acl_cache_all",
        about: "Forgets what is remembered of what `auth.http_acl_url` said about all clients.",
        answer: Reply::Json(DONE),
        serve: || delete(clean_all),
        ..HERE
    },
];

async fn list(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let client_id = args.text("clientid").unwrap_or_default();
    let asked = client_id.into();
    let found = cx.desk.ask_home(client_id, |reply| Ask::Rulings { client_id: asked, reply }).await?;
    let rulings = found.ok_or_else(|| unknown_client(client_id))?;
    Ok(data(rulings.iter().map(|ruled| row(&cx, ruled)).collect::<Vec<_>>()))
}

fn row(cx: &Context, ruled: &Ruled) -> Value {
    let access = match ruled.access {
        Access::Subscribe => "subscribe",
        Access::Publish => "publish",
    };
    json!({
        "access": access,
        "topic": ruled.topic,
        "result": if ruled.allowed { "allow" } else { "deny" },
        "updated_time": cx.desk.time_of_day_ms(ruled.at),
    })
}

async fn clean(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let client_id = args.text("clientid").unwrap_or_default();
    let asked = Some(client_id.into());
    let forget = |reply| Ask::ForgetRulings { client_id: asked, reply };
    if cx.desk.ask_home(client_id, forget).await? { Ok(done()) } else { Err(unknown_client(client_id)) }
}

async fn clean_all(State(cx): State<Context>) -> Result<Answer, Fault> {
    cx.desk.ask_all(|reply| Ask::ForgetRulings { client_id: None, reply }).await?;
    Ok(done())
}
