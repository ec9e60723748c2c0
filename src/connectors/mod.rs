//! What waits for others or takes long, on threads of its own and never on a shard: hashes of passwords, back-ends that
//! are asked over HTTP, and steps of TLS handshakes.
//!
//! One thread runs a runtime; hashes are computed on a few more, with a low priority, so that the shards keep
//! their cores. A shard hands a login over, or a question about a client's rights, and goes on; the answer comes back as a
//! command. Whatever is asked, the number of those under way has a bound, and whoever waited too long to be answered costs
//! nothing more.

mod client;
mod handshakes;
mod http;
mod jwks;
mod logins;
mod rules;

pub use handshakes::{Handshakes, Step};
pub use rules::Answering;

use crate::auth::{Inquiry, Login, Policy, Verdict};
use crate::limits::{AUTH_LOGINS_MAX, AUTH_RESOLVERS, CONNECTOR_NICE, INQUIRIES_ALL_MAX};
use logins::Logins;
use rules::Rules;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A login with the way back to whoever asked.
pub struct Question {
    /// Who wants to connect.
    pub login: Login,
    /// Told the verdict, once, on any thread. It must not block.
    pub reply: Box<dyn FnOnce(Verdict) + Send>,
}

enum Order {
    Judge(Question),
    Rule(Inquiry, Answering),
    Policy(Arc<Policy>),
}

/// Asks the connectors. They end when the last of these is gone.
#[derive(Clone)]
pub struct Connectors {
    orders: mpsc::Sender<Order>,
}

impl std::fmt::Debug for Connectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connectors")
    }
}

/// The calling thread leaves its core to others that want it. Where that is refused, it stays as it was.
fn stay_behind() {
    let _ = crate::io::lower_priority(CONNECTOR_NICE);
}

impl Connectors {
    /// Starts the threads.
    ///
    /// # Errors
    /// What could not be had, in one line.
    pub fn start(policy: Arc<Policy>) -> Result<Connectors, String> {
        let fault = |error: std::io::Error| {
            format!("cannot start the connectors: {error}; raise the limit on threads")
        };
        let hashing = (crate::io::available_cores().len() / 2).max(1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(hashing + AUTH_RESOLVERS)
            .thread_name("connectors")
            .on_thread_start(stay_behind)
            .enable_all()
            .build()
            .map_err(fault)?;
        let (orders, inbox) = mpsc::channel(AUTH_LOGINS_MAX + INQUIRIES_ALL_MAX);
        let rules = Rules::new(&policy);
        let logins = Logins::new(policy, hashing)?;
        let run = move || runtime.block_on(serve(logins, rules, inbox));
        std::thread::Builder::new().name("connectors".to_owned()).spawn(run).map_err(fault)?;
        Ok(Connectors { orders })
    }

    /// Hands a login over. Never blocks; where too many are under way, the verdict is that they are.
    pub fn judge(&self, question: Question) {
        if let Err(refused) = self.orders.try_send(Order::Judge(question))
            && let Order::Judge(question) = refused.into_inner()
        {
            (question.reply)(Verdict::Busy);
        }
    }

    /// Hands over what is asked about a client's rights. Never blocks; where too much is under way, nothing is said.
    pub fn rule(&self, inquiry: Inquiry, answering: Answering) {
        // What is refused is dropped, which answers it.
        let _ = self.orders.try_send(Order::Rule(inquiry, answering));
    }

    /// Another policy holds for logins and inquiries that come from now on. Waits for room, so it is for the management thread.
    pub async fn adopt(&self, policy: Arc<Policy>) {
        // Where they are gone, there is nobody who would ask them.
        let _ = self.orders.send(Order::Policy(policy)).await;
    }
}

async fn serve(mut logins: Logins, mut rules: Rules, mut inbox: mpsc::Receiver<Order>) {
    logins.attend();
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Judge(question) => logins.judge(question),
            Order::Rule(inquiry, answering) => rules.judge(inquiry, answering),
            Order::Policy(policy) => {
                rules.adopt(&policy);
                logins.adopt(policy);
            }
        }
    }
}
