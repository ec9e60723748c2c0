//! What a shard takes for its driver: a check of what it asks for against the contract of `io`, and the kernel
//! behind it. Other shards may tick within any of its calls, as they run on cores of their own.

use super::kernel::{Moving, Open, Sending, SharedNet};
use super::trace;
use ringmq::io::{Close, Conn, Event, Io, IoStats, Lease, ListenSpec, Read, ShardId};
use ringmq::shard::Handover;
use ringmq::time::Moment;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// The driver that a shard sees.
pub struct SimIo {
    pub net: SharedNet,
    pub me: usize,
    /// Lets another shard tick while this one is in the middle of its own.
    pub others: Others,
}

/// What happens on other cores while a shard is in the middle of its tick.
pub trait Meanwhile {
    /// It is in a call of its driver.
    fn pass(&self);
    /// It is between two looks at what the others share.
    fn look(&self, me: usize);
}

/// Empty until all shards exist.
pub type Others = Rc<RefCell<Option<Box<dyn Meanwhile>>>>;

impl SimIo {
    /// Other shards run on other cores: what they do can fall between any two things that this one does.
    fn interleave(&self) {
        let go = {
            let wire = &mut self.net.borrow_mut().wire;
            wire.random.chance(wire.faults.interleave)
        };
        if let (true, Some(others)) = (go, &*self.others.borrow()) {
            others.pass();
        }
    }

    fn with<R>(&self, conn: Conn, f: impl FnOnce(&mut Open) -> R) -> R {
        f(self.net.borrow_mut().open(self.me, conn))
    }
}

impl Io<Handover> for SimIo {
    fn listen(&mut self, spec: ListenSpec) -> std::io::Result<SocketAddr> {
        self.net.borrow_mut().kernels[self.me].listening = true;
        Ok(spec.addr)
    }

    fn connect(&mut self, to: SocketAddr, _from: Option<IpAddr>) -> std::io::Result<Conn> {
        panic!("a shard opens no connections, and this one wants {to}");
    }

    fn accept_pause(&mut self) {
        self.net.borrow_mut().kernels[self.me].paused = true;
    }

    fn accept_resume(&mut self) {
        self.net.borrow_mut().kernels[self.me].paused = false;
    }

    fn accept_stop(&mut self) {
        self.net.borrow_mut().kernels[self.me].listening = false;
    }

    fn read(&mut self, conn: Conn, mode: Read) {
        self.with(conn, |open| {
            assert!(open.read.is_none(), "connection {conn}: a read while one is armed");
            assert!(open.close.is_none(), "connection {conn}: a read after close");
            assert!(open.moving.is_none(), "connection {conn}: a read while it moves");
            open.read = Some(mode);
        });
    }

    fn release(&mut self, lease: Lease) {
        self.net.borrow_mut().kernels[self.me].buffers.release(lease);
        self.interleave();
    }

    fn send(&mut self, conn: Conn, buffer: Vec<u8>) {
        self.with(conn, |open| {
            assert!(!buffer.is_empty(), "connection {conn}: an empty send");
            assert!(open.sending.is_none(), "connection {conn}: a send while one is under way");
            assert!(open.close.is_none(), "connection {conn}: a send after close");
            assert!(open.moving.is_none(), "connection {conn}: a send while it moves");
            open.sending = Some(Sending { buffer, at: 0, done: None });
        });
        self.net.borrow_mut().progress(self.me, conn as usize);
        self.interleave();
    }

    fn close(&mut self, conn: Conn, how: Close) {
        let net = &mut *self.net.borrow_mut();
        let due = net.wire.now + net.wire.lag();
        let open = net.open(self.me, conn);
        assert!(open.moving.is_none(), "connection {conn}: closed while it moves");
        if let Some((before, _)) = open.close {
            assert!(
                before == Close::Flush && how != Close::Flush,
                "connection {conn}: {how:?} after {before:?}"
            );
        }
        open.close = Some((how, due));
    }

    fn hand_over(&mut self, conn: Conn, to: ShardId, item: Box<Handover>) {
        let net = &mut *self.net.borrow_mut();
        let now = net.wire.now;
        let (there, here) = (now + net.wire.lag(), now + net.wire.lag());
        let refused = net.kernels[usize::from(to)].used() >= net.wire.faults.table
            || net.wire.random.chance(net.wire.faults.enfile);
        let open = net.open(self.me, conn);
        assert!(open.read.is_none(), "connection {conn}: moves while a read is armed");
        assert!(open.sending.is_none(), "connection {conn}: moves while a send is under way");
        assert!(open.close.is_none() && open.moving.is_none(), "connection {conn}: moves while it goes");
        let socket = open.socket;
        if refused {
            open.moving = Some(Moving::Refused { due: here, item });
        } else {
            open.moving = Some(Moving::Done { due: here });
            net.kernels[usize::from(to)].arrivals.push_back((there, socket, item));
        }
    }

    fn wake(&mut self, shard: ShardId) {
        trace::reached("sleeping shard woken");
        self.net.borrow_mut().kernels[usize::from(shard)].woken = true;
        self.interleave();
    }

    fn meanwhile(&self) {
        let go = {
            let wire = &mut self.net.borrow_mut().wire;
            wire.random.chance(wire.faults.interleave / 4)
        };
        if let (true, Some(others)) = (go, &*self.others.borrow()) {
            others.look(self.me);
        }
    }

    fn turn(&mut self, events: &mut Vec<Event<Handover>>, _deadline: Option<Moment>) {
        self.meanwhile();
        self.net.borrow_mut().turn(self.me, events);
        self.interleave();
    }

    fn now(&self) -> Moment {
        Moment(self.net.borrow().wire.now)
    }

    fn room(&self) -> usize {
        let net = self.net.borrow();
        net.wire.faults.table.saturating_sub(net.kernels[self.me].used())
    }

    fn stats(&self) -> IoStats {
        IoStats::default()
    }

    fn describe(&self) -> String {
        "simulation".into()
    }
}
