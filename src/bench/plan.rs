//! Who connects where, who sends what to whom: arguments, checked, as data for workers and for the judge.
//!
//! Clients have numbers from 0; a group is a range of them, and a flow joins a group of publishers with a group
//! of subscribers. Everything about a client follows from its number, so a million of them need no list.

use super::args::{BenchArgs, Until};
use super::stamp::{STAMP_BYTES, Stamp, digest};
use crate::codec::Version;
use crate::message::QoS;
use crate::transport::DialLayers;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

/// What a flow does with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Publisher `i` to subscriber `i` modulo the number of subscribers.
    Pair,
    /// Everybody gets everything.
    All,
    /// One of the subscribers gets it.
    Share,
    /// Each message to a subscriber that its sequence number decides.
    Directed,
    /// Nobody of this run subscribes.
    Out,
    /// Nobody of this run publishes.
    In,
}

/// Publishers, subscribers, and what passes between them.
#[derive(Clone, Debug)]
pub struct Flow {
    /// What happens to a message.
    pub kind: Kind,
    /// Numbers of the publishers.
    pub pubs: Range<u32>,
    /// Numbers of the subscribers.
    pub subs: Range<u32>,
    /// QoS of both sides.
    pub qos: QoS,
    /// Published with RETAIN.
    pub retain: bool,
    /// Topic: %i publisher or (`Pair`, `Directed`) subscriber, counted from the first of its side plus the start
    /// number; %c client identifier; %n sequence number.
    pub topic: String,
    /// Filter: %i and %c of the subscriber.
    pub filter: String,
    /// How messages leave.
    pub pace: Pace,
    /// Messages of each publisher at most.
    pub limit: u32,
}

/// How messages leave.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// As fast as a window of so many messages for each publisher allows.
    Closed {
        /// Messages under way.
        window: u32,
        /// What ends a message's way.
        until: Until,
    },
    /// On a schedule.
    Open {
        /// Messages per second of all publishers of the flow.
        rate: f64,
    },
}

/// Clients of one kind.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their numbers.
    pub clients: Range<u32>,
    /// Their flow; `None`: they only connect.
    pub flow: Option<usize>,
    /// They subscribe, else they publish.
    pub subscribes: bool,
    /// Clean start.
    pub clean: bool,
    /// Mostly idle: no receive is armed between packets.
    pub idle: bool,
}

/// What a payload is made of.
#[derive(Clone, Debug)]
pub enum Body {
    /// A stamp and filler, whose digest stands beside it.
    Filler(Vec<u8>, u64),
    /// A template and a stamp behind it.
    Text(String),
    /// A template or filler as it is.
    Plain(Result<String, Vec<u8>>),
}

impl Body {
    /// As the arguments ask for it.
    pub fn new(args: &BenchArgs) -> Result<Body, String> {
        let filler = |bytes: usize| (0..bytes).map(|n| b'a' + (n % 26) as u8).collect::<Vec<u8>>();
        if args.size > 16 << 20 {
            return Err("--size: at most 16777216 bytes".to_owned());
        }
        Ok(match &args.message {
            Some(text) if args.plain => Body::Plain(Ok(text.clone())),
            None if args.plain => Body::Plain(Err(filler(args.size))),
            Some(text) => Body::Text(text.clone()),
            None if args.size < STAMP_BYTES => {
                return Err(format!("--size: at least {STAMP_BYTES} bytes, for the stamp that is checked"));
            }
            None => {
                let body = filler(args.size);
                let rest = digest(&body[STAMP_BYTES..]);
                Body::Filler(body, rest)
            }
        })
    }
}

/// Everything that workers and judge need to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All groups; their ranges follow each other from 0.
    pub groups: Vec<Group>,
    /// All flows.
    pub flows: Vec<Flow>,
    /// Where clients connect to, in turn.
    pub targets: Vec<SocketAddr>,
    /// TLS and WebSocket to each of them; none: MQTT on the socket itself.
    pub layers: Vec<DialLayers>,
    /// Sessions of TLS are resumed.
    pub tls_resume: bool,
    /// Where from, in turn; none: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// The number of this run.
    pub run: u32,
    /// The start of the workers' clock.
    pub start: Instant,
    /// Nanoseconds from 1970 to that.
    pub epoch_ns: u64,
    /// Payloads.
    pub body: Body,
    /// Threads.
    pub threads: u32,
    /// Protocol version of all clients.
    pub version: Version,
    /// Keep alive of all clients, in seconds.
    pub keep_alive_s: u16,
    /// Session expiry interval, in seconds.
    pub session_expiry_s: u32,
    /// What [`BenchArgs`] have as templates.
    pub client_id: String,
    /// As above.
    pub username: Option<String>,
    /// As above.
    pub password: Option<String>,
    /// Added to numbers where templates show them.
    pub start_number: u32,
    /// Milliseconds for a connect with its subscription.
    pub connect_timeout_ms: u64,
    /// Connects of one thread under way.
    pub pending: u32,
    /// Connects per second of all threads; 0: no limit.
    pub connrate: f64,
    /// Lost connections come back.
    pub reconnect: bool,
    /// Workers never sleep.
    pub spin: bool,
    /// Workers stay awake shortly before a message of an open loop is due, for the driver sleeps whole
    /// milliseconds.
    pub precise: bool,
    /// Cores of the workers, in turn; none: wherever the kernel puts them.
    pub pin: Vec<usize>,
}

impl Plan {
    /// Clients in all.
    pub fn clients(&self) -> u32 {
        self.groups.last().map_or(0, |group| group.clients.end)
    }

    /// The index of a client's group.
    pub fn group_of(&self, client: u32) -> usize {
        self.groups.partition_point(|group| group.clients.end <= client)
    }

    /// The thread that a client belongs to. The two ends of a pair are on the same one.
    pub fn worker_of(&self, client: u32) -> u32 {
        let group = &self.groups[self.group_of(client)];
        let at = client - group.clients.start;
        match group.flow.map(|flow| &self.flows[flow]) {
            Some(flow) if flow.kind == Kind::Pair => (at % flow.subs.len() as u32) % self.threads,
            _ => at % self.threads,
        }
    }

    /// TLS and WebSocket of a client.
    pub fn layers_of(&self, client: u32) -> Option<&DialLayers> {
        self.layers.get(client as usize % self.targets.len())
    }

    /// The number that templates show.
    fn shown(&self, client: u32, flow: &Flow) -> u32 {
        let side = if flow.subs.contains(&client) { &flow.subs } else { &flow.pubs };
        client - side.start + self.start_number
    }

    /// The identifier of a client.
    pub fn client_id(&self, client: u32) -> String {
        self.client_id.replace("%i", &(u64::from(client) + u64::from(self.start_number)).to_string())
    }

    /// Replaces %i and %c.
    pub fn expand<'a>(&self, template: &'a str, number: u32, client: u32) -> Cow<'a, str> {
        if !template.contains('%') {
            return Cow::Borrowed(template);
        }
        let text = template.replace("%i", &number.to_string());
        Cow::Owned(if text.contains("%c") { text.replace("%c", &self.client_id(client)) } else { text })
    }

    /// The filter of a subscriber.
    pub fn filter<'a>(&self, flow: &'a Flow, client: u32) -> Cow<'a, str> {
        self.expand(&flow.filter, self.shown(client, flow), client)
    }

    /// The topic of a publisher's message; [`Flow::changes_topic`] says whether it depends on `sequence`.
    pub fn topic(&self, flow: &Flow, publisher: u32, sequence: u32) -> String {
        let whom = match flow.kind {
            Kind::Pair | Kind::Directed => flow.receiver(publisher, sequence).unwrap_or(publisher),
            _ => publisher,
        };
        let topic = self.expand(&flow.topic, self.shown(whom, flow), whom);
        if topic.contains("%n") { topic.replace("%n", &sequence.to_string()) } else { topic.into_owned() }
    }

    /// Makes the payload of a message in `out`.
    pub fn payload(&self, stamp: &Stamp, topic: &str, out: &mut Vec<u8>) {
        out.clear();
        let text = |template: &str| {
            let text = self.expand(template, stamp.publisher + self.start_number, stamp.publisher);
            if text.contains("%t") {
                text.replace("%t", &(stamp.time_ns / 1_000_000).to_string())
            } else {
                text.into_owned()
            }
        };
        match &self.body {
            Body::Filler(filler, rest) => {
                out.extend_from_slice(filler);
                stamp.write_front(out, *rest, topic);
            }
            Body::Text(template) => {
                out.extend_from_slice(text(template).as_bytes());
                stamp.write_behind(out, topic);
            }
            Body::Plain(Ok(template)) => out.extend_from_slice(text(template).as_bytes()),
            Body::Plain(Err(filler)) => out.extend_from_slice(filler),
        }
    }
}

impl Flow {
    /// Deliveries that one message causes.
    pub fn fan(&self) -> u32 {
        match self.kind {
            Kind::All => self.subs.len() as u32,
            Kind::Pair | Kind::Share | Kind::Directed => 1,
            Kind::Out | Kind::In => 0,
        }
    }

    /// Whether each message has a topic of its own.
    pub fn changes_topic(&self) -> bool {
        self.kind == Kind::Directed || self.topic.contains("%n")
    }

    /// The subscriber of a message that has only one which is known beforehand.
    pub fn receiver(&self, publisher: u32, sequence: u32) -> Option<u32> {
        let subs = self.subs.len() as u64;
        match self.kind {
            Kind::Pair => Some(self.subs.start + (publisher - self.pubs.start) % subs as u32),
            Kind::Directed => {
                let mut n = u64::from(publisher) << 32 | u64::from(sequence);
                n = (n ^ n >> 31).wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
                Some(self.subs.start + ((n ^ n >> 31) % subs) as u32)
            }
            _ => None,
        }
    }

    /// Whether a subscriber may get this message.
    pub fn wants(&self, subscriber: u32, publisher: u32, sequence: u32) -> bool {
        match self.kind {
            Kind::In => true,
            _ if !self.pubs.contains(&publisher) => false,
            Kind::Pair | Kind::Directed => self.receiver(publisher, sequence) == Some(subscriber),
            _ => true,
        }
    }

    /// Under which receiver an arrival is noted: the client, or the first of a group of which one gets it.
    pub fn scope(&self, subscriber: u32) -> u32 {
        match self.kind {
            Kind::Share | Kind::Directed => self.subs.start,
            _ => subscriber,
        }
    }

    /// All scopes in which a publisher's messages must arrive.
    pub fn scopes(&self, publisher: u32) -> Range<u32> {
        match self.kind {
            Kind::Out | Kind::In => 0..0,
            Kind::All => self.subs.clone(),
            Kind::Share | Kind::Directed => self.subs.start..self.subs.start + 1,
            Kind::Pair => {
                let to = self.receiver(publisher, 0).unwrap_or(self.subs.start);
                to..to + 1
            }
        }
    }
}
