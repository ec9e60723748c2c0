//! The thread of one shard: from its driver to its farewell.

use super::*;

/// A thread has its driver: which shard it is, and how others reach it.
pub(super) type Taken = (usize, Address<Handover>, Waker);

/// What a thread needs to become a shard.
pub(super) struct Seat {
    pub me: usize,
    pub shards: usize,
    pub core: Option<usize>,
    pub seed: u64,
    pub mesh: Mesh,
    pub config: Config,
    pub entrances: Vec<Entrance>,
    pub chosen: Chosen,
    pub driver: DriverOptions,
    pub commands: Receiver<Command>,
    /// What the shard is told by those whom it asks comes as a command.
    pub own: Sender<Command>,
    pub policy: Arc<Policy>,
    pub connectors: Connectors,
    /// Where a listener has TLS.
    pub handshakes: Option<Handshakes>,
    pub ready: Sender<Result<Taken, String>>,
    pub peers: Receiver<Start>,
}

/// What a shard starts with: the addresses of all, and its part of what is kept.
pub(super) type Start = (Vec<Address<Handover>>, Option<shard::Disk>);

/// How a shard asks the connectors to judge a login.
fn asking(connectors: Connectors, own: Sender<Command>, waker: Waker) -> AskLogin {
    Box::new(move |login, conn| {
        let (own, waker) = (own.clone(), waker.clone());
        let reply = move |verdict| {
            // A shard that is gone needs no verdict.
            let _ = own.send(Command::Judged(conn, verdict));
            waker.wake();
        };
        connectors.judge(Question { login, reply: Box::new(reply) });
    })
}

/// How a shard asks the connectors what a client may do.
fn asking_rights(connectors: Connectors, own: Sender<Command>, waker: Waker) -> AskRights {
    Box::new(move |inquiry, conn| {
        let (own, waker) = (own.clone(), waker.clone());
        let answering = Answering::new(move |rulings| {
            // A shard that is gone needs none.
            let _ = own.send(Command::Ruled(conn, rulings));
            waker.wake();
        });
        connectors.rule(inquiry, answering);
    })
}

/// How a shard has steps of handshakes taken.
fn helping(mut handshakes: Handshakes, own: Sender<Command>, waker: Waker) -> Helpers {
    let take = move |transport, conn| {
        let (own, waker) = (own.clone(), waker.clone());
        let reply = move |stepped| {
            // A shard that is gone needs none.
            let _ = own.send(Command::Stepped(conn, Box::new(stepped)));
            waker.wake();
        };
        handshakes.take(Step { transport, reply: Box::new(reply) });
    };
    Helpers { places: SHARD_HANDSHAKES_MAX, take: Box::new(take) }
}

/// A shard's driver could not be built: why, and what to do.
fn no_driver(me: usize, chosen: &Chosen, error: &std::io::Error) -> String {
    let what = match error.raw_os_error() {
        // EMFILE and ENFILE, for which std has no name.
        Some(23 | 24) => "raise the limit of open files (ulimit -n), or use fewer shards (--shards)",
        _ if error.kind() == ErrorKind::OutOfMemory => {
            "raise the limit of locked memory (ulimit -l) or of the control group, or use fewer shards (--shards)"
        }
        _ => "use fewer shards (--shards), or the other driver (--io)",
    };
    format!("cannot start {} for shard {me}: {error}; {what}", chosen.name())
}

/// Tells when a shard's thread ends by a panic.
pub(super) struct Alarm {
    pub me: usize,
    pub alarm: watch::Sender<Option<String>>,
    pub ended: bool,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.ended {
            self.alarm.send_replace(Some(format!("shard {} ended by a fault of the broker", self.me)));
        }
    }
}

impl Seat {
    pub fn run(self, mut alarm: Alarm) -> Farewell {
        let nothing = || Farewell {
            counters: Counters::default(),
            memory: Memory::default(),
            ledger: Ledger::default(),
            driver: "not started".into(),
        };
        if let Some(core) = self.core
            && let Err(e) = pin_to_core(core)
        {
            tracing::warn!("shard {} is not pinned to core {core}: {e}", self.me);
        }
        let mut io = match self.driver() {
            Ok(io) => io,
            Err(e) => {
                alarm.ended = true;
                let _ = self.ready.send(Err(no_driver(self.me, &self.chosen, &e)));
                return nothing();
            }
        };
        let _ = self.ready.send(Ok((self.me, io.address(), io.waker())));
        drop(self.ready);
        let Ok((peers, store)) = self.peers.recv() else {
            alarm.ended = true;
            return nothing();
        };
        io.set_peers(peers);
        let helpers = self.handshakes.map(|ways| helping(ways, self.own.clone(), io.waker()));
        let ask_rights = asking_rights(self.connectors.clone(), self.own.clone(), io.waker());
        let ask_login = asking(self.connectors, self.own, io.waker());
        let shard = Shard::new(Parts {
            io,
            mesh: self.mesh,
            me: self.me as u16,
            shards: self.shards,
            keyed: Keyed::new(self.seed),
            seed: self.seed.rotate_left(7 * self.me as u32 + 1),
            options: self.config.mqtt.clone(),
            policy: self.policy,
            ask_login: Some(ask_login),
            ask_rights: Some(ask_rights),
            helpers,
            entrances: self.entrances,
            log_lines_per_s: self.config.log.shard_lines_per_s,
            commands: self.commands,
            fan_out_at_once: FAN_OUT_AT_ONCE_MAX,
            tick_deliveries: TICK_DELIVERIES_MAX,
            route_key_mask: u64::MAX,
            store,
        });
        let farewell = shard.run();
        alarm.ended = true;
        farewell
    }

    /// Builds the driver. The kernel gives the locked memory of a process back a moment after its end, so that
    /// a broker that is restarted tries again.
    fn driver(&self) -> std::io::Result<Driver<Handover>> {
        for _ in 1..DRIVER_TRIES_MAX {
            match Driver::new(&self.chosen, &self.driver) {
                Err(e) if e.kind() == ErrorKind::OutOfMemory => {
                    std::thread::sleep(Duration::from_millis(DRIVER_RETRY_MS));
                }
                other => return other,
            }
        }
        Driver::new(&self.chosen, &self.driver)
    }
}
