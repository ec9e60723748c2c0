//! The requests that the io_uring driver makes, and how their completions find their connection.
//!
//! `user_data` is the operation (8 bits), the generation of the slot (24 bits) and its index (32 bits), so a
//! late completion does not reach the next owner of a slot. For a connection that arrives it is the operation
//! and the pointer (56 bits) of what travels with it. A call that is waited for at once has operation 0.

use super::buffers::GROUP;
use super::net::RawAddress;
use super::selftest::Features;
use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{DestinationSlot, Fd, Fixed};
use std::os::fd::RawFd;

/// What a completion is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Op {
    /// A listener accepted; the index is the listener's.
    Accept = 1,
    /// A plain descriptor was made, to ask for the peer's address.
    Install,
    /// A receive into one of the ring's buffers.
    Receive,
    /// A one-shot poll.
    Poll,
    /// A receive of a lingering connection, which keeps nothing.
    Discard,
    Send,
    /// An attempt to connect.
    Connect,
    /// A shutdown or a socket option, on the way to closing.
    Prepare,
    Close,
    /// A descriptor was sent to another ring.
    HandOver,
    /// The close that is linked behind it.
    Leave,
    /// A descriptor came from another ring.
    Arrival,
    /// Another ring woke us.
    Woken,
    /// We rang another shard, the index, and could not.
    Wake,
    /// A thread without a ring woke us.
    Bell,
    /// An annex ring has completions; the index is the ring's.
    Annex,
    /// Nobody waits for this one.
    Forget,
}

const OPS: [Op; 17] = [
    Op::Accept,
    Op::Install,
    Op::Receive,
    Op::Poll,
    Op::Discard,
    Op::Send,
    Op::Connect,
    Op::Prepare,
    Op::Close,
    Op::HandOver,
    Op::Leave,
    Op::Arrival,
    Op::Woken,
    Op::Wake,
    Op::Bell,
    Op::Annex,
    Op::Forget,
];

/// Bits of a generation.
pub(super) const GENERATION: u32 = (1 << 24) - 1;
const POINTER: u64 = (1 << 56) - 1;

/// Names a request.
pub(super) fn name(op: Op, generation: u32, index: u32) -> u64 {
    (op as u64) << 56 | u64::from(generation & GENERATION) << 32 | u64::from(index)
}

/// What a completion is about; `None` for what no driver of ours wrote.
pub(super) fn op(user_data: u64) -> Option<Op> {
    let number = (user_data >> 56) as usize;
    OPS.get(number.wrapping_sub(1)).copied()
}

pub(super) fn generation(user_data: u64) -> u32 {
    (user_data >> 32) as u32 & GENERATION
}

pub(super) fn index(user_data: u64) -> u32 {
    user_data as u32
}

pub(super) fn pointer(user_data: u64) -> u64 {
    user_data & POINTER
}

/// `IORING_RECVSEND_POLL_FIRST`: do not try before the socket is readable.
const POLL_FIRST: u16 = 1;
/// Where an entry holds `optlen`, for which the crate has no setter.
const OPTLEN_OFFSET: usize = 44;

pub(super) fn accept_many(listener: RawFd) -> Entry {
    opcode::AcceptMulti::new(Fd(listener)).allocate_file_index(true).build()
}

pub(super) fn accept_one(listener: RawFd) -> Entry {
    let slot = Some(DestinationSlot::auto_target());
    opcode::Accept::new(Fd(listener), std::ptr::null_mut(), std::ptr::null_mut()).file_index(slot).build()
}

pub(super) fn install(slot: u32) -> Entry {
    opcode::FixedFdInstall::new(Fixed(slot), 0).build()
}

/// One receive into a buffer of the ring. `wait`: the socket is likely to have nothing yet.
pub(super) fn receive(slot: u32, wait: bool) -> Entry {
    let first = if wait { POLL_FIRST } else { 0 };
    opcode::Recv::new(Fixed(slot), std::ptr::null_mut(), 0)
        .buf_group(GROUP)
        .ioprio(first)
        .build()
        .flags(Flags::BUFFER_SELECT)
}

/// Receives until `credit` bytes came. Only where the self-test saw the credit work.
pub(super) fn receive_many(slot: u32, credit: u32) -> Entry {
    let mut entry = opcode::RecvMulti::new(Fixed(slot), GROUP).build();
    const { assert!(size_of::<Entry>() == 64 && OPTLEN_OFFSET + 4 <= 64) };
    // SAFETY: an entry is 64 bytes of plain data as the kernel defines it, and has 4 bytes at this offset
    // that a receive uses for nothing else.
    unsafe { (&raw mut entry).cast::<u8>().add(OPTLEN_OFFSET).cast::<u32>().write_unaligned(credit) };
    entry
}

/// A receive that drops what it finds, without a buffer.
pub(super) fn discard(slot: u32, bytes: u32) -> Entry {
    opcode::Recv::new(Fixed(slot), std::ptr::null_mut(), bytes).flags(libc::MSG_TRUNC).build()
}

pub(super) fn poll(slot: u32) -> Entry {
    opcode::PollAdd::new(Fixed(slot), libc::POLLIN as u32).build()
}

/// A poll of another ring.
pub(super) fn poll_ring(fd: RawFd) -> Entry {
    opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build()
}

/// A poll of a plain descriptor that stays armed.
pub(super) fn poll_bell(fd: RawFd) -> Entry {
    opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(true).build()
}

/// Sends all of it; ends short only on an error, a signal or above 2 GiB.
pub(super) fn send(slot: u32, bytes: &[u8]) -> Entry {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    opcode::Send::new(Fixed(slot), bytes.as_ptr(), len).flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL).build()
}

pub(super) fn shutdown(slot: u32, how: i32) -> Entry {
    opcode::Shutdown::new(Fixed(slot), how).build()
}

/// An address of no family: connecting to it ends a TCP connection.
static NOWHERE: libc::sockaddr =
    libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };

/// Resets the connection, which ends everything that is under way on it. (With `SO_LINGER` the shutdown that
/// has to come before the close would end the stream in order first.)
pub(super) fn reset(slot: u32) -> Entry {
    let len = size_of::<libc::sockaddr>() as libc::socklen_t;
    opcode::Connect::new(Fixed(slot), &raw const NOWHERE, len).build()
}

/// Connects to an address, which the kernel reads when the entry is submitted.
pub(super) fn connect(slot: u32, to: &RawAddress) -> Entry {
    opcode::Connect::new(Fixed(slot), to.pointer(), to.len()).build()
}

/// Puts a descriptor into a free slot, whose index takes the descriptor's place; done when it is submitted.
pub(super) fn place(descriptor: &mut RawFd) -> Entry {
    // The kernel takes this for "any".
    opcode::FilesUpdate::new(&raw mut *descriptor, 1).offset(-1).build()
}

pub(super) fn close(slot: u32) -> Entry {
    opcode::Close::new(Fixed(slot)).build()
}

/// Sends a descriptor to another ring, where it completes as `user_data`; linked to what comes behind it.
pub(super) fn send_descriptor(ring: RawFd, slot: u32, user_data: u64) -> Entry {
    opcode::MsgRingSendFd::new(Fd(ring), Fixed(slot), DestinationSlot::auto_target(), user_data)
        .build()
        .flags(Flags::IO_LINK)
}

/// Wakes another ring. No completion here when it worked.
pub(super) fn wake(ring: RawFd, shard: u32) -> Entry {
    opcode::MsgRingData::new(Fd(ring), 0, name(Op::Woken, 0, 0), None)
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(name(Op::Wake, 0, shard))
}

pub(super) fn cancel(user_data: u64) -> Entry {
    opcode::AsyncCancel::new(user_data).build().user_data(name(Op::Forget, 0, 0))
}

/// The receive of a stream with what the kernel can do.
pub(super) fn stream(features: &Features, slot: u32, credit: u32, wait: bool) -> Entry {
    if features.receive_credit { receive_many(slot, credit) } else { receive(slot, wait) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for each in OPS {
            let user_data = name(each, GENERATION + 6, 0xdead_beef);
            assert_eq!(op(user_data), Some(each));
            assert_eq!((generation(user_data), index(user_data)), (5, 0xdead_beef));
        }
        assert_eq!((op(0), op(u64::MAX)), (None, None));
        let user_data = (Op::Arrival as u64) << 56 | 0x7fff_1234_5678;
        assert_eq!((op(user_data), pointer(user_data)), (Some(Op::Arrival), 0x7fff_1234_5678));
    }
}
