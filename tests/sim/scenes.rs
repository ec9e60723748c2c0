//! Short plays of two or three clients that the dice alone would rarely come up with: each is about what an
//! answer promises, and is played while the shards that have no part in it do not move.

use crate::client::{Client, Cx};
use crate::gap::Cast;
use crate::net::Leave;
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::trace;
use crate::world::World;
use ringmq::codec::{Packet, SubscribeOptions};
use ringmq::map::Keyed;
use ringmq::message::QoS;

/// Turns that a shard has in a scene for what is asked of it.
const TURNS: usize = 12;

impl World {
    /// One scene, whichever.
    pub fn scene(&mut self) {
        match self.scheduler.below(4) {
            0 => self.member_is_lost(),
            1 => self.retain_behind_a_full_ring(),
            _ => self.subscribe_and_publish(),
        }
    }

    /// Two clients retain something for the same topic, the second when the first one's is acknowledged.
    pub fn race(&mut self, topic: &str) {
        for _ in 0..2 {
            let Some(at) = self.somebody(|_| true) else { return };
            self.client(at, |client, cx| client.poke(cx, topic, true));
            self.attend(at, |_| false);
        }
    }

    /// Somebody publishes what a client just subscribed to, as soon as its SUBACK is there. The publisher is read
    /// in one go, so that the shard that serves it meets the announcement and the PUBLISH in the same tick.
    fn subscribe_and_publish(&mut self) {
        let topic = self.scheduler.pick(&self.plan.topics.clone());
        let shared = topic.starts_with("s/");
        let Some(subscriber) = self.somebody(|c| !(shared && c.profile.group.is_some())) else { return };
        let here = self.shard_of(subscriber);
        let Some(publisher) = self.somebody(|_| true).filter(|p| self.shard_of(*p) != here) else { return };
        for _ in 0..4 {
            self.client(publisher, |client, cx| {
                client.write(&Packet::PingReq);
                client.pump(cx);
            });
            self.turn_of(publisher);
            self.turn_of(publisher);
        }
        let filters = filters_for(topic, self.scheduler.range(1, 9) as usize, &mut self.scheduler);
        self.clients[subscriber].news = None;
        self.client(subscriber, |client, cx| {
            if client.link.as_ref().is_some_and(|l| l.awaited.len() < 3) {
                client.send_subscribe(cx, &filters, 0);
                client.pump(cx);
            }
        });
        self.attend(subscriber, |client| client.news.is_some());
        if self.clients[subscriber].news.take().is_some_and(|(_, retained)| !retained) {
            trace::reached("published upon a SUBACK");
            self.client(publisher, |client, cx| client.poke(cx, topic, false));
            self.turn_of(publisher);
        }
    }

    /// A member of a share group does not read what it is sent, and is lost.
    fn member_is_lost(&mut self) {
        let Some(member) = self.somebody(|c| c.profile.group.is_some()) else { return };
        let Some((group, filter)) = self.clients[member].profile.group.clone() else { return };
        let topic = if filter == "s/0" { "s/0" } else { self.scheduler.pick(&["s/0", "s/1"]) };
        let options = SubscribeOptions { qos: QoS::ExactlyOnce, ..SubscribeOptions::default() };
        for at in 0..self.clients.len() {
            let joins = self.clients[at].profile.group.as_ref().is_some_and(|g| g.0 == group);
            let free = self.clients[at].link.as_ref().is_some_and(|l| l.up && l.awaited.is_empty());
            if joins && free {
                let filters = [(Some(group.clone()), filter.clone(), options)];
                self.client(at, |client, cx| client.send_subscribe(cx, &filters, 0));
                self.attend(at, |client| client.news.is_some());
            }
        }
        let until = self.now() + 400;
        if let Some(link) = &mut self.clients[member].link {
            link.deaf_until = until;
        }
        for _ in 0..self.scheduler.range(2, 8) {
            let Some(publisher) = self.somebody(|_| true).filter(|p| *p != member) else { return };
            self.client(publisher, |client, cx| client.poke(cx, topic, false));
            self.turn_of(publisher);
            self.turn_of(member);
        }
        trace::reached("member of a share group lost");
        let how = self.scheduler.pick(&[Leave::Reset, Leave::Vanish, Leave::Fin]);
        self.client(member, |client, cx| client.leave(cx, how));
    }

    /// The ring to a topic's shard is full when something is retained for it. A subscriber that got it live asks for
    /// what is retained, and must not find the value before.
    fn retain_behind_a_full_ring(&mut self) {
        let here = |world: &World, at: usize| world.shard_of(at).map(|shard| (at, shard));
        let up = (0..self.clients.len()).filter(|at| self.clients[*at].is_up());
        let mut up: Vec<(usize, usize)> = up.filter_map(|at| here(self, at)).collect();
        self.scheduler.shuffle(&mut up);
        let neighbours = |(a, there): &(usize, usize)| {
            up.iter().find(|(b, shard)| b != a && shard == there).map(|(b, _)| (*a, *b, *there))
        };
        let Some((publisher, filler, there)) = up.iter().find_map(neighbours) else { return };
        let Some(&(subscriber, elsewhere)) = up.iter().find(|(_, shard)| *shard != there) else { return };
        let others: Vec<usize> = (0..self.plan.shards).filter(|s| *s != there && *s != elsewhere).collect();
        if others.is_empty() {
            return;
        }
        let home = self.scheduler.pick(&others);
        let topic = fresh_topic(&self.oracle, &self.plan, home);
        let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
        let ask = |world: &mut World, filters: &[(Option<String>, String, SubscribeOptions)], at: usize| {
            world.clients[at].news = None;
            world.client(at, |client, cx| {
                if client.link.as_ref().is_some_and(|l| l.out.is_empty() && l.awaited.len() < 3) {
                    client.send_subscribe(cx, filters, 0);
                    client.pump(cx);
                }
            });
        };
        ask(self, &[(None, format!("{topic}/#"), options)], subscriber);
        self.attend(subscriber, |client| client.news.is_some());
        for _ in 0..3 {
            self.client(publisher, |client, cx| client.retain_for_good(cx, &topic));
            self.attend(publisher, |_| false);
            (0..4).for_each(|_| self.tick(home));
            if self.scheduler.chance(500) {
                break;
            }
        }
        let many: Vec<_> = (0..9).map(|n| (None, format!("{topic}/{n}"), options)).collect();
        ask(self, &many, filler);
        self.turn_of(filler);
        self.turn_of(filler);
        trace::reached("retained behind a full ring");
        self.client(publisher, |client, cx| client.retain_for_good(cx, &topic));
        (0..3).for_each(|_| self.turn_of(publisher));
        self.attend(subscriber, |_| false);
        ask(self, &[(None, topic, options)], subscriber);
        self.attend(subscriber, |_| false);
        self.tick(home);
        self.attend(subscriber, |_| false);
    }

    /// A client that is connected.
    fn somebody(&mut self, wanted: impl Fn(&Client) -> bool) -> Option<usize> {
        let up = |at: &usize| self.clients[*at].is_up() && wanted(&self.clients[*at]);
        let up: Vec<usize> = (0..self.clients.len()).filter(up).collect();
        (!up.is_empty()).then(|| self.scheduler.pick(&up))
    }

    fn shard_of(&self, client: usize) -> Option<usize> {
        self.clients[client].shard(&self.machine.net.borrow())
    }

    /// The shard that serves a client has one turn.
    fn turn_of(&mut self, client: usize) {
        self.step_begins();
        if let Some(shard) = self.shard_of(client).filter(|s| self.is_runnable(*s)) {
            self.tick(shard);
        }
        self.machine.step_disk();
    }

    /// A client and the shard that serves it have turns until `done`.
    fn attend(&mut self, at: usize, done: impl Fn(&Client) -> bool) {
        for _ in 0..TURNS {
            self.turn_of(at);
            self.client(at, |client, cx| client.step(cx));
            if done(&self.clients[at]) {
                return;
            }
            let now = self.now();
            self.advance(now + 1);
        }
    }

    /// Clients act upon what a shard just told them, before the other shards have moved: what an answer
    /// promises must hold at once.
    pub fn react(&mut self) {
        for at in 0..self.clients.len() {
            self.clients[at].news = None;
            self.client(at, |client, cx| client.step(cx));
            let Some((filter, retain)) = self.clients[at].news.take() else { continue };
            let mut topics = self.plan.topics.clone();
            topics.retain(|topic| crate::oracle::matches(&filter, topic));
            let others: Vec<usize> =
                (0..self.clients.len()).filter(|o| *o != at && self.clients[*o].is_up()).collect();
            if topics.is_empty() || others.is_empty() || self.scheduler.chance(300) {
                continue;
            }
            let (topic, other) = (self.scheduler.pick(&topics), self.scheduler.pick(&others));
            self.client(other, |client, cx| client.poke(cx, topic, retain));
            trace::reached("acted upon an answer at once");
            self.turn_of(other);
        }
    }
}

/// A topic that nobody used yet, whose retained message is kept by this shard.
fn fresh_topic(oracle: &Oracle, plan: &Plan, home: usize) -> String {
    let keyed = Keyed::new(plan.seed);
    let mut topics = (oracle.msgs.len() * 1_000..).map(|n| format!("r/kept/{n}"));
    let here = |topic: &String| keyed.key(topic) % plan.shards as u64 == home as u64;
    topics.find(here).expect("the hash leaves no shard without topics")
}

type Wanted = Vec<(Option<String>, String, SubscribeOptions)>;

/// `count` filters, of which the last matches the topic.
fn filters_for(topic: &str, count: usize, r: &mut crate::random::Random) -> Wanted {
    let (first, rest) = topic.split_once('/').unwrap_or((topic, ""));
    let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
    let last = match r.below(4) {
        0 => format!("{first}/#"),
        1 => format!("{topic}/#"),
        _ => format!("{first}/{rest}"),
    };
    let mut filters: Vec<String> = (1..count).map(|n| format!("{first}/none/{n}")).collect();
    filters.push(last);
    filters.into_iter().map(|f| (None, f, options)).collect()
}

/// A client publishes what is to be retained at `home`, and once it is acknowledged another one asks for it, both
/// on other shards.
pub fn retain_and_ask(cast: &mut Cast, plan: &Plan, home: usize, tick: &dyn Fn(usize)) {
    let topic = fresh_topic(&cast.oracle, plan, home);
    let mut up: Vec<(usize, usize)> = Vec::new();
    for at in 0..cast.clients.len() {
        let shard = cast.clients[at].shard(&cast.net.borrow());
        up.extend(shard.filter(|s| *s != home && cast.clients[at].is_up()).map(|s| (at, s)));
    }
    cast.choices.shuffle(&mut up);
    // A shard looks at the others in order: the one whose ring it has looked at, and one that is still to come.
    let Some(&(one, there)) = up.first() else { return };
    let Some(&(other, elsewhere)) = up.iter().find(|(_, s)| *s != there) else { return };
    let [(publisher, there), (asker, elsewhere)] = match there < elsewhere {
        true => [(one, there), (other, elsewhere)],
        false => [(other, elsewhere), (one, there)],
    };
    cast.clients[publisher].news = None;
    cast.client(plan, publisher, |client, cx| client.retain_for_good(cx, &topic));
    for _ in 0..TURNS {
        tick(there);
        cast.client(plan, publisher, Client::step);
        cast.net.borrow_mut().wire.now += 1;
        if cast.clients[publisher].news.is_some() {
            break;
        }
    }
    if cast.clients[publisher].news.take().is_none_or(|(on, _)| on != topic) {
        return;
    }
    let free = |c: &Client| c.link.as_ref().is_some_and(|l| l.out.is_empty() && l.awaited.len() < 3);
    if free(&cast.clients[asker]) {
        let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
        trace::reached("asked for what was retained meanwhile");
        cast.client(plan, asker, |client: &mut Client, cx: &mut Cx| {
            client.send_subscribe(cx, &[(None, topic.clone(), options)], 0);
            client.pump(cx);
        });
        for _ in 0..4 {
            tick(elsewhere);
            cast.net.borrow_mut().wire.now += 1;
        }
    }
}
