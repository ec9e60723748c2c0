//! What waits for a task that writes, for the servers on an async runtime.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// What waits to be written to one client, by a task of its own.
#[derive(Default)]
pub struct Output {
    bytes: RefCell<Vec<u8>>,
    waker: RefCell<Option<Waker>>,
}

impl Output {
    /// Adds a frame.
    pub fn put(&self, frame: &[u8]) {
        self.bytes.borrow_mut().extend_from_slice(frame);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// All that is there, once there is something.
    pub async fn take(&self, mut spare: Vec<u8>) -> Vec<u8> {
        poll_fn(|cx| {
            if !self.bytes.borrow().is_empty() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        spare.clear();
        std::mem::replace(&mut *self.bytes.borrow_mut(), spare)
    }
}

/// All who get what is published.
pub type Subscribers = Rc<RefCell<Vec<Rc<Output>>>>;
