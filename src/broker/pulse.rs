//! Whether all shards move on: each is asked now and then, and answers from within its tick.

use super::Broker;
use crate::shard::Command;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Who was asked and has not answered. Each shard has one question at a time, so nothing piles up for one that
/// stands still.
#[derive(Debug)]
pub struct Pulse {
    reply: Sender<usize>,
    replies: Receiver<usize>,
    asked: Vec<bool>,
    is_silent: bool,
}

impl Pulse {
    /// Nobody was asked yet.
    pub fn new(broker: &Broker) -> Pulse {
        let (reply, replies) = channel();
        Pulse { reply, replies, asked: vec![false; broker.shards.len()], is_silent: false }
    }

    /// Whether all shards have answered what they were asked the last time; those that have are asked again. The
    /// log says when one falls silent, and when all are back.
    pub fn beats(&mut self, broker: &Broker) -> bool {
        let was_silent = self.is_silent;
        for shard in self.replies.try_iter() {
            if let Some(asked) = self.asked.get_mut(shard) {
                *asked = false;
            }
        }
        self.is_silent = false;
        for (index, (shard, asked)) in broker.shards.iter().zip(&mut self.asked).enumerate() {
            if *asked {
                self.is_silent = true;
                if !was_silent {
                    tracing::error!(
                        "shard {index} does not answer: the watchdog is not told that all is well"
                    );
                }
                continue;
            }
            *asked = true;
            // A shard that is gone has raised the alarm.
            let _ = shard.commands.send(Command::Pulse { reply: self.reply.clone() });
            shard.waker.wake();
        }
        if was_silent && !self.is_silent {
            tracing::warn!("all shards answer again");
        }
        !self.is_silent
    }
}
