//! What went over one connection, counted small while it is little: an idle client pays 32 bytes.

macro_rules! traffic {
    ($($name:ident $doc:literal,)*) => {
        /// Bytes and packets of one connection.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Traffic {
            $(#[doc = $doc] pub $name: u64,)*
        }

        /// The same, since it was folded into a [`Traffic`] the last time.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Recent {
            $(#[doc = $doc] pub $name: u32,)*
        }

        impl Traffic {
            /// Adds what was counted since the last time.
            pub fn add(&mut self, recent: &Recent) {
                $(self.$name += u64::from(recent.$name);)*
            }
        }
    };
}

traffic! {
    recv_oct "Bytes received.",
    recv_cnt "Receives of the driver.",
    recv_pkt "MQTT packets received.",
    recv_msg "PUBLISH packets received.",
    send_oct "Bytes given to the driver.",
    send_cnt "Sends given to the driver.",
    send_pkt "MQTT packets sent.",
    send_msg "PUBLISH packets sent.",
}

/// Bytes from which on it is folded: what comes until somebody looks again fits beside them.
const FOLD_BYTES: u32 = 1 << 31;

impl Recent {
    /// Bytes were received.
    #[inline]
    pub fn received(&mut self, bytes: usize) {
        self.recv_oct = self.recv_oct.saturating_add(bytes as u32);
        self.recv_cnt += 1;
    }

    /// Bytes were given to the driver.
    #[inline]
    pub fn sent(&mut self, bytes: usize) {
        self.send_oct = self.send_oct.saturating_add(bytes as u32);
        self.send_cnt += 1;
    }

    /// Whether it must be folded, before a value overflows. Each packet has two bytes at least, so the bytes are
    /// the first to do so.
    #[inline]
    pub fn is_full(&self) -> bool {
        (self.recv_oct | self.send_oct) >= FOLD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_folded_and_what_was_not_add_up() {
        let (mut long, mut recent, mut bytes) = (Traffic::default(), Recent::default(), 0u64);
        for round in 0..200_000u64 {
            recent.received(65_536);
            recent.sent(100);
            recent.recv_pkt += 7;
            bytes += 65_536;
            if recent.is_full() {
                long.add(&std::mem::take(&mut recent));
            }
            let mut now = long;
            now.add(&recent);
            assert_eq!((now.recv_oct, now.recv_pkt, now.send_cnt), (bytes, 7 * (round + 1), round + 1));
        }
        assert!(long.recv_oct > u64::from(u32::MAX), "folded more than once");
    }
}
