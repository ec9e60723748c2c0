//! What a peer speaks through, and what that leads to.

use super::broker::Broker;
use super::peer::TIMEOUT;
use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A broker that a peer can connect to.
pub trait Ground {
    /// What it is reached through.
    type Socket: Socket;

    /// A new connection.
    fn dial(&self) -> Self::Socket;
}

/// One connection, with the clock of its ground.
pub trait Socket: Debug {
    /// Sends all bytes; waits for room for [`TIMEOUT`] at most.
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()>;

    /// Bytes that come within this time; none at the end of the connection, in order or by a reset. `None`: the
    /// time has passed.
    fn receive(&mut self, within: Duration) -> Option<Vec<u8>>;

    /// Ends the stream to the broker.
    fn end_sending(&mut self);

    /// The time since some moment.
    fn now(&self) -> Duration;
}

/// The time since this was first asked for, on the clock of the machine.
pub fn uptime() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

impl Ground for Broker {
    type Socket = TcpStream;

    fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr()).expect("the broker takes connections");
        stream.set_nodelay(true).expect("a socket takes TCP_NODELAY");
        stream
    }
}

/// The same for sockets with addresses and those with paths.
macro_rules! sockets {
    ($($ty:ty)*) => {$(
impl Socket for $ty {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.set_write_timeout(Some(TIMEOUT))?;
        self.write_all(bytes)
    }

    fn receive(&mut self, within: Duration) -> Option<Vec<u8>> {
        // A timeout of 0 would mean to wait for ever.
        let within = within.max(Duration::from_millis(1));
        self.set_read_timeout(Some(within)).expect("a socket takes a timeout");
        let mut buffer = [0; 16_384];
        loop {
            match self.read(&mut buffer) {
                Ok(len) => return Some(buffer[..len].to_vec()),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return None,
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Some(Vec::new()),
                    _ => panic!("cannot receive: {error}"),
                },
            }
        }
    }

    fn end_sending(&mut self) {
        // It may be closed by now.
        let _ = self.shutdown(Shutdown::Write);
    }

    fn now(&self) -> Duration {
        uptime()
    }
}
    )*};
}

sockets!(TcpStream UnixStream);
