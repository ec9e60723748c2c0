//! Many clients on one thread: each is a task that reads while it writes.

use super::common::Login;
use ringmq::codec::{
    Ack, AckKind, Framed, Packet, PacketId, Properties, Publish, ReasonCode, Version, decode, frame,
};
use ringmq::limits::PACKET_BYTES_MAX;
use ringmq::message::QoS;
use std::io::ErrorKind;
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};

/// A client whose socket never blocks.
pub struct Client {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
    /// Bytes of `input` that were taken.
    taken: usize,
    output: Vec<u8>,
    next_id: u16,
}

impl Client {
    /// Connects and asserts that CONNACK says success. `receive_bytes` is the size of the socket's buffer.
    pub async fn connect(addr: SocketAddr, login: &Login, receive_bytes: Option<u32>) -> Client {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).expect("a socket takes SO_RCVBUF");
        }
        let stream = socket.connect(addr).await.expect("the broker takes connections");
        let version = login.version;
        let mut client =
            Client { stream, version, input: Vec::new(), taken: 0, output: login.bytes(), next_id: 0 };
        let answer = client.next().await;
        match client.decode(&answer) {
            Packet::ConnAck(connack) if connack.code == ReasonCode::SUCCESS => client,
            other => panic!("CONNACK of success, got {other:?}"),
        }
    }

    /// The packet in these bytes.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Packet<'a> {
        decode(self.version, bytes).unwrap_or_else(|e| panic!("the broker sent {bytes:02x?}: {e}"))
    }

    /// Appends a packet to the output.
    pub fn push(&mut self, packet: &Packet<'_>) {
        packet.encode(self.version, &mut self.output);
    }

    /// Appends an acknowledgement of success.
    pub fn push_ack(&mut self, kind: AckKind, packet_id: PacketId) {
        let (code, properties) = (ReasonCode::SUCCESS, Properties::EMPTY);
        self.push(&Packet::Ack(Ack { kind, packet_id, code, properties }));
    }

    /// Appends a PUBLISH.
    pub fn push_publish(&mut self, topic: &str, payload: &[u8], qos: QoS) {
        self.next_id = self.next_id % u16::MAX + 1;
        let packet_id = PacketId::new(self.next_id).filter(|_| qos != QoS::AtMostOnce);
        let (properties, retain, dup) = (Properties::EMPTY, false, false);
        self.push(&Packet::Publish(Publish { dup, qos, retain, topic, packet_id, properties, payload }));
    }

    /// Bytes that have not left.
    pub fn unsent(&self) -> usize {
        self.output.len()
    }

    /// The next packet that is there already.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        match frame(&self.input[self.taken..], PACKET_BYTES_MAX).expect("the broker sends packets") {
            Framed::Packet { total, .. } => {
                let packet = self.input[self.taken..self.taken + total].to_vec();
                self.taken += total;
                Some(packet)
            }
            Framed::Incomplete { .. } => {
                self.input.drain(..self.taken);
                self.taken = 0;
                None
            }
        }
    }

    /// The next packet, which must come; sends meanwhile.
    pub async fn next(&mut self) -> Vec<u8> {
        self.next_or_end().await.expect("the broker keeps the connection")
    }

    /// The next packet, `None` at the end of the connection; sends meanwhile.
    pub async fn next_or_end(&mut self) -> Option<Vec<u8>> {
        loop {
            let packet = self.take();
            if packet.is_some() || !self.turn().await {
                return packet;
            }
        }
    }

    /// Waits until the socket takes or has bytes, and moves them; false at the end of the connection.
    pub async fn turn(&mut self) -> bool {
        tokio::select! {
            ready = self.stream.readable() => ready.expect("a socket that can be waited on"),
            ready = self.stream.writable(), if !self.output.is_empty() => {
                ready.expect("a socket that can be waited on");
            }
        }
        let mut buffer = [0; 16_384];
        match self.stream.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(len) => self.input.extend_from_slice(&buffer[..len]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        self.write();
        true
    }

    /// Sends everything without reading.
    pub async fn flush(&mut self) {
        while !self.output.is_empty() {
            self.stream.writable().await.expect("a socket that can be waited on");
            self.write();
        }
    }

    fn write(&mut self) {
        if self.output.is_empty() {
            return;
        }
        match self.stream.try_write(&self.output) {
            Ok(len) => drop(self.output.drain(..len)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
}
