//! The server on a driver of ringmq: one send for a connection and turn.

use crate::frames::{FRAME, Framer, PUBLISH, SUBSCRIBE};
use ringmq::io::{Close, Conn, Driver, DriverOptions, Event, Io, IoMode, ListenSpec, Read, choose};
use ringmq::time::Moment;
use std::net::SocketAddr;

/// Bytes after which a stream is armed again.
const CREDIT: u32 = 64 << 10;

#[derive(Default)]
struct Client {
    framer: Framer,
    out: Vec<u8>,
    sending: bool,
    dirty: bool,
}

/// All clients by the index of their connection, those that wait for every message, and those with output.
#[derive(Default)]
struct Clients {
    all: Vec<Client>,
    subscribers: Vec<Conn>,
    dirty: Vec<Conn>,
}

impl Clients {
    fn put(&mut self, conn: Conn, frame: &[u8]) {
        let client = &mut self.all[conn as usize];
        client.out.extend_from_slice(frame);
        if !client.dirty {
            client.dirty = true;
            self.dirty.push(conn);
        }
    }

    fn received(&mut self, conn: Conn, bytes: &[u8]) {
        let mut framer = std::mem::take(&mut self.all[conn as usize].framer);
        framer.take(bytes, |frame: &[u8]| {
            debug_assert_eq!(frame.len(), FRAME);
            if frame[0] == PUBLISH {
                for at in 0..self.subscribers.len() {
                    self.put(self.subscribers[at], frame);
                }
                return;
            }
            if frame[0] == SUBSCRIBE {
                self.subscribers.push(conn);
            }
            self.put(conn, frame);
        });
        self.all[conn as usize].framer = framer;
    }

    fn flush(&mut self, io: &mut Driver<()>) {
        for conn in std::mem::take(&mut self.dirty) {
            let client = &mut self.all[conn as usize];
            client.dirty = false;
            if !client.sending && !client.out.is_empty() {
                client.sending = true;
                io.send(conn, std::mem::take(&mut client.out));
            }
        }
    }
}

/// Serves until the process ends.
pub fn serve(at: SocketAddr, mode: IoMode) {
    let chosen = choose(mode).expect("the driver that was asked for works here");
    let options = DriverOptions::default();
    let mut io = Driver::<()>::new(&chosen, &options).expect("the driver passed its test");
    io.listen(ListenSpec { peer_address: false, ..ListenSpec::new(at, 4_096) }).expect("the port was free");
    let mut clients = Clients::default();
    let mut events = Vec::new();
    loop {
        io.turn(&mut events, Some(Moment::NEVER));
        for event in events.drain(..) {
            match event {
                Event::Accepted { conn, .. } => {
                    let len = clients.all.len().max(conn as usize + 1);
                    clients.all.resize_with(len, Client::default);
                    clients.all[conn as usize] = Client::default();
                    io.read(conn, Read::Stream { credit: CREDIT });
                }
                Event::Data { conn, lease } => {
                    clients.received(conn, &lease);
                    io.release(lease);
                }
                Event::ReadEnded { conn, why: ringmq::io::ReadEnd::Credit } => {
                    io.read(conn, Read::Stream { credit: CREDIT });
                }
                Event::ReadEnded { conn, .. } => {
                    clients.subscribers.retain(|subscriber| *subscriber != conn);
                    io.close(conn, Close::Now);
                }
                Event::Sent { conn, buffer, .. } => {
                    let client = &mut clients.all[conn as usize];
                    client.sending = false;
                    if client.out.is_empty() {
                        client.out = buffer;
                    } else if !client.dirty {
                        client.dirty = true;
                        clients.dirty.push(conn);
                    }
                }
                _ => {}
            }
        }
        clients.flush(&mut io);
    }
}
