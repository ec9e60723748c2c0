//! MQTT's rules as they hold here: those of everybody, and those of each listener.

use crate::listener::{Entrance, Listener};
use crate::session::Options;

/// The options of the whole broker, to which it dereferences, and the listeners by number.
#[derive(Debug, Default)]
pub(super) struct Rules {
    common: Options,
    entrances: Vec<Entrance>,
    /// Whether any listener has rules of its own.
    zoned: bool,
}

impl Rules {
    pub fn new(common: Options, entrances: Vec<Entrance>) -> Rules {
        let zoned = entrances.iter().any(|entrance| entrance.zone.is_some());
        Rules { common, entrances, zoned }
    }

    /// The rules for who came through a listener.
    #[inline]
    pub fn of(&self, listener: u8) -> &Options {
        if !self.zoned {
            return &self.common;
        }
        let zone = self.entrance(listener).and_then(|entrance| entrance.zone.as_deref());
        zone.unwrap_or(&self.common)
    }

    /// A listener; none where a shard was told of none, as in a simulation.
    pub fn entrance(&self, listener: u8) -> Option<&Entrance> {
        self.entrances.get(usize::from(listener))
    }

    /// What a listener was told.
    pub fn listener(&self, listener: u8) -> Option<&Listener> {
        self.entrance(listener).map(|entrance| &entrance.listener)
    }
}

impl std::ops::Deref for Rules {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.common
    }
}

#[cfg(test)]
impl std::ops::DerefMut for Rules {
    fn deref_mut(&mut self) -> &mut Options {
        &mut self.common
    }
}
