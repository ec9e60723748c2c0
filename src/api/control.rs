//! What the API asks of the thread that runs the broker: settings, and the end. Plain data; the configuration knows
//! the keys.

use super::fault::{Cause, Fault};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

/// One thing that is asked.
#[derive(Debug)]
pub enum Order {
    /// What the settings are.
    Settings(oneshot::Sender<Settings>),
    /// Changes settings, all of them or none.
    Change {
        /// Names, as NanoMQ's `reload` or the configuration has them, with values.
        wanted: Map<String, Value>,
        /// Whether they outlive a restart.
        keep: bool,
        /// What was changed, or why nothing was.
        reply: oneshot::Sender<Result<Vec<String>, Refused>>,
    },
    /// Reads the configuration again, as SIGHUP does. The reply comes when all shards have it.
    Reread(oneshot::Sender<Result<(), Refused>>),
    /// Ends the broker as SIGTERM does, or starts it again with its sockets open.
    End {
        /// Again afterwards.
        restart: bool,
        /// That it is about to, or why not.
        reply: oneshot::Sender<Result<(), Refused>>,
    },
}

/// The settings as they are.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Under the names of NanoMQ's `reload`.
    pub documented: Map<String, Value>,
    /// Every key of the configuration; secrets are covered.
    pub keys: Map<String, Value>,
}

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// What was asked for cannot be.
    Bad(String),
    /// It failed on our side.
    Failed(String),
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Fault {
        match refused {
            Refused::Bad(what) => Fault::new(Cause::BadValue, what),
            Refused::Failed(what) => Fault::new(Cause::Internal, what),
        }
    }
}

/// Gives an order and waits for its reply.
///
/// # Errors
/// [`Cause::Away`] when the broker stops meanwhile.
pub(super) async fn order<T>(
    orders: &mpsc::Sender<Order>,
    make: impl FnOnce(oneshot::Sender<T>) -> Order,
) -> Result<T, Fault> {
    let (reply, answer) = oneshot::channel();
    orders.send(make(reply)).await.map_err(|_| Cause::Away)?;
    Ok(answer.await.map_err(|_| Cause::Away)?)
}
