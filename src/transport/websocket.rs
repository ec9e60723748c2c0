//! WebSocket [RFC 6455] as a transform of bytes: the payload of binary frames, in whatever pieces, is the stream of
//! MQTT [MQTT-6.0.0-1, -2]. Frames are parsed where they lie; nothing waits for the end of a message.
//!
//! ```text
//!   Head ──► Frames ──► Closed
//!     └── refused ────────┘
//! ```
//!
//! The two ends differ in their heads, and in that frames of a client are masked.

use super::upgrade::{DialWebSocket, Masks, WebSocketTerms, read_upgrade};
use super::{Fate, Fault, Layer};
use crate::limits::{WS_CONTROL_BYTES_MAX, WS_HEAD_BYTES_MAX, WS_REPLY_BYTES_MAX};
use std::io::Cursor;
use std::sync::Arc;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{self, Control, Data, OpCode};

/// Bytes of a frame's head at most.
const FRAME_HEAD_BYTES_MAX: usize = 14;

/// Why a WebSocket is closed [RFC 6455, 7.4.1].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum CloseCode {
    /// MQTT has ended.
    Normal = 1000,
    /// The broker stops.
    Away = 1001,
    /// The peer's frames are wrong.
    Protocol = 1002,
    /// Text, of which MQTT has none [MQTT-6.0.0-1].
    Unsupported = 1003,
    /// The reason of a close frame is no UTF-8.
    Invalid = 1007,
    /// The peer broke a rule of MQTT or of this broker.
    Policy = 1008,
    /// More than is taken.
    Size = 1009,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Head,
    Frames,
    Closed,
}

/// Which end of it this is.
#[derive(Debug)]
enum End {
    Server(Arc<WebSocketTerms>),
    Client(Masks),
}

/// One connection's WebSocket.
#[derive(Debug)]
pub(super) struct WebSocket {
    end: End,
    state: State,
    /// A message is under way: its next frame is a continuation.
    in_message: bool,
    /// A frame is under way.
    in_frame: bool,
    is_final: bool,
    is_control: bool,
    control: Control,
    /// Of the frame that is under way: bytes to come, and the mask as it applies to the next one.
    left: u64,
    mask: [u8; 4],
    /// The request, the head of a frame or the payload of a control frame, until it is complete.
    part: Vec<u8>,
    /// The answer to the request and pongs that wait to be sent.
    reply: Vec<u8>,
    /// A close frame that waits to be sent, behind everything else.
    farewell: Vec<u8>,
    /// Nothing more may be sent.
    ended: bool,
    /// It is no WebSocket and will be none.
    refused: bool,
    /// What the request said of those for whom proxies speak, until it is taken.
    pub forwarded: Option<Box<str>>,
}

impl WebSocket {
    pub fn new(terms: Arc<WebSocketTerms>) -> WebSocket {
        WebSocket::of(End::Server(terms))
    }

    /// The client's side, which begins. The seed decides its key and its masks.
    pub fn dial(terms: &DialWebSocket, seed: u64) -> WebSocket {
        let masks = Masks::new(seed);
        let reply = terms.request(&masks);
        WebSocket { reply, ..WebSocket::of(End::Client(masks)) }
    }

    fn of(end: End) -> WebSocket {
        WebSocket {
            end,
            state: State::Head,
            in_message: false,
            in_frame: false,
            is_final: false,
            is_control: false,
            control: Control::Close,
            left: 0,
            mask: [0; 4],
            part: Vec::new(),
            reply: Vec::new(),
            farewell: Vec::new(),
            ended: false,
            refused: false,
            forwarded: None,
        }
    }

    pub fn is_upgrading(&self) -> bool {
        self.state == State::Head
    }

    #[inline]
    pub fn has_output(&self) -> bool {
        !self.reply.is_empty() || !self.farewell.is_empty()
    }

    pub fn bytes(&self) -> usize {
        let forwarded = self.forwarded.as_ref().map_or(0, |values| values.len());
        self.part.capacity() + self.reply.capacity() + self.farewell.capacity() + forwarded
    }

    /// Takes what came, and appends the payload of binary frames.
    pub fn receive(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<Fate, Fault> {
        let result = match self.state {
            State::Head => {
                let behind = self.upgrade(bytes)?;
                self.receive_frames(&behind, plain)
            }
            State::Frames | State::Closed => self.receive_frames(bytes, plain),
        };
        if self.part.is_empty() {
            self.part = Vec::new();
        }
        result
    }

    /// Reads the request; returns what came behind it.
    fn upgrade(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        // The end may have begun in what came before.
        let from = self.part.len().saturating_sub(3);
        let room = WS_HEAD_BYTES_MAX.saturating_sub(self.part.len());
        let (now, later) = bytes.split_at(bytes.len().min(room));
        self.part.extend_from_slice(now);
        let Some(end) = self.part[from..].windows(4).position(|four| four == b"\r\n\r\n") else {
            if self.part.len() < WS_HEAD_BYTES_MAX {
                return Ok(Vec::new());
            }
            return Err(self.refuse(
                "431 Request Header Fields Too Large",
                "",
                format!("expected an upgrade request of {WS_HEAD_BYTES_MAX} bytes at most"),
            ));
        };
        let end = from + end + 4;
        let part = std::mem::take(&mut self.part);
        match &self.end {
            End::Server(terms) => match read_upgrade(&part[..end], terms) {
                Ok(granted) => {
                    self.reply.extend_from_slice(granted.answer.as_bytes());
                    self.forwarded = granted.forwarded;
                }
                Err(refusal) => return Err(self.refuse(refusal.status, refusal.headers, refusal.text)),
            },
            End::Client(masks) => {
                if let Err(text) = masks.read_answer(&part) {
                    return Err(self.give_up(format!("WebSocket: {text}")));
                }
            }
        }
        self.state = State::Frames;
        Ok([&part[end..], later].concat())
    }

    /// It will be no WebSocket.
    fn give_up(&mut self, text: String) -> Fault {
        (self.state, self.refused) = (State::Closed, true);
        self.part = Vec::new();
        Fault { layer: Layer::WebSocket, text }
    }

    fn refuse(&mut self, status: &str, headers: &str, text: String) -> Fault {
        if let End::Client(_) = self.end {
            return self.give_up(format!(
                "expected the answer of a WebSocket, got {WS_HEAD_BYTES_MAX} bytes of something else"
            ));
        }
        let head = "Connection: close\r\nContent-Type: text/plain\r\n";
        let length = text.len() + 1;
        let answer = format!("HTTP/1.1 {status}\r\n{head}{headers}Content-Length: {length}\r\n\r\n{text}\n");
        self.reply.extend_from_slice(answer.as_bytes());
        self.give_up(text)
    }

    fn receive_frames(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<Fate, Fault> {
        while self.state == State::Frames {
            if !self.in_frame {
                match self.begin(bytes)? {
                    Some(rest) => bytes = rest,
                    None => return Ok(Fate::Open),
                }
            }
            let take = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(take);
            let target = if self.is_control { &mut self.part } else { &mut *plain };
            let at = target.len();
            target.extend_from_slice(now);
            unmask(&mut target[at..], &mut self.mask);
            self.left -= take as u64;
            bytes = later;
            if self.left > 0 {
                return Ok(Fate::Open);
            }
            self.in_frame = false;
            if self.is_control {
                let payload = std::mem::take(&mut self.part);
                self.obey(&payload)?;
            } else {
                self.in_message = !self.is_final;
            }
        }
        Ok(if self.state == State::Closed { Fate::Ended } else { Fate::Open })
    }

    /// Reads the head of a frame, of which a part may have come before; returns what follows it.
    fn begin<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        let mut head = [0; FRAME_HEAD_BYTES_MAX];
        let known = self.part.len();
        let filled = (known + bytes.len()).min(FRAME_HEAD_BYTES_MAX);
        head[..known].copy_from_slice(&self.part);
        head[known..filled].copy_from_slice(&bytes[..filled - known]);
        let mut cursor = Cursor::new(&head[..filled]);
        let (frame, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => {
                self.part.extend_from_slice(bytes);
                return Ok(None);
            }
            Err(error) => return Err(self.fault(CloseCode::Protocol, &error.to_string())),
        };
        let used = cursor.position() as usize;
        if let Err((code, text)) = self.check(&frame, length, used) {
            return Err(self.fault(code, text));
        }
        self.part = Vec::new();
        (self.in_frame, self.is_final, self.left) = (true, frame.is_final, length);
        self.mask = frame.mask.unwrap_or_default();
        self.is_control = match frame.opcode {
            OpCode::Control(control) => {
                self.control = control;
                true
            }
            OpCode::Data(_) => false,
        };
        Ok(Some(&bytes[used - known..]))
    }

    fn check(&self, frame: &FrameHeader, length: u64, used: usize) -> Result<(), (CloseCode, &'static str)> {
        let protocol = |text| Err((CloseCode::Protocol, text));
        if frame.rsv1 || frame.rsv2 || frame.rsv3 {
            return protocol("expected no reserved bits, for no extension was agreed upon");
        }
        let bytes_max = match &self.end {
            End::Server(_) if frame.mask.is_none() => {
                return protocol("expected a frame of a client to be masked");
            }
            End::Client(_) if frame.mask.is_some() => {
                return protocol("expected a frame of a server not to be masked");
            }
            End::Server(terms) => terms.frame_bytes_max,
            // Nothing is kept of a frame.
            End::Client(_) => u64::MAX,
        };
        if frame.len(length) != used {
            return protocol("expected the shortest form of a frame's length");
        }
        match frame.opcode {
            OpCode::Control(_) if !frame.is_final => protocol("expected a control frame to be in one piece"),
            OpCode::Control(_) if length > WS_CONTROL_BYTES_MAX as u64 => {
                protocol("expected at most 125 bytes in a control frame")
            }
            OpCode::Control(_) => Ok(()),
            OpCode::Data(Data::Continue) if !self.in_message => {
                protocol("expected a continuation to follow a part of a message")
            }
            OpCode::Data(Data::Text | Data::Binary) if self.in_message => {
                protocol("expected the continuation of a message, got a new one")
            }
            OpCode::Data(Data::Text) => Err((CloseCode::Unsupported, "expected binary frames, got text")),
            OpCode::Data(_) if length > bytes_max => {
                Err((CloseCode::Size, "expected a frame within the listener's limit"))
            }
            OpCode::Data(_) => Ok(()),
        }
    }

    /// A control frame is complete.
    fn obey(&mut self, payload: &[u8]) -> Result<(), Fault> {
        match self.control {
            // One that sends pings and reads nothing gets no more answers than this.
            Control::Ping if self.reply.len() < WS_REPLY_BYTES_MAX => {
                let mask = self.mask();
                push(OpCode::Control(Control::Pong), payload, mask, &mut self.reply);
            }
            Control::Ping | Control::Pong | Control::Reserved(_) => {}
            Control::Close => {
                let code = match payload {
                    [] => None,
                    [high, low, reason @ ..] => {
                        let code = coding::CloseCode::from(u16::from_be_bytes([*high, *low]));
                        if !code.is_allowed() {
                            let text = "expected a status code that may be sent";
                            return Err(self.fault(CloseCode::Protocol, text));
                        }
                        if std::str::from_utf8(reason).is_err() {
                            let text = "expected the reason of a close frame in UTF-8";
                            return Err(self.fault(CloseCode::Invalid, text));
                        }
                        Some([*high, *low])
                    }
                    _ => {
                        let text = "expected a status code of two bytes";
                        return Err(self.fault(CloseCode::Protocol, text));
                    }
                };
                self.say_close(code);
                self.state = State::Closed;
            }
        }
        Ok(())
    }

    fn fault(&mut self, code: CloseCode, text: &str) -> Fault {
        self.part = Vec::new();
        self.say_close(Some((code as u16).to_be_bytes()));
        self.state = State::Closed;
        Fault { layer: Layer::WebSocket, text: format!("WebSocket: {text}") }
    }

    /// The mask of the next frame that is sent.
    fn mask(&mut self) -> Option<[u8; 4]> {
        match &mut self.end {
            End::Server(_) => None,
            End::Client(masks) => Some(masks.next()),
        }
    }

    fn say_close(&mut self, code: Option<[u8; 2]>) {
        if !self.ended && self.farewell.is_empty() {
            let payload = code.as_ref().map_or(&[][..], |code| &code[..]);
            let mask = self.mask();
            push(OpCode::Control(Control::Close), payload, mask, &mut self.farewell);
        }
    }

    /// Appends one frame that carries these bytes, and at the end a close frame.
    pub fn seal(&mut self, plain: &[u8], closing: Option<CloseCode>, wire: &mut Vec<u8>) {
        wire.append(&mut self.reply);
        self.reply = Vec::new();
        let upgraded = self.state != State::Head && !self.refused;
        if !plain.is_empty() && upgraded && !self.ended {
            let mask = self.mask();
            push(OpCode::Data(Data::Binary), plain, mask, wire);
        }
        if let Some(code) = closing.filter(|_| upgraded) {
            self.state = State::Closed;
            self.say_close(Some((code as u16).to_be_bytes()));
        }
        self.ended |= !self.farewell.is_empty();
        wire.append(&mut self.farewell);
        self.farewell = Vec::new();
    }
}

/// Appends a frame.
fn push(opcode: OpCode, payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
    out.reserve(FRAME_HEAD_BYTES_MAX + payload.len());
    header.format(payload.len() as u64, out).expect("a vector takes what is written to it");
    let at = out.len();
    out.extend_from_slice(payload);
    if let Some(mut mask) = mask {
        unmask(&mut out[at..], &mut mask);
    }
}

/// Applies the mask, which undoes it as well; it is turned so that it applies to the byte after these.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let [a, b, c, d] = *mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (eights, rest) = bytes.as_chunks_mut::<8>();
    for eight in eights {
        *eight = (u64::from_ne_bytes(*eight) ^ wide).to_ne_bytes();
    }
    let turn = rest.len() % 4;
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    mask.rotate_left(turn);
}
