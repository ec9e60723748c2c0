//! One io_uring instance: submitting, waiting, reaping. It knows nothing of connections.
//!
//! Belongs to the thread that built it: a single-issuer ring refuses others.

use super::selftest::Features;
use crate::limits;
use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, squeue};
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// The `user_data` of [`Ring::call`]: that of no operation.
const CALL: u64 = 0;
/// `IORING_ENTER_GETEVENTS`: run deferred work and post completions.
const GET_EVENTS: u32 = 1;

/// How long [`Ring::enter`] sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sleep {
    /// Not at all.
    Not,
    /// Until there is a completion or the time is over.
    For(Duration),
    /// Until there is a completion.
    Forever,
}

/// A ring and the views into its queues, which borrow from it: they are dropped first.
pub(super) struct Ring {
    submitter: ManuallyDrop<Submitter<'static>>,
    sq: ManuallyDrop<SubmissionQueue<'static>>,
    cq: ManuallyDrop<CompletionQueue<'static>>,
    owner: *mut IoUring,
    fd: RawFd,
    /// Entries that found the submission queue full, each with the number of entries from it to the end of
    /// its chain.
    backlog: VecDeque<(squeue::Entry, usize)>,
    /// Completions that a call found in front of its own.
    kept: VecDeque<cqueue::Entry>,
    pub(super) enters: u64,
    /// Times that completions did not fit the queue; the kernel kept them.
    pub(super) overflows: u64,
}

impl Ring {
    /// Builds a ring with the features given.
    pub(super) fn new(features: &Features, submissions: u32, completions: u32) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder.setup_submit_all().setup_cqsize(completions);
        if features.deferred {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        } else {
            builder.setup_coop_taskrun();
        }
        if features.no_sq_array {
            builder.setup_no_sqarray();
        }
        let ring = builder.build(submissions)?;
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let fd = ring.as_raw_fd();
        let owner = Box::into_raw(Box::new(ring));
        // SAFETY: `owner` is a live box that nothing else refers to; it is freed in `drop`, after the views.
        let (mut submitter, sq, cq) = unsafe { &mut *owner }.split();
        // It saves a lookup per enter; a thread has room for 16 of them, so it may fail.
        let _ = submitter.register_ring_fd();
        Ok(Ring {
            submitter: ManuallyDrop::new(submitter),
            sq: ManuallyDrop::new(sq),
            cq: ManuallyDrop::new(cq),
            owner,
            fd,
            backlog: VecDeque::new(),
            kept: VecDeque::new(),
            enters: 0,
            overflows: 0,
        })
    }

    pub(super) fn submitter(&self) -> &Submitter<'static> {
        &self.submitter
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Bytes of its queues, which are mapped: entries, and the index of the submission queue where there is one.
    pub(super) fn bytes(&self) -> usize {
        self.sq.capacity() * (size_of::<squeue::Entry>() + size_of::<u32>())
            + self.cq.capacity() * size_of::<cqueue::Entry>()
    }

    /// Queues an entry for the next enter.
    ///
    /// What the entry points to must stay until its completion.
    pub(super) fn push(&mut self, entry: squeue::Entry) {
        self.push_linked(&[entry]);
    }

    /// Queues entries that are linked; a link does not reach over two submissions.
    pub(super) fn push_linked(&mut self, entries: &[squeue::Entry]) {
        if self.backlog.is_empty() && self.sq.capacity() - self.sq.len() < entries.len() {
            self.submit();
        }
        // SAFETY: the drivers keep what an entry points to until its completion: outgoing buffers in the
        // outbox, everything else static.
        if !self.backlog.is_empty() || unsafe { self.sq.push_multiple(entries) }.is_err() {
            let chain = (1..=entries.len()).rev();
            self.backlog.extend(entries.iter().cloned().zip(chain));
        }
    }

    /// Moves what waited into the queue, submitting as long as there is more; links stay together.
    fn move_backlog(&mut self) {
        while !self.backlog.is_empty() {
            let mut moved = false;
            while let Some((_, chain)) = self.backlog.front() {
                let chain = *chain;
                if self.sq.capacity() - self.sq.len() < chain {
                    break;
                }
                for (entry, _) in self.backlog.drain(..chain) {
                    // SAFETY: as in `push_linked`; there is room, as was checked.
                    let _ = unsafe { self.sq.push(&entry) };
                }
                moved = true;
            }
            if self.backlog.is_empty() || !moved {
                return;
            }
            self.submit();
        }
    }

    /// Submits without collecting.
    fn submit(&mut self) {
        self.sq.sync();
        self.enters += 1;
        tolerate(self.submitter.submit());
        self.sq.sync();
    }

    /// Submits everything, runs deferred work, and sleeps as told, all in one system call.
    pub(super) fn enter(&mut self, sleep: Sleep) {
        self.move_backlog();
        self.sq.sync();
        self.enters += 1;
        let sleep = if self.backlog.is_empty() && self.kept.is_empty() { sleep } else { Sleep::Not };
        tolerate(match sleep {
            Sleep::Forever => self.submitter.submit_and_wait(1),
            Sleep::For(time) => {
                let time = Timespec::from(time);
                self.submitter.submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
            Sleep::Not => {
                let submit = self.sq.len() as u32;
                // SAFETY: no argument is passed.
                unsafe { self.submitter.enter::<libc::sigset_t>(submit, 0, GET_EVENTS, None) }
            }
        });
        self.sq.sync();
        self.cq.sync();
        // One enter runs about twenty pieces of deferred work. What is left says so, and running it now makes
        // one batch of it: fewer ticks and fewer, larger sends. The kernel can leave the flag up with nothing
        // behind it, so an enter that brings nothing is the last one.
        let mut had = 0;
        while self.sq.taskrun() && (had + 1..limits::COMPLETIONS_PER_TURN).contains(&self.completions()) {
            had = self.completions();
            self.enters += 1;
            // SAFETY: no argument is passed.
            tolerate(unsafe { self.submitter.enter::<libc::sigset_t>(0, 0, GET_EVENTS, None) });
            self.cq.sync();
        }
        self.overflows += u64::from(self.sq.cq_overflow());
    }

    /// Has the kernel do something that it does when it is submitted, and returns the result. Other
    /// completions stay for `next`. One call at a time, and never from between `next` and `reaped`.
    pub(super) fn call(&mut self, entry: squeue::Entry) -> i32 {
        self.push(entry.user_data(CALL));
        loop {
            self.enter(Sleep::Not);
            for entry in &mut *self.cq {
                if entry.user_data() == CALL {
                    self.cq.sync();
                    return entry.result();
                }
                self.kept.push_back(entry);
            }
            self.cq.sync();
        }
    }

    /// The next completion of those that the last enter brought.
    pub(super) fn next(&mut self) -> Option<cqueue::Entry> {
        if let Some(entry) = self.kept.pop_front() {
            return Some(entry);
        }
        self.cq.next()
    }

    /// Completions that are there without an enter, in a ring whose work is not deferred.
    pub(super) fn look(&mut self) -> usize {
        self.cq.sync();
        self.completions()
    }

    /// Whether an enter would do something: there are entries to submit, or completions that the kernel keeps.
    pub(super) fn has_submissions(&mut self) -> bool {
        !self.sq.is_empty() || !self.backlog.is_empty() || self.sq.cq_overflow()
    }

    /// Tells the kernel which places of the completion queue are free.
    pub(super) fn reaped(&mut self) {
        self.cq.sync();
    }

    /// Completions that `next` has, at this moment.
    pub(super) fn completions(&self) -> usize {
        self.kept.len() + self.cq.len()
    }

    /// Cancels everything and waits for it. Whether nothing is under way any more.
    pub(super) fn cancel_all(&mut self) -> bool {
        let time = Timespec::from(Duration::from_millis(limits::CANCEL_ALL_MS));
        match self.submitter.register_sync_cancel(Some(time), CancelBuilder::any()) {
            Ok(()) => true,
            Err(e) => e.raw_os_error() == Some(libc::ENOENT),
        }
    }
}

/// Takes the errors that say "later"; others mean that this program calls the kernel wrongly.
fn tolerate(result: io::Result<usize>) {
    if let Err(e) = result {
        let transient = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN, libc::ENOMEM];
        assert!(
            e.raw_os_error().is_some_and(|errno| transient.contains(&errno)),
            "io_uring_enter on a ring of this thread fails transiently only: {e}"
        );
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // A registered descriptor would keep the ring until its thread ends.
        let _ = self.submitter.unregister_ring_fd();
        // SAFETY: each is dropped once, and the ring that they borrow from after them.
        unsafe {
            ManuallyDrop::drop(&mut self.sq);
            ManuallyDrop::drop(&mut self.cq);
            ManuallyDrop::drop(&mut self.submitter);
            drop(Box::from_raw(self.owner));
        }
    }
}
