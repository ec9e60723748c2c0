//! `/api/v4/events`: what happens, as server-sent events.

use super::{Listening, News, Wanted, line};
use crate::api::Context;
use crate::api::dialect::Dialect;
use crate::api::endpoint::{Args, ENDPOINT, Endpoint, Reply};
use crate::api::fault::{Cause, Fault};
use crate::api::serve::{Stay, stopped};
use crate::api::shape::{Shape, may};
use crate::desk::{Kind, Kinds};
use crate::limits::{EVENTS_SILENCE_MS, EVENTS_STALL_MS_MAX};
use crate::topic::Filter;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Extension, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Frame;
use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// The stream.
pub const ENDPOINTS: &[Endpoint] = &[Endpoint {
    dialects: &[Dialect::V4],
    path: "/events",
    name: "stream_events",
    about: "What happens, as server-sent events, from the moment of the answer on: connected, disconnected, refused, \
            subscribed, unsubscribed, session_created, session_ended, and packet for a client or topic that is \
            traced as long as the stream lasts. `dropped` says how many are missing.",
    query: &[
        may("types", Shape::Name, "Kinds of events, with commas between them; all but packet without it."),
        may("clientid", Shape::Name, "Only events of this client."),
        may("topic", Shape::Name, "Of events with a topic, only those that this filter matches."),
        may("count", Shape::Integer(1, i64::MAX), "Ends after so many events."),
        may("seconds", Shape::Integer(1, 1 << 32), "Ends after so many seconds."),
    ],
    answer: Reply::Other("text/event-stream"),
    causes: &[Cause::BadTopic],
    serve: || get(stream),
    ..ENDPOINT
}];

async fn stream(
    State(cx): State<Context>,
    stay: Option<Extension<Stay>>,
    args: Args,
) -> Result<Response, Fault> {
    let wanted = wanted(&args)?;
    let until = args.number("seconds").map(|s| Instant::now() + Duration::from_secs(s));
    let count = args.number("count").unwrap_or(u64::MAX);
    let listening = cx.hub.listen(wanted).await?;
    let (pieces, body) = mpsc::channel(1);
    let stay = stay.map(|Extension(stay)| stay);
    tokio::spawn(Stream { cx, listening, pieces, stay }.run(count, until));
    Ok(([(CONTENT_TYPE, "text/event-stream")], Body::new(Pieces(body))).into_response())
}

/// What a query asks for.
fn wanted(args: &Args) -> Result<Wanted, Fault> {
    let text = |name: &str| args.text(name).map(Box::<str>::from);
    let (client_id, topic) = (text("clientid"), text("topic"));
    let kinds: Kinds = match args.text("types") {
        None => Kind::TABLE.iter().map(|(kind, ..)| *kind).filter(|kind| *kind != Kind::Packet).collect(),
        Some(names) => names.split(',').map(kind).collect::<Result<_, _>>()?,
    };
    if let Some(topic) = &topic {
        Filter::new(topic, 0).map_err(|error| {
            Fault::new(Cause::BadTopic, format!("topic: expected a topic filter: {error}"))
        })?;
    }
    if kinds.has(Kind::Packet) && client_id.is_none() && topic.is_none() {
        return Err(Fault::new(Cause::BadValue, "types: packet needs clientid or topic"));
    }
    Ok(Wanted { kinds, client_id, topic })
}

fn kind(name: &str) -> Result<Kind, Fault> {
    Kind::of(name).ok_or_else(|| {
        let names: Vec<&str> = Kind::TABLE.iter().map(|(_, name, _)| *name).collect();
        Fault::new(Cause::BadValue, format!("types: expected some of {}, got {name:?}", names.join(",")))
    })
}

/// One stream.
struct Stream {
    cx: Context,
    listening: Listening,
    pieces: mpsc::Sender<Bytes>,
    stay: Option<Stay>,
}

impl Stream {
    /// Writes events until so many were written, until then, until the broker has stopped, or until its client is
    /// gone or does not read.
    async fn run(self, mut count: u64, until: Option<Instant>) {
        if let Some(stay) = &self.stay {
            stay.set(true);
        }
        let (mut number, mut ends, mut state) = (0, false, self.cx.state.clone());
        // At once, so that a client sees the head of the answer.
        let mut piece = String::from(": listening\n\n");
        let end = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let mut end = std::pin::pin!(end);
        loop {
            let sent = self.pieces.send(Bytes::from(std::mem::take(&mut piece)));
            let whole = timeout(Duration::from_millis(EVENTS_STALL_MS_MAX), sent).await;
            if ends || count == 0 || !matches!(whole, Ok(Ok(()))) {
                break;
            }
            let silence = Duration::from_millis(EVENTS_SILENCE_MS);
            let news = tokio::select! {
                news = timeout(silence, self.listening.next()) => news.ok(),
                () = self.pieces.closed() => break,
                () = &mut end => break,
                // With what is there, which the shards told at their end.
                () = stopped(&mut state) => {
                    ends = true;
                    self.listening.ready()
                }
            };
            let Some(mut news) = news else {
                piece.push_str(": nothing happened\n\n");
                continue;
            };
            // With what else is there, up to some tens of kilobytes in one piece.
            loop {
                number += 1;
                count -= u64::from(matches!(news, News::Happened(_)));
                self.write(&mut piece, number, &news);
                if count == 0 || piece.len() > 32_768 {
                    break;
                }
                let Some(more) = self.listening.ready() else { break };
                news = more;
            }
        }
        if let Some(stay) = &self.stay {
            stay.set(false);
        }
    }

    fn write(&self, piece: &mut String, number: u64, news: &News) {
        let (name, data) = match news {
            News::Happened(happening) => (happening.what.kind().name(), line::event(&self.cx, happening)),
            News::Missed(missed) => ("dropped", line::missed(*missed)),
        };
        // Into a text, which does not fail.
        let _ = write!(piece, "id: {number}\nevent: {name}\ndata: {data}\n\n");
    }
}

/// The body of an answer that is written piece by piece.
struct Pieces(mpsc::Receiver<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(task).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
