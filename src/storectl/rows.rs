//! What is kept as lines of JSON. Bytes are in base64: they are the broker's own records.

use crate::store::Change;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The line of something that is kept; null for what only takes away.
pub(super) fn row_of(change: &Change) -> Value {
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    match change {
        Change::PutSession { id, bytes } => json!({"session": id, "bytes": text(bytes)}),
        Change::Push { queue, seq, body: None, bytes } => {
            json!({"queue": queue, "seq": seq, "bytes": text(bytes)})
        }
        Change::Push { queue, seq, body: Some(body), bytes } => {
            json!({"queue": queue, "seq": seq, "points_to": body, "bytes": text(bytes)})
        }
        Change::PutBody { id, bytes } => json!({"body": id, "bytes": text(bytes)}),
        Change::SetRetained { topic, bytes } => json!({"retained": topic, "bytes": text(bytes)}),
        Change::PutMeta { key, bytes } => json!({"meta": key, "bytes": text(bytes)}),
        Change::DropSession { .. }
        | Change::Pop { .. }
        | Change::Trim { .. }
        | Change::ClearRetained { .. }
        | Change::DropMeta { .. } => Value::Null,
    }
}

/// The change that a line stands for; the error says what is wrong with it.
pub(super) fn change_of(row: &Value) -> Result<Change, String> {
    let number = |name: &str| row.get(name).and_then(Value::as_u64);
    let name = |name: &str| row.get(name).and_then(Value::as_str).map(Box::<str>::from);
    let bytes = row.get("bytes").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
    let bytes: Box<[u8]> = bytes.ok_or("expected \"bytes\" in base64")?.into();
    if let Some(id) = number("session") {
        return Ok(Change::PutSession { id, bytes });
    }
    if let Some(queue) = number("queue") {
        let seq = number("seq").ok_or("expected a whole number \"seq\"")?;
        return Ok(Change::Push { queue, seq, body: number("points_to"), bytes });
    }
    if let Some(id) = number("body") {
        return Ok(Change::PutBody { id, bytes });
    }
    if let Some(topic) = name("retained") {
        return Ok(Change::SetRetained { topic, bytes });
    }
    match name("meta") {
        Some(key) => Ok(Change::PutMeta { key, bytes }),
        None => Err("expected one of session, queue, body, retained and meta".to_owned()),
    }
}
