//! Shards with clients, in one thread and without a kernel: rounds of messages through whole ticks.

use super::packets::{self, PAYLOAD_BYTES};
use super::wire::Wire;
use ringmq::codec::{AckKind, Framed, PacketId, Version, frame};
use ringmq::io::{Conn, ShardId};
use ringmq::map::Keyed;
use ringmq::mesh::{Mesh, mesh};
use ringmq::message::QoS;
use ringmq::session::Options;
use ringmq::shard::{Parts, Shard};
use std::time::{Duration, Instant};

/// Who publishes what to whom. All clients speak 3.1.1, as load tools do.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub publishers: usize,
    /// Each on a topic of its own where there are as many as publishers; else all on all topics.
    pub subscribers: usize,
    pub qos: QoS,
    /// All subscribers are members of one share group.
    pub shared: bool,
    /// Messages that each publisher sends in a round, in one receive.
    pub window: u16,
    /// Deliveries that a round makes.
    pub deliveries: usize,
    /// Shards; with more than one a publisher's subscriber lives on the next one, and every message crosses.
    pub shards: u16,
}

impl Flow {
    /// `pairs` publishers with a subscriber each.
    pub fn pairs(pairs: usize, qos: QoS, window: u16) -> Flow {
        let deliveries = pairs * usize::from(window);
        Flow { publishers: pairs, subscribers: pairs, qos, shared: false, window, deliveries, shards: 1 }
    }

    /// The same clients on as many shards.
    pub fn over(self, shards: u16) -> Flow {
        Flow { shards, ..self }
    }

    /// One publisher, many subscribers.
    pub fn fan_out(subscribers: usize) -> Flow {
        let deliveries = 4 * subscribers;
        Flow {
            publishers: 1,
            subscribers,
            qos: QoS::AtMostOnce,
            shared: false,
            window: 4,
            deliveries,
            shards: 1,
        }
    }

    /// Many publishers, a share group of a few.
    pub fn shared(publishers: usize, members: usize) -> Flow {
        let deliveries = 4 * publishers;
        let qos = QoS::AtLeastOnce;
        Flow { publishers, subscribers: members, qos, shared: true, window: 4, deliveries, shards: 1 }
    }
}

/// Shards and the clients of a flow.
pub struct Rig {
    shards: Vec<Shard<Wire>>,
    wires: Vec<Wire>,
    /// The shard of each client and its connection there, publishers first.
    clients: Vec<(usize, Conn)>,
    flow: Flow,
    /// What each publisher sends in a round.
    rounds: Vec<Vec<u8>>,
    scratch: Vec<u8>,
    answer: Vec<u8>,
    spent: Duration,
    delivered: usize,
}

const VERSION: Version = Version::V311;
/// Of the hash that says where a client lives.
const SECRET: u64 = 1;

/// A client identifier that lives on this shard.
fn client_of(n: usize, shard: usize, shards: usize) -> String {
    let keyed = Keyed::new(SECRET);
    let mut names = (0..).map(|turn| format!("client-{n}-{turn}"));
    names.find(|name| keyed.home(name, shards) == shard).expect("one in as many as there are shards")
}

impl Rig {
    /// Connects and subscribes everybody, and runs a few rounds, after which the shard reads as it does under
    /// load.
    pub fn new(flow: Flow) -> Rig {
        let wires: Vec<Wire> = (0..flow.shards).map(|_| Wire::default()).collect();
        let parts = |(me, (io, mesh)): (usize, (&Wire, Mesh))| Parts {
            io: io.clone(),
            mesh,
            me: me as ShardId,
            shards: usize::from(flow.shards),
            keyed: Keyed::new(SECRET),
            seed: 1,
            options: Options { max_inflight: 64, anonymous_local_only: false, ..Options::default() },
            policy: Default::default(),
            ask_login: None,
            ask_rights: None,
            helpers: None,
            entrances: Vec::new(),
            log_lines_per_s: 0,
            commands: std::sync::mpsc::channel().1,
            fan_out_at_once: ringmq::limits::FAN_OUT_AT_ONCE_MAX,
            tick_deliveries: ringmq::limits::TICK_DELIVERIES_MAX,
            route_key_mask: u64::MAX,
            store: None,
        };
        let ends = wires.iter().zip(mesh(usize::from(flow.shards))).enumerate();
        let shards = ends.map(|end| Shard::new(parts(end))).collect();
        let mut rig = Rig {
            shards,
            wires,
            clients: Vec::new(),
            flow,
            rounds: Vec::new(),
            scratch: Vec::new(),
            answer: Vec::new(),
            spent: Duration::ZERO,
            delivered: 0,
        };
        rig.populate();
        for _ in 0..8 {
            rig.round();
        }
        rig
    }

    fn populate(&mut self) {
        let flow = self.flow;
        let own = flow.publishers == flow.subscribers;
        for n in 0..flow.publishers + flow.subscribers {
            // A subscriber's neighbour publishes to it, so that with several shards nobody is served at home.
            let shard = (n + usize::from(n >= flow.publishers)) % self.shards.len();
            let conn = self.wires[shard].0.borrow_mut().open();
            self.clients.push((shard, conn));
            self.shards[shard].work(None);
            self.put(n, &packets::connect(VERSION, &client_of(n, shard, self.shards.len())));
            if n < flow.publishers {
                let topic = if own { format!("bench/{n}/up") } else { "bench/all/up".to_owned() };
                let payload = [b'x'; PAYLOAD_BYTES];
                let round = (1..=flow.window)
                    .flat_map(|id| packets::publish(VERSION, &topic, flow.qos, id, &payload))
                    .collect();
                self.rounds.push(round);
            } else {
                let (client, n) = (n, n - flow.publishers);
                let filter = if own { format!("bench/{n}/up") } else { "bench/all/up".to_owned() };
                let filter = if flow.shared { format!("$share/all/{filter}") } else { filter };
                self.settle(|tick| tick());
                self.put(client, &packets::subscribe(VERSION, &filter, flow.qos));
            }
            self.settle(|tick| tick());
        }
    }

    /// Each publisher sends a window, and everything is delivered and acknowledged. Time spent in ticks.
    pub fn round(&mut self) -> Duration {
        self.round_by(|tick| tick())
    }

    /// The same; `by` is to run each tick that it is given.
    pub fn round_by(&mut self, by: fn(&mut dyn FnMut())) -> Duration {
        (self.spent, self.delivered) = (Duration::ZERO, 0);
        for publisher in 0..self.flow.publishers {
            let (shard, conn) = self.clients[publisher];
            self.wires[shard].0.borrow_mut().put(conn, &self.rounds[publisher]);
        }
        self.settle(by);
        assert_eq!(self.delivered, self.flow.deliveries, "deliveries of a round");
        // A round takes a millisecond of the shard's time.
        for wire in &self.wires {
            let now = wire.0.borrow().now;
            wire.0.borrow_mut().now = now.plus_ms(1);
        }
        self.spent
    }

    /// A client of the first shard subscribes to new filters; `by` is to run the ticks in which the second shard
    /// hears of them.
    pub fn storm(&mut self, filters: impl Iterator<Item = String>, by: fn(&mut dyn FnMut())) {
        for filter in filters {
            self.put(0, &packets::subscribe(VERSION, &filter, QoS::AtMostOnce));
        }
        while !self.wires[0].0.borrow().is_quiet() {
            self.shards[0].work(None);
            by(&mut || self.shards[1].work(None));
        }
        self.settle(|tick| tick());
    }

    fn put(&mut self, client: usize, bytes: &[u8]) {
        let (shard, conn) = self.clients[client];
        self.wires[shard].0.borrow_mut().put(conn, bytes);
    }

    /// Ticks, and answers as clients do, until nothing moves.
    fn settle(&mut self, by: fn(&mut dyn FnMut())) {
        // What a shard hands to one that had its tick before is seen a pass later.
        let quiet_passes = if self.shards.len() > 1 { 2 } else { 1 };
        let mut quiet = 0;
        while quiet < quiet_passes {
            let began = Instant::now();
            self.shards.iter_mut().for_each(|shard| by(&mut || shard.work(None)));
            self.spent += began.elapsed();
            for client in 0..self.clients.len() {
                self.answer(client);
            }
            quiet = if self.wires.iter().all(|wire| wire.0.borrow().is_quiet()) { quiet + 1 } else { 0 };
        }
    }

    /// One client reads what it was sent, and acknowledges.
    fn answer(&mut self, client: usize) {
        let (shard, conn) = self.clients[client];
        self.wires[shard].0.borrow_mut().take(conn, &mut self.scratch);
        self.answer.clear();
        let mut rest = &self.scratch[..];
        while let Ok(Framed::Packet { header, total }) = frame(rest, u32::MAX) {
            let (packet, after) = rest.split_at(total);
            rest = after;
            let id = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            let (kind, id) = match packet[0] >> 4 {
                3 => {
                    self.delivered += 1;
                    let topic_len = usize::from(id(header));
                    match packet[0] >> 1 & 3 {
                        0 => continue,
                        1 => (AckKind::PubAck, id(header + 2 + topic_len)),
                        _ => (AckKind::PubRec, id(header + 2 + topic_len)),
                    }
                }
                5 => (AckKind::PubRel, id(header)),
                6 => (AckKind::PubComp, id(header)),
                _ => continue,
            };
            let id = PacketId::new(id).expect("the shard numbers packets from 1");
            self.answer.extend(packets::ack(VERSION, kind, id));
        }
        assert!(rest.is_empty(), "the shard sends whole packets");
        if !self.answer.is_empty() {
            self.wires[shard].0.borrow_mut().put(conn, &self.answer);
        }
    }
}
