//! Traces: the packets of a client or on a topic, line by line in a file of the broker's data folder. They end with
//! the broker.

use super::{Hub, Listening, News, Wanted, line, locked};
use crate::api::Context;
use crate::api::dialect::{Answer, Dialect};
use crate::api::endpoint::{Args, Body, ENDPOINT, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::shape::{COUNT, Shape, may, must};
use crate::api::times::date_time;
use crate::desk::Kind;
use crate::limits::TRACE_FILE_BYTES_MAX;
use crate::topic::Filter;
use axum::extract::State;
use axum::routing::{delete, get, post};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions, create_dir_all};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

const OF: Shape = Shape::OneOf(&["client", "topic"]);
const TRACE: Shape = Shape::Object(&[
    must("file", Shape::Text, "Its name, which is that of its file."),
    must("path", Shape::Text, "Where its file is, on the broker's machine."),
    must("type", OF, "Of what."),
    must("value", Shape::Text, "Client identifier or topic filter."),
    must("started_at", Shape::Text, "When it was started."),
    must("lines", COUNT, "Packets that were written."),
    must("bytes", COUNT, "Bytes of the file."),
    must("dropped", COUNT, "Events that found no room on their way, whether they were of this trace or not."),
    must("status", Shape::Text, "`running`, or why it ended."),
]);
const HERE: Endpoint = Endpoint { dialects: &[Dialect::V4], ..ENDPOINT };

/// Traces into files.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/traces",
        name: "list_traces",
        about: "Packets that are traced into files.",
        answer: Reply::Json(Shape::Object(&[
            must("code", Shape::Integer(0, 0), "Result code."),
            must("data", Shape::List(&TRACE), "Traces."),
        ])),
        serve: || get(list),
        ..HERE
    },
    Endpoint {
        method: "POST",
        path: "/traces",
        name: "start_trace",
        about: "Writes a line for each packet of a client, or each PUBLISH on topics that a filter matches, to a file of \
                the data folder, until it is stopped, the file is full or the broker stops.",
        body: Some(Shape::Object(&[
            must("type", OF, "Of what."),
            must("value", Shape::Name, "Client identifier or topic filter."),
            may(
                "file",
                Shape::Name,
                "Name of the file: letters, digits, `.`, `_` and `-`. Default: from type and value.",
            ),
        ])),
        answer: Reply::Json(Shape::Object(&[
            must("code", Shape::Integer(0, 0), "Result code."),
            must("data", TRACE, "The trace."),
        ])),
        causes: &[Cause::BadTopic, Cause::Conflict],
        serve: || post(start),
        ..HERE
    },
    Endpoint {
        method: "DELETE",
        path: "/traces/{trace}",
        name: "stop_trace",
        about: "Stops a trace; its file stays.",
        answer: Reply::Json(Shape::Object(&[must("code", Shape::Integer(0, 0), "Result code.")])),
        serve: || delete(stop),
        ..HERE
    },
];

/// All traces into files. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Traces(Arc<Mutex<Vec<Arc<Trace>>>>);

#[derive(Debug)]
struct Trace {
    file: String,
    path: PathBuf,
    of: String,
    value: String,
    started: SystemTime,
    progress: Mutex<Progress>,
    stop: Notify,
}

#[derive(Debug, Default)]
struct Progress {
    lines: u64,
    bytes: u64,
    dropped: u64,
    ended: Option<String>,
}

impl Trace {
    fn row(&self) -> Value {
        let progress = locked(&self.progress);
        json!({
            "file": self.file,
            "path": self.path.display().to_string(),
            "type": self.of,
            "value": self.value,
            "started_at": date_time(self.started),
            "lines": progress.lines,
            "bytes": progress.bytes,
            "dropped": progress.dropped,
            "status": progress.ended.as_deref().unwrap_or("running"),
        })
    }
}

async fn list(State(cx): State<Context>) -> Answer {
    let rows: Vec<Value> = locked(&cx.traces.0).iter().map(|trace| trace.row()).collect();
    Answer(json!({"code": 0, "data": rows}))
}

async fn start(State(cx): State<Context>, Body(body): Body) -> Result<Answer, Fault> {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let (of, value) = (text("type"), text("value"));
    let wanted = wanted(&of, &value)?;
    let file = match text("file") {
        name if name.is_empty() => default_name(&of, &value),
        name => checked_name(name)?,
    };
    let folder = cx.facts.data_dir.join("trace");
    let path = std::path::absolute(folder.join(&file)).unwrap_or_else(|_| folder.join(&file));
    let trace = Arc::new(Trace {
        file,
        path: path.clone(),
        of,
        value,
        started: SystemTime::now(),
        progress: Mutex::default(),
        stop: Notify::new(),
    });
    {
        let mut all = locked(&cx.traces.0);
        // One that has ended gives its name free.
        all.retain(|old| old.file != trace.file || locked(&old.progress).ended.is_none());
        if all.iter().any(|old| old.file == trace.file) {
            let text = format!("expected a file that no trace writes, got {:?}", trace.file);
            return Err(Fault::new(Cause::Conflict, text));
        }
        all.push(trace.clone());
    }
    let begun = begin(&cx.hub, wanted, &path).await;
    let (listening, file, bytes) = match begun {
        Ok(begun) => begun,
        Err(fault) => {
            locked(&cx.traces.0).retain(|other| !Arc::ptr_eq(other, &trace));
            return Err(fault);
        }
    };
    locked(&trace.progress).bytes = bytes;
    let row = trace.row();
    tokio::spawn(write(cx.clone(), trace, listening, file));
    Ok(Answer(json!({"code": 0, "data": row})))
}

async fn stop(State(cx): State<Context>, args: Args) -> Result<Answer, Fault> {
    let file = args.text("trace").unwrap_or_default();
    let mut all = locked(&cx.traces.0);
    let Some(at) = all.iter().position(|trace| trace.file == file) else {
        return Err(Fault::new(Cause::NotFound, format!("there is no trace {file:?}")));
    };
    all.remove(at).stop.notify_one();
    Ok(Answer(json!({"code": 0})))
}

fn wanted(of: &str, value: &str) -> Result<Wanted, Fault> {
    let kinds = [Kind::Packet].into_iter().collect();
    if of == "client" {
        return Ok(Wanted { kinds, client_id: Some(value.into()), topic: None });
    }
    Filter::new(value, 0)
        .map_err(|error| Fault::new(Cause::BadTopic, format!("value: expected a topic filter: {error}")))?;
    Ok(Wanted { kinds, client_id: None, topic: Some(value.into()) })
}

/// Begins to listen, and opens the file at its end.
async fn begin(hub: &Hub, wanted: Wanted, path: &Path) -> Result<(Listening, File, u64), Fault> {
    let place = path.to_owned();
    let open = move || -> std::io::Result<(File, u64)> {
        if let Some(folder) = place.parent() {
            create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&place)?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    };
    let opened = spawn_blocking(open).await.map_err(std::io::Error::other).flatten();
    let (file, bytes) = opened.map_err(|error| {
        Fault::new(
            Cause::Conflict,
            format!("{}: {error}; expected a file that can be written", path.display()),
        )
    })?;
    Ok((hub.listen(wanted).await?, file, bytes))
}

/// Writes lines until it is stopped, the file is full or cannot be written, or the broker stops.
async fn write(cx: Context, trace: Arc<Trace>, listening: Listening, mut file: File) {
    let ended = loop {
        let first = tokio::select! {
            news = listening.next() => news,
            () = trace.stop.notified() => break "stopped".to_owned(),
        };
        let (mut text, mut lines, mut dropped) = (String::new(), 0, 0);
        let mut next = Some(first);
        while let Some(news) = next {
            match news {
                News::Happened(happening) => {
                    lines += 1;
                    text.push_str(&line::line(&cx, &happening));
                }
                News::Missed(missed) => {
                    let count = missed.by_shards + missed.by_listener;
                    dropped += count;
                    text.push_str(&format!("{count} events found no room and may be missing here\n"));
                }
            }
            next = if text.len() < 65_536 { listening.ready() } else { None };
        }
        let bytes = text.len() as u64;
        let wrote = spawn_blocking(move || file.write_all(text.as_bytes()).map(|()| file)).await;
        let mut progress = locked(&trace.progress);
        match wrote.map_err(std::io::Error::other).flatten() {
            Ok(again) => file = again,
            Err(error) => break error.to_string(),
        }
        progress.lines += lines;
        progress.bytes += bytes;
        progress.dropped += dropped;
        if progress.bytes >= TRACE_FILE_BYTES_MAX {
            break format!("the file has {TRACE_FILE_BYTES_MAX} bytes, which is all that it may");
        }
    };
    locked(&trace.progress).ended = Some(ended);
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

/// A name of a file within the folder.
fn checked_name(name: String) -> Result<String, Fault> {
    if name.len() <= 128 && !name.starts_with('.') && name.chars().all(plain) {
        return Ok(name);
    }
    let text = "file: expected up to 128 letters, digits, `.`, `_` and `-`, not beginning with `.`";
    Err(Fault::new(Cause::BadValue, format!("{text}, got {name:?}")))
}

fn default_name(of: &str, value: &str) -> String {
    let value: String = value.chars().take(64).map(|c| if plain(c) { c } else { '_' }).collect();
    format!("{of}-{value}.log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_in_its_folder() {
        for name in ["../x", "a/b", ".hidden", "", "a b", "ä", &"x".repeat(129)] {
            assert_eq!(checked_name(name.to_owned()).is_ok(), name.is_empty(), "{name}");
        }
        assert_eq!(checked_name("one-2_3.log".to_owned()).as_deref(), Ok("one-2_3.log"));
        assert_eq!(default_name("topic", "a/+/#"), "topic-a____.log");
    }
}
