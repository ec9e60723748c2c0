//! Connections from and to other shards: the descriptor and what travels with it go into the target's
//! inbox, the answer comes into ours.

use super::super::driver::{Address, Door, Post};
use super::super::{Conn, Event};
use super::Epoll;
use super::slots::Phase;
use crate::limits;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

impl<H: Send> Epoll<H> {
    pub(super) fn take_posts(&mut self, events: &mut Vec<Event<H>>) {
        for _ in 0..limits::HAND_OVERS_MAX {
            let Ok(post) = self.inbox.try_recv() else { return };
            match post {
                Post::Arrive { socket, item, from, reply } => {
                    let answer = match self.adopt(socket) {
                        Ok(conn) => {
                            self.stats.arrivals += 1;
                            events.push(Event::Arrived { conn, item });
                            Post::Taken { conn: from }
                        }
                        Err((socket, errno)) => Post::Refused { conn: from, socket, item, errno },
                    };
                    post_to(&reply, answer);
                }
                Post::Taken { conn } => {
                    self.stats.hand_overs += 1;
                    self.slots[conn as usize].phase = Phase::Free;
                    events.push(Event::HandedOver { conn });
                    self.vacate(conn);
                }
                Post::Refused { conn, socket, item, errno } => {
                    self.reclaim(conn, socket);
                    self.stats.hand_over_failures += 1;
                    events.push(Event::HandOverFailed { conn, item, errno });
                }
            }
        }
        // More may be there: come back for it.
        self.waker.wake();
    }

    /// A connection that could not leave is ours again.
    pub(super) fn reclaim(&mut self, conn: Conn, socket: OwnedFd) {
        let watched = self.watch(conn, socket.as_raw_fd());
        let slot = &mut self.slots[conn as usize];
        slot.phase = Phase::Open;
        slot.fd = socket.into_raw_fd();
        (slot.readable, slot.writable) = (true, true);
        // Without a registration it can only be read and written until it would block; end it there.
        if watched.is_err() {
            // SAFETY: shutdown takes no pointer.
            unsafe { libc::shutdown(slot.fd, libc::SHUT_RDWR) };
        }
    }
}

/// Puts a message into another driver's inbox and rings its bell. Comes back when nobody is there.
pub(super) fn post_to<H>(address: &Address<H>, post: Post<H>) -> Option<Post<H>> {
    let Door::Inbox(sender) = &address.door else { return Some(post) };
    let unsent = sender.send(post).err().map(|e| e.0);
    address.waker.wake();
    unsent
}
