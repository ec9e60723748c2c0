//! Receive buffers on the heap, for a driver that has no kernel behind it: the simulation's.

use super::Lease;

/// Leases that were leased and not released yet. Each lease has an allocation of its own, so that a reader
/// behind a release is found by the tools that watch memory.
#[derive(Debug, Default)]
pub struct Leases {
    /// By the lease's name; `None` is free.
    places: Vec<Option<*mut [u8]>>,
    leased: usize,
}

impl Leases {
    /// Copies `bytes` into a buffer of their own and leases it.
    pub fn lease(&mut self, bytes: &[u8]) -> Lease {
        let pointer = Box::into_raw(Box::<[u8]>::from(bytes));
        let id = self.places.iter().position(Option::is_none).unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[id] = Some(pointer);
        self.leased += 1;
        Lease::new(pointer.cast(), bytes.len() as u32, id as u32)
    }

    /// Takes a lease back and frees its buffer. It must be one of this pool.
    pub fn release(&mut self, lease: Lease) {
        let place = self.places.get_mut(lease.id() as usize).and_then(Option::take);
        let pointer = place.expect("a lease is released once, to the pool that made it");
        assert!(std::ptr::eq(pointer.cast(), lease.pointer), "a lease is released to the pool that made it");
        self.leased -= 1;
        // SAFETY: the pointer came from `Box::into_raw` in `lease`; it was taken out of its place, so it is
        // freed once, and the one lease that read it is consumed here.
        drop(unsafe { Box::from_raw(pointer) });
    }

    /// Leases that were not released yet.
    pub fn leased(&self) -> usize {
        self.leased
    }
}

// There is no `Drop`: what is still leased may be read, so it is leaked rather than freed.

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_its_bytes_until_it_is_released() {
        let mut leases = Leases::default();
        let (one, two) = (leases.lease(b"one"), leases.lease(b""));
        assert_eq!((&*one, &*two, leases.leased()), (&b"one"[..], &b""[..], 2));
        leases.release(one);
        let three = leases.lease(b"three");
        assert_eq!((&*three, &*two, leases.leased()), (&b"three"[..], &b""[..], 2));
        leases.release(two);
        leases.release(three);
        assert_eq!(leases.leased(), 0);
    }

    #[test]
    #[should_panic(expected = "the pool that made it")]
    fn a_lease_of_another_pool_is_refused() {
        let (mut ours, mut other) = (Leases::default(), Leases::default());
        let _kept = ours.lease(b"ours");
        ours.release(other.lease(b"theirs"));
    }
}
