//! What is sent: a kind and 64 bytes.

/// Bytes of a frame.
pub const FRAME: usize = 65;
/// Comes back to its sender.
pub const ECHO: u8 = b'e';
/// Makes its sender a subscriber, and comes back.
pub const SUBSCRIBE: u8 = b's';
/// Goes to all subscribers.
pub const PUBLISH: u8 = b'p';

/// `count` frames of a kind, one after another.
pub fn frames(kind: u8, count: usize) -> Vec<u8> {
    let mut one = [b'x'; FRAME];
    one[0] = kind;
    one.repeat(count)
}

/// Bytes of one connection in, whole frames out.
#[derive(Default)]
pub struct Framer(Vec<u8>);

impl Framer {
    /// Hands each frame that is complete to `each`.
    pub fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        if !self.0.is_empty() {
            let missing = bytes.len().min(FRAME - self.0.len());
            self.0.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.0.len() < FRAME {
                return;
            }
            each(&self.0);
            self.0.clear();
        }
        let (whole, rest) = bytes.as_chunks::<FRAME>();
        whole.iter().for_each(|frame| each(frame));
        self.0.extend_from_slice(rest);
    }
}
