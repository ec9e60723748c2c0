//! The back-end that is asked over HTTP who may connect.

use super::client::{Backend, Client};
use crate::auth::http::{Answer, Ask, HttpOptions, Request, Subject};
use crate::auth::{Aging, Grant, Login, Verdict};
use crate::limits::AUTH_ANSWERS_MAX;
use crate::time::Moment;
use ring::hmac;
use rustls::ClientConfig;
use std::sync::{Arc, Mutex, PoisonError};

/// A digest of a question, which is one's password as well.
type Tag = [u8; 32];

/// Asks it.
pub(super) struct Http {
    options: HttpOptions,
    client: Client,
    auth: Backend,
    superuser: Backend,
    /// Answers that hold for a while, with their end.
    known: Mutex<Aging<Tag, (Moment, Answer)>>,
    key: hmac::Key,
}

impl Http {
    pub(super) fn new(options: &HttpOptions, tls: Option<Arc<ClientConfig>>, key: hmac::Key) -> Http {
        let period_ms = u64::from(options.cache_s.max(1)) * 1_000;
        Http {
            client: Client::new(tls, &options.headers, options.timeout_ms, options.connections),
            options: options.clone(),
            auth: Backend::new("auth.http_auth_url"),
            superuser: Backend::new("auth.http_superuser_url"),
            known: Mutex::new(Aging::new(AUTH_ANSWERS_MAX, period_ms)),
            key,
        }
    }

    /// What was answered to the same question a moment ago.
    pub(super) fn known(&self, login: &Login, now: Moment) -> Option<Verdict> {
        if self.options.cache_s == 0 {
            return None;
        }
        let tag = self.tag(&self.about(&self.options.auth, login)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, answer) = *known.find(&tag, now)?;
        (now < until).then(|| verdict(answer))
    }

    /// Asks whether a client may connect, and whether it may do everything.
    pub(super) async fn judge(&self, login: &Login, now: impl Fn() -> Moment) -> Verdict {
        // A password that is no text, where only texts can be told, is nobody's.
        let Some(request) = self.about(&self.options.auth, login) else { return Verdict::Wrong };
        let tag = self.tag(&request);
        let Some(mut answer) = self.client.ask(&self.auth, request, understood).await else {
            return Verdict::NoAnswer;
        };
        if answer == (Answer::Allow { superuser: false }) && self.options.superuser.is_on() {
            let request = self.about(&self.options.superuser, login);
            let told = match request {
                Some(request) => self.client.ask(&self.superuser, request, understood).await,
                None => Some(Answer::Deny),
            };
            let Some(told) = told else { return verdict(answer) };
            answer = Answer::Allow { superuser: matches!(told, Answer::Allow { .. }) };
        }
        if self.options.cache_s > 0 && answer != Answer::Busy {
            let now = now();
            let until = now.plus_s(u64::from(self.options.cache_s));
            self.known.lock().unwrap_or_else(PoisonError::into_inner).put(tag, (until, answer), now);
        }
        verdict(answer)
    }

    fn about(&self, ask: &Ask, login: &Login) -> Option<Request> {
        let subject = Subject {
            client_id: &login.client_id,
            username: login.username.as_deref(),
            password: login.password.as_deref(),
            from: login.from,
            deed: None,
        };
        ask.about(self.options.format, &subject)
    }

    /// Keyed, since a password may stand in it.
    fn tag(&self, request: &Request) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&request.url.len().to_le_bytes());
        context.update(request.url.as_bytes());
        context.update(&request.body);
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

/// What an answer means, where it is one.
fn understood(status: u16, body: &[u8]) -> Option<Answer> {
    Some(Answer::read(status, body)).filter(|answer| *answer != Answer::Broken)
}

fn verdict(answer: Answer) -> Verdict {
    match answer {
        Answer::Allow { superuser: false } => Verdict::Known(None),
        Answer::Allow { superuser } => {
            Verdict::Known(Some(Box::new(Grant { superuser, ..Grant::default() })))
        }
        Answer::Deny => Verdict::Wrong,
        Answer::Forbid => Verdict::Forbidden,
        Answer::Ignore => Verdict::Silent,
        Answer::Busy => Verdict::Busy,
        Answer::Broken => Verdict::NoAnswer,
    }
}
