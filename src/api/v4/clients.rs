//! Clients: listed, looked up, kicked.

use crate::api::dialect::Answer;
use crate::api::endpoint::Args;
use crate::api::fault::{Cause, Fault};
use crate::api::{Context, Position};
use crate::desk::{Ask, ClientQuery, ClientRow, Listing};
use axum::extract::State;
use serde_json::{Value, json};

pub async fn list(State(cx): State<Context>) -> Result<Answer, Fault> {
    let query = ClientQuery::default();
    let listed = cx.desk.list(Listing::Clients, &query, Position::default(), 0, 10_000).await?;
    let data: Vec<Value> = listed.rows.iter().map(row).collect();
    Ok(Answer(json!({ "code": 0, "data": data })))
}

pub async fn one(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let client_id = args.text("clientid").unwrap_or_default();
    let asked = client_id.into();
    let found = cx.desk.ask_home(client_id, |reply| Ask::Client { client_id: asked, reply }).await?;
    let data: Vec<Value> = found.iter().map(|client| row(client)).collect();
    Ok(Answer(json!({ "code": 0, "data": data })))
}

pub async fn kick(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let client_id = args.text("clientid").unwrap_or_default();
    let asked = client_id.into();
    if !cx.desk.ask_home(client_id, |reply| Ask::Kick { client_id: asked, reply }).await? {
        return Err(Fault::new(Cause::UnknownClient, format!("there is no client {client_id:?}")));
    }
    Ok(Answer(json!({ "code": 0 })))
}

fn row(client: &ClientRow) -> Value {
    json!({
        "clientid": client.client_id,
        "username": client.username,
        "connected": client.connected,
        "proto_ver": client.version.level(),
        "recv_pkt": client.traffic.recv_pkt,
    })
}
