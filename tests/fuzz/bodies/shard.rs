//! Two whole shards, of production code, on sockets in memory: clients send what the input says, packets as they
//! should be and any other bytes. Nothing may panic, clients get only what a server may send, and once all clients
//! are gone and all time has passed, nothing is left.

use super::input::Input;
use super::kernel::{MemoryIo, Net, SharedNet};
use super::peer::Peer;
use ringmq::map::Keyed;
use ringmq::mesh::mesh_sized;
use ringmq::session::{Options, QueueFull, SharedStrategy};
use ringmq::shard::{Parts, Shard};
use ringmq::time::Moment;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};

const SHARDS: usize = 2;
/// Connections at a time.
const PEERS: usize = 5;
/// Operations of one input at most.
const STEPS_MAX: usize = 300;
/// Ticks that a shard may need until nothing is left to do: a livelock is above it.
const REST_TICKS_MAX: usize = 20_000;
/// Longer than anything that was asked for lasts: sessions are capped at 60 s.
const FOR_EVER_MS: u64 = 200_000;
const STEP_MS: u64 = 4_000;

struct Node {
    shard: Shard<MemoryIo>,
    /// What `prepare` returned: awake, or asleep until then.
    deadline: Option<Moment>,
    _commands: Sender<ringmq::shard::Command>,
}

struct World {
    net: SharedNet,
    nodes: Vec<Node>,
    peers: Vec<Option<Peer>>,
}

pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let op = input.byte();
        world.act(op & 0x0F, &mut input);
        // Mostly, everything runs until it rests; sometimes things pile up first.
        if op & 0x80 == 0 {
            world.rest();
        }
    }
    world.end();
}

fn options(input: &mut Input<'_>) -> Options {
    let bits = input.byte();
    Options {
        queue_full: [QueueFull::DropOldest, QueueFull::Reject, QueueFull::Disconnect][usize::from(bits) % 3],
        shared_strategy: SharedStrategy::NAMES[usize::from(bits / 3) % SharedStrategy::NAMES.len()].1,
        max_packet_size: 4_096,
        max_inflight: 3,
        max_mqueue: 4,
        max_mqueue_bytes: 8_192,
        max_awaiting_rel: 2,
        session_expiry_s: 60,
        session_expiry_max_s: 60,
        max_topic_alias: 2,
        max_subscriptions: 6,
        max_output_bytes: 4_096,
        max_retained: 3,
        check_payload_format: true,
        anonymous_local_only: false,
        ..Options::default()
    }
}

impl World {
    fn new(input: &mut Input<'_>) -> World {
        let net = Rc::new(RefCell::new(Net::new(SHARDS)));
        let options = options(input);
        let keyed = Keyed::new(7);
        let nodes = mesh_sized(SHARDS, 4, 2).into_iter().enumerate().map(|(me, mesh)| {
            let (_commands, commands) = channel();
            let mut shard = Shard::new(Parts {
                io: MemoryIo { net: net.clone(), me },
                mesh,
                me: me as u16,
                shards: SHARDS,
                keyed: keyed.clone(),
                seed: 1 + me as u64,
                options: options.clone(),
                policy: Default::default(),
                ask_login: None,
                ask_rights: None,
                helpers: None,
                entrances: Vec::new(),
                log_lines_per_s: 0,
                commands,
                fan_out_at_once: 2,
                tick_deliveries: 50,
                route_key_mask: u64::MAX,
                store: None,
            });
            Node { deadline: shard.prepare(), shard, _commands }
        });
        World { nodes: nodes.collect(), net, peers: (0..PEERS).map(|_| None).collect() }
    }

    fn act(&mut self, op: u8, input: &mut Input<'_>) {
        let at = input.below(PEERS);
        let net = &mut *self.net.borrow_mut();
        let Some(peer) = &mut self.peers[at] else {
            // Whatever is asked of a client that is not there: it comes.
            let (shard, piece) = (input.below(SHARDS), input.pick(&[4_096, 64, 7, 1]));
            let mut peer = Peer::new(net.open(shard, piece));
            if op & 1 == 0 {
                peer.packet(&mut net.sockets[peer.socket], input);
            }
            self.peers[at] = Some(peer);
            return;
        };
        let socket = &mut net.sockets[peer.socket];
        match op {
            0..6 => peer.packet(socket, input),
            6 => {
                let len = usize::from(input.byte());
                peer.send(socket, input.take(len));
            }
            7..10 => peer.look(socket, true),
            10 => socket.stalled = !socket.stalled,
            11 => {
                socket.ended = true;
                peer.look(socket, false);
                self.peers[at] = None;
            }
            12 => {
                socket.reset = true;
                peer.look(socket, false);
                self.peers[at] = None;
            }
            13 | 14 => net.now += input.pick(&[1, 10, 100, 1_000, 3_000, 10_000, 61_000]),
            _ => drop(input.byte()),
        }
    }

    fn is_runnable(&self, at: usize) -> bool {
        let net = self.net.borrow();
        self.nodes[at].deadline.is_none_or(|until| until.0 <= net.now) || net.is_due(at)
    }

    /// Runs shards until none has anything to do at this moment.
    fn rest(&mut self) {
        for _ in 0..REST_TICKS_MAX {
            let mut ran = false;
            for at in 0..SHARDS {
                if self.is_runnable(at) {
                    let node = &mut self.nodes[at];
                    node.shard.work(node.deadline);
                    node.deadline = node.shard.prepare();
                    ran = true;
                }
            }
            if !ran {
                return;
            }
        }
        panic!("the shards do not come to rest: {:?}", self.unfinished());
    }

    fn unfinished(&self) -> Vec<Vec<&'static str>> {
        self.nodes.iter().map(|node| node.shard.inspect().unfinished).collect()
    }

    /// Everybody goes, time passes, and nothing is left.
    fn end(mut self) {
        self.rest();
        for socket in &mut self.net.borrow_mut().sockets {
            (socket.stalled, socket.ended) = (false, true);
        }
        self.rest();
        for peer in self.peers.iter_mut().flatten() {
            peer.look(&mut self.net.borrow_mut().sockets[peer.socket], false);
        }
        for _ in 0..FOR_EVER_MS / STEP_MS {
            self.net.borrow_mut().now += STEP_MS;
            self.rest();
        }
        assert_eq!(self.unfinished(), vec![Vec::<&str>::new(); SHARDS], "work is left at rest");
        let net = self.net.borrow();
        assert!(
            net.sockets.iter().all(|socket| socket.closed),
            "a connection whose client is gone is closed"
        );
        for (at, node) in self.nodes.iter().enumerate() {
            assert_eq!(net.held(at), (0, 0), "connections and leases are given back");
            let inspection = node.shard.inspect();
            assert_eq!(inspection.sessions, [], "sessions have expired");
            let routes = inspection.routes;
            let left = (routes.filters, routes.subscriptions, routes.exact_keys, routes.nodes, routes.groups);
            assert_eq!(left, (0, 0, 0, 0, 0), "routes of nobody");
        }
    }
}
