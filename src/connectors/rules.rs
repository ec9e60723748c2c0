//! The back-end that is asked over HTTP what clients may do. It has connections of its own, so that a flood of logins
//! leaves room for those who are connected.

use super::client::{Backend, Client};
use crate::auth::http::{Answer, HttpOptions, Subject, Wanted};
use crate::auth::{Inquiry, Policy, Ruling};
use crate::limits::{AUTH_WAIT_MS, INQUIRIES_ALL_MAX};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

type Reply = Box<dyn FnOnce(Box<[Ruling]>) + Send>;

/// The way back to whoever asks what a client may do. It is told once: also where whoever was asked is gone, and then
/// nothing.
pub struct Answering(Option<Reply>);

impl Answering {
    /// `reply` is called on any thread, and must not block.
    pub fn new(reply: impl FnOnce(Box<[Ruling]>) + Send + 'static) -> Answering {
        Answering(Some(Box::new(reply)))
    }

    fn answer(mut self, rulings: Box<[Ruling]>) {
        if let Some(reply) = self.0.take() {
            reply(rulings);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply(Box::default());
        }
    }
}

/// Judges rights.
pub(super) struct Rules {
    backend: Option<Arc<Asked>>,
    /// A place for each inquiry under way.
    places: Arc<Semaphore>,
}

/// The back-end of one policy.
struct Asked {
    options: HttpOptions,
    client: Client,
    backend: Backend,
}

impl Rules {
    pub(super) fn new(policy: &Policy) -> Rules {
        Rules { backend: Asked::of(policy), places: Arc::new(Semaphore::new(INQUIRIES_ALL_MAX)) }
    }

    /// Inquiries from now on are answered by another policy.
    pub(super) fn adopt(&mut self, policy: &Policy) {
        self.backend = Asked::of(policy);
    }

    /// Answers an inquiry, later.
    pub(super) fn judge(&self, inquiry: Inquiry, answering: Answering) {
        // Where there is no place, or nobody to ask, dropping it says so.
        let (Ok(place), Some(asked)) = (self.places.clone().try_acquire_owned(), self.backend.clone()) else {
            return;
        };
        tokio::spawn(async move {
            let _place = place;
            let rulings = match &*inquiry.topics {
                [topic] => Box::from([asked.rule(&inquiry, topic).await]),
                _ => asked.rule_all(inquiry).await,
            };
            answering.answer(rulings);
        });
    }
}

impl Asked {
    fn of(policy: &Policy) -> Option<Arc<Asked>> {
        let options = &policy.http;
        policy.asks_rules().then(|| {
            let client =
                Client::new(policy.tls.clone(), &options.headers, options.timeout_ms, options.connections);
            let backend = Backend::new("auth.http_acl_url");
            Arc::new(Asked { options: options.clone(), client, backend })
        })
    }

    /// Asks about all topics at once; the answers are in their order.
    async fn rule_all(self: Arc<Asked>, inquiry: Inquiry) -> Box<[Ruling]> {
        let inquiry = Arc::new(inquiry);
        let mut rulings: Box<[Ruling]> = inquiry.topics.iter().map(|_| Ruling::NoAnswer).collect();
        let mut under_way = JoinSet::new();
        for at in 0..inquiry.topics.len() {
            let (asked, inquiry) = (self.clone(), inquiry.clone());
            under_way.spawn(async move { (at, asked.rule(&inquiry, &inquiry.topics[at]).await) });
        }
        while let Some(done) = under_way.join_next().await {
            // A panic in it was reported where it happened, and is no answer.
            if let Ok((at, ruling)) = done {
                rulings[at] = ruling;
            }
        }
        rulings
    }

    async fn rule(&self, inquiry: &Inquiry, topic: &str) -> Ruling {
        let deed = Wanted { access: inquiry.access, topic, mount: &inquiry.mount };
        let subject = Subject {
            client_id: &inquiry.client_id,
            username: inquiry.username.as_deref(),
            password: None,
            from: inquiry.from,
            deed: Some(deed),
        };
        let Some(request) = self.options.acl.about(self.options.format, &subject) else {
            return Ruling::NoAnswer;
        };
        let asked = self.client.ask(&self.backend, request, understood);
        // After that nobody waits for the answer.
        let told = timeout(Duration::from_millis(AUTH_WAIT_MS), asked).await;
        told.ok().flatten().unwrap_or(Ruling::NoAnswer)
    }
}

/// What an answer means, where it is one. Behind a back-end that has nothing to say there is nobody else to ask.
fn understood(status: u16, body: &[u8]) -> Option<Ruling> {
    match Answer::read(status, body) {
        Answer::Allow { .. } => Some(Ruling::Allow),
        Answer::Deny | Answer::Forbid | Answer::Ignore => Some(Ruling::Deny),
        // It works, and says nothing.
        Answer::Busy => Some(Ruling::NoAnswer),
        Answer::Broken => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_a_login() {
        for (status, body, ruling) in [
            (200, "", Some(Ruling::Allow)),
            (204, "", Some(Ruling::Allow)),
            (200, r#"{"result": "allow"}"#, Some(Ruling::Allow)),
            (200, r#"{"result": "deny"}"#, Some(Ruling::Deny)),
            (200, "ignore", Some(Ruling::Deny)),
            (401, "", Some(Ruling::Deny)),
            (403, "", Some(Ruling::Deny)),
            (404, "", Some(Ruling::Deny)),
            (429, "", Some(Ruling::NoAnswer)),
            (500, "", None),
            (302, "", None),
        ] {
            assert_eq!(understood(status, body.as_bytes()), ruling, "{status} {body}");
        }
    }

    #[test]
    fn whoever_waits_is_told_once_also_where_nobody_answers() {
        let (told, answers) = std::sync::mpsc::channel();
        let sender = told.clone();
        Answering::new(move |rulings| sender.send(rulings).unwrap()).answer(Box::from([Ruling::Allow]));
        drop(Answering::new(move |rulings| told.send(rulings).unwrap()));
        let all: Vec<_> = answers.iter().map(|rulings| rulings.to_vec()).collect();
        assert_eq!(all, [vec![Ruling::Allow], vec![]]);
    }
}
