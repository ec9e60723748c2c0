//! The scenarios: arguments → plan.

use super::args::{BenchArgs, Scenario, Until};
use super::plan::{Body, Flow, Group, Kind, Pace, Plan};
use crate::codec::Version;
use crate::limits::TOPIC_BYTES_MAX;
use crate::message::QoS;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Connections to one address and port that one source address is used for: far fewer than there are ports, for
/// the kernel looks for a free one by trying, and keeps ports of closed connections for a while.
const CONNECTIONS_PER_SOURCE: u32 = 5_000;
/// Source addresses that are chosen without being asked for.
const SOURCES_MAX: u32 = 250;
/// Longest part of `--topic` and of other templates; what replaces their signs comes on top.
const TEMPLATE_BYTES_MAX: usize = TOPIC_BYTES_MAX / 4;

/// Makes the plan; an error says what to change.
pub fn plan(args: &BenchArgs) -> Result<Plan, String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = (since.as_nanos() >> 10) as u32 ^ std::process::id().rotate_left(16);
    for (option, text) in [
        ("--topic", &args.topic),
        ("--client-id", &args.identifiers()),
        ("--username", &args.username),
        ("--password", &args.password),
    ] {
        if text.as_ref().is_some_and(|text| text.len() > TEMPLATE_BYTES_MAX || text.contains('\0')) {
            return Err(format!("{option}: at most {TEMPLATE_BYTES_MAX} bytes, none of them 0"));
        }
    }
    if args.plain && args.scenario != Scenario::Pub {
        return Err("--plain: only for `pub`; other scenarios check what they deliver".to_owned());
    }
    if args.broker_cert.is_some() && args.scenario != Scenario::Million {
        return Err("--broker-cert: only for `million`, which starts a broker".to_owned());
    }
    let hosts = hosts(args);
    let mut plan = Plan {
        groups: Vec::new(),
        flows: Vec::new(),
        targets: targets(&hosts)?,
        layers: args.dial.layers(&hosts)?,
        tls_resume: args.dial.tls_resume,
        sources: Vec::new(),
        run,
        start: Instant::now(),
        epoch_ns: since.as_nanos() as u64,
        body: Body::new(args)?,
        threads: u32::from(args.threads),
        version: match args.version.as_str() {
            "3" | "3.1" => Version::V31,
            "4" | "3.1.1" => Version::V311,
            _ => Version::V5,
        },
        keep_alive_s: args.keepalive,
        session_expiry_s: args.session_expiry.unwrap_or_default(),
        client_id: args.identifiers().unwrap_or_else(|| format!("ringmq-bench-{run:08x}-%i")),
        username: args.username.clone().or_else(|| args.password.as_ref().map(|_| String::new())),
        password: args.password.clone(),
        start_number: args.startnumber,
        connect_timeout_ms: u64::from(args.connect_timeout) * 1000,
        pending: args.pending.max(1),
        connrate: args.connects_per_s(),
        reconnect: !args.no_reconnect,
        spin: args.spin,
        precise: args.scenario != Scenario::Million,
        pin: args.pin.clone(),
    };
    Builder { args, plan: &mut plan }.build()?;
    if plan.clients() > 1 && !plan.client_id.contains("%i") {
        return Err("--client-id: needs %i where there is more than one client".to_owned());
    }
    if plan.groups.iter().any(|group| !group.clean) && args.session_expiry.is_none() {
        plan.session_expiry_s = 300;
    }
    plan.sources = sources(args, &plan)?;
    Ok(plan)
}

/// The brokers, each with its port.
fn hosts(args: &BenchArgs) -> Vec<String> {
    let port = args.port.unwrap_or_else(|| args.dial.kind().port());
    let with_port = |host: &String| match host.rsplit_once(':') {
        // A bare IPv6 address has colons of its own.
        Some((name, port)) if port.parse::<u16>().is_ok() && (!name.contains(':') || name.ends_with(']')) => {
            host.clone()
        }
        _ if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    };
    args.host.iter().map(with_port).collect()
}

fn targets(hosts: &[String]) -> Result<Vec<SocketAddr>, String> {
    let mut all = Vec::new();
    for host in hosts {
        let found = host.to_socket_addrs().map_err(|e| format!("--host {host}: {e}"))?.next();
        all.push(found.ok_or_else(|| format!("--host {host}: no address"))?);
    }
    Ok(all)
}

fn sources(args: &BenchArgs, plan: &Plan) -> Result<Vec<IpAddr>, String> {
    if !args.ifaddr.is_empty() {
        return Ok(args.ifaddr.clone());
    }
    let local = |addr: &SocketAddr| matches!(addr.ip(), IpAddr::V4(ip) if ip.is_loopback());
    let local = plan.targets.iter().all(local);
    let count = match args.sources {
        Some(_) if !local => return Err("--sources: only to 127.0.0.0/8; name others by --ifaddr".to_owned()),
        Some(count) => u32::from(count),
        None if local => plan.clients().div_ceil(CONNECTIONS_PER_SOURCE).min(SOURCES_MAX),
        None => 0,
    };
    let address = |n: u32| IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + n));
    let sources: Vec<IpAddr> =
        (0..if count <= 1 && args.sources.is_none() { 0 } else { count }).map(address).collect();
    check_ports(plan.clients(), sources.len() as u32, plan.targets.len() as u32, ports_at_once())?;
    Ok(sources)
}

/// Connections from one address to one broker that the kernel finds ports for quickly: half of its range, for it
/// tries the ports of one parity first. Behind them a connect takes milliseconds instead of microseconds, until
/// brokers give up on connections that did not send CONNECT.
fn ports_at_once() -> u32 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = range.split_whitespace().map_while(|port| port.parse::<u32>().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) if last > first => (last - first).div_ceil(2),
        // As Linux has it by default.
        _ => 14_116,
    }
}

fn check_ports(clients: u32, sources: u32, targets: u32, ports: u32) -> Result<(), String> {
    let each = clients.div_ceil(sources.max(1) * targets.max(1));
    if sources == 0 || each <= ports {
        return Ok(());
    }
    Err(format!(
        "{sources} source addresses: expected at most {ports} connections from each, for then the kernel looks for free \
         ports for milliseconds, got {each}; use more (--sources), or widen net.ipv4.ip_local_port_range"
    ))
}

struct Builder<'a> {
    args: &'a BenchArgs,
    plan: &'a mut Plan,
}

/// The sides of a flow.
struct Sides {
    pubs: u32,
    subs: u32,
    qos: QoS,
}

impl Builder<'_> {
    fn build(&mut self) -> Result<(), String> {
        let args = self.args;
        let qos = QoS::from_bits(args.qos).ok_or("--qos: 0, 1 or 2")?;
        let many = |given: Option<u32>, default: u32| given.or(args.count).unwrap_or(default);
        let sides = |pubs: u32, subs: u32| Sides { pubs, subs, qos };
        let prefix = args.topic.clone().unwrap_or_else(|| "ringmq-bench".to_owned());
        let topic = |suffix: &str| format!("{prefix}/{suffix}");
        match args.scenario {
            Scenario::Conn => self.idle(many(None, 1000)),
            Scenario::Pub => {
                let topic = args.topic.clone().unwrap_or_else(|| "ringmq-bench/%i".to_owned());
                self.flow(Kind::Out, sides(many(args.pubs, 100), 0), topic, String::new());
            }
            Scenario::Sub => {
                let filter = args.topic.clone().unwrap_or_else(|| "ringmq-bench/#".to_owned());
                self.flow(Kind::In, sides(0, many(args.subs, 1)), String::new(), filter);
            }
            Scenario::P2p => {
                let pubs = many(args.pubs, 100);
                let subs = args.subs.unwrap_or(pubs);
                self.flow(Kind::Pair, sides(pubs, subs), topic("p2p/%i"), topic("p2p/%i"));
            }
            Scenario::Fanin => {
                let (pubs, subs) = (many(args.pubs, 100), args.subs.unwrap_or(1));
                self.flow(Kind::All, sides(pubs, subs), topic("fanin/%i"), topic("fanin/+"));
            }
            Scenario::Fanout => {
                let (pubs, subs) = (args.pubs.unwrap_or(1), many(args.subs, 100));
                self.flow(Kind::All, sides(pubs, subs), topic("fanout"), topic("fanout"));
            }
            Scenario::Shared => {
                let (pubs, subs) = (many(args.pubs, 100), args.subs.unwrap_or(5));
                let filter = format!("$share/ringmq-bench/{}", topic("shared/+"));
                self.flow(Kind::Share, sides(pubs, subs), topic("shared/%i"), filter);
            }
            Scenario::Retain => self.retain(sides(args.pubs.unwrap_or(1), many(args.subs, 1)), &topic),
            Scenario::Storm => {
                let (pubs, subs) = (args.pubs.unwrap_or(10), many(args.subs, 1000));
                let qos = qos.max(QoS::AtLeastOnce);
                let sides = Sides { pubs, subs, qos };
                self.flow(Kind::Directed, sides, topic("storm/%i"), topic("storm/%i"));
                self.plan.groups.iter_mut().filter(|group| group.subscribes).for_each(|g| g.clean = false);
            }
            Scenario::Mixed => self.mixed(many(None, 100), &topic),
            Scenario::Million => {
                let pubs = args.pubs.unwrap_or(8 * u32::from(args.threads));
                let sides = Sides { pubs, subs: many(args.subs, 1_000_000), qos: QoS::AtLeastOnce };
                self.flow(Kind::Directed, sides, "dev/%i/cmd".to_owned(), "dev/%i/cmd".to_owned());
                self.plan.groups.iter_mut().filter(|group| group.subscribes).for_each(|g| g.idle = true);
            }
        }
        Ok(())
    }

    fn retain(&mut self, sides: Sides, topic: &impl Fn(&str) -> String) {
        let total = if self.args.limit == 0 { 10_000 } else { self.args.limit };
        let each = total.div_ceil(u64::from(sides.pubs)).min(u64::from(u32::MAX)) as u32;
        let sides = Sides { qos: sides.qos.max(QoS::AtLeastOnce), ..sides };
        self.flow(Kind::All, sides, topic("retain/%i/%n"), topic("retain/#"));
        if let Some(flow) = self.plan.flows.last_mut() {
            flow.retain = true;
            flow.limit = each;
            flow.pace = Pace::Closed { window: self.args.window, until: Until::Acked };
        }
    }

    fn mixed(&mut self, n: u32, topic: &impl Fn(&str) -> String) {
        let sides = |pubs, subs, qos| Sides { pubs, subs, qos };
        let rate = self.args.rate;
        let (small, few) = ((n / 10).max(1), (n / 20).max(1));
        self.flow(Kind::Pair, sides(n, n, QoS::AtLeastOnce), topic("p2p/%i"), topic("p2p/%i"));
        self.flow(Kind::All, sides(n, 1, QoS::AtMostOnce), topic("fanin/%i"), topic("fanin/+"));
        self.flow(Kind::All, sides(1, small, QoS::AtLeastOnce), topic("fanout"), topic("fanout"));
        let filter = format!("$share/ringmq-bench/{}", topic("shared/+"));
        self.flow(Kind::Share, sides(small, few, QoS::ExactlyOnce), topic("shared/%i"), filter);
        for flow in &mut self.plan.flows {
            if let Some(rate) = rate {
                flow.pace = Pace::Open { rate: rate / 4.0 };
            }
        }
    }

    fn idle(&mut self, count: u32) {
        let group = Group {
            clients: 0..count,
            flow: None,
            subscribes: false,
            clean: self.args.starts_clean(),
            idle: true,
        };
        self.plan.groups.push(group);
    }

    /// Adds a flow and its groups, subscribers first.
    fn flow(&mut self, kind: Kind, sides: Sides, topic: String, filter: String) {
        let args = self.args;
        let index = self.plan.flows.len();
        let mut ranges = Vec::new();
        for (count, subscribes) in [(sides.subs, true), (sides.pubs, false)] {
            let start = self.plan.clients();
            ranges.push(start..start + count);
            if count > 0 {
                self.plan.groups.push(Group {
                    clients: start..start + count,
                    flow: Some(index),
                    subscribes,
                    clean: args.starts_clean(),
                    idle: false,
                });
            }
        }
        let limit = match args.limit {
            0 => u32::MAX,
            total => total.div_ceil(u64::from(sides.pubs.max(1))).min(u64::from(u32::MAX)) as u32,
        };
        self.plan.flows.push(Flow {
            kind,
            pace: self.pace(sides.pubs),
            subs: ranges[0].clone(),
            pubs: ranges[1].clone(),
            qos: sides.qos,
            retain: args.retain && args.scenario == Scenario::Pub,
            topic,
            filter,
            limit,
        });
    }

    fn pace(&self, pubs: u32) -> Pace {
        let args = self.args;
        let publishes_only = args.scenario == Scenario::Pub;
        let closed = args.until.is_some();
        let interval = args.interval_of_msg.or((publishes_only && !closed).then_some(1000));
        let default_rate = match args.scenario {
            Scenario::Storm => Some(1000.0),
            Scenario::Million => Some(10_000.0),
            _ => None,
        };
        match (args.rate.or(if interval.is_none() { default_rate } else { None }), interval) {
            (Some(rate), _) => Pace::Open { rate },
            (None, Some(ms)) => Pace::Open { rate: f64::from(pubs) * 1000.0 / f64::from(ms) },
            (None, None) => {
                let until = if publishes_only { Until::Acked } else { Until::Delivered };
                Pace::Closed { window: args.window, until: args.until.unwrap_or(until) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_connections_than_an_address_has_ports_at_hand_are_refused() {
        assert!(ports_at_once() > 1_000);
        assert_eq!(check_ports(70_580, 5, 1, 14_116), Ok(()));
        assert!(check_ports(70_581, 5, 1, 14_116).is_err_and(|line| line.contains("got 14117")));
        assert_eq!(check_ports(100_000, 5, 2, 14_116), Ok(()));
        assert_eq!(check_ports(100_000, 0, 1, 14_116), Ok(()), "the kernel chooses the address");
    }
}
