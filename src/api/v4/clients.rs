//! Clients: listed, looked up, kicked.

use super::{Answer, Failure};
use crate::api::{Context, Position};
use crate::desk::{Ask, ClientQuery, ClientRow, Listing};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

pub async fn list(State(cx): State<Context>) -> Answer {
    let query = ClientQuery::default();
    let listed = cx.desk.list(Listing::Clients, &query, Position::default(), 0, 10_000).await?;
    let data: Vec<Value> = listed.rows.iter().map(row).collect();
    Ok(Json(json!({ "code": 0, "data": data })))
}

pub async fn one(State(cx): State<Context>, Path(client_id): Path<String>) -> Answer {
    let asked = client_id.as_str().into();
    let found = cx.desk.ask_home(&client_id, |reply| Ask::Client { client_id: asked, reply }).await?;
    let data: Vec<Value> = found.iter().map(|client| row(client)).collect();
    Ok(Json(json!({ "code": 0, "data": data })))
}

pub async fn kick(State(cx): State<Context>, Path(client_id): Path<String>) -> Answer {
    let asked = client_id.as_str().into();
    if !cx.desk.ask_home(&client_id, |reply| Ask::Kick { client_id: asked, reply }).await? {
        return Err(Failure(StatusCode::NOT_FOUND, 112, format!("there is no client {client_id:?}")));
    }
    Ok(Json(json!({ "code": 0 })))
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
