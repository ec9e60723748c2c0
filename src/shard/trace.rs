//! A packet in words, for a trace: what it says, cut where it is long, and never a password.

use crate::codec::{AckKind, Packet, ReasonCode};
use crate::limits::{TRACE_PAYLOAD_BYTES_MAX, TRACE_TEXT_BYTES_MAX};
use crate::message::QoS;
use std::fmt::Write;

/// The name of a packet and what it says.
pub(super) fn describe(packet: &Packet) -> (&'static str, Box<str>) {
    let (name, text) = match packet {
        Packet::Connect(c) => {
            let user = c.username.map_or_else(String::new, |name| format!(", user {name:?}"));
            let password = if c.password.is_some() { ", a password" } else { "" };
            let will = c.will.map_or_else(String::new, |will| {
                format!(", will {}", message(will.qos, will.retain, will.topic, will.payload))
            });
            let (id, level) = (c.client_id, c.version.level());
            let (clean, keep_alive_s) = (u8::from(c.clean_start), c.keep_alive_s);
            let text = format!("level {level}, client {id:?}, clean {clean}, keep alive {keep_alive_s}");
            ("CONNECT", format!("{text}{user}{password}{will}"))
        }
        Packet::ConnAck(a) => {
            ("CONNACK", format!("{}, session {}", code(a.code), u8::from(a.session_present)))
        }
        Packet::Publish(p) => {
            let id = p.packet_id.map_or_else(String::new, |id| format!("id {id}, "));
            let dup = if p.dup { "dup, " } else { "" };
            ("PUBLISH", format!("{id}{dup}{}", message(p.qos, p.retain, p.topic, p.payload)))
        }
        Packet::Ack(a) => {
            let name = match a.kind {
                AckKind::PubAck => "PUBACK",
                AckKind::PubRec => "PUBREC",
                AckKind::PubRel => "PUBREL",
                AckKind::PubComp => "PUBCOMP",
            };
            (name, format!("id {}, {}", a.packet_id, code(a.code)))
        }
        Packet::Subscribe(s) => {
            let filters =
                s.filters.iter().map(|(text, options)| format!(", {text:?} QoS {}", options.qos as u8));
            ("SUBSCRIBE", few(format!("id {}", s.packet_id), filters))
        }
        Packet::SubAck(s) => ("SUBACK", few(format!("id {}", s.packet_id), codes(s.codes))),
        Packet::Unsubscribe(u) => {
            let filters = u.filters.iter().map(|text| format!(", {text:?}"));
            ("UNSUBSCRIBE", few(format!("id {}", u.packet_id), filters))
        }
        Packet::UnsubAck(u) => ("UNSUBACK", few(format!("id {}", u.packet_id), codes(u.codes))),
        Packet::PingReq => ("PINGREQ", String::new()),
        Packet::PingResp => ("PINGRESP", String::new()),
        Packet::Disconnect(d) => ("DISCONNECT", code(d.code)),
        Packet::Auth(a) => ("AUTH", code(a.code)),
    };
    (name, cut(text))
}

/// A message in words.
pub(super) fn message(qos: QoS, retain: bool, topic: &str, payload: &[u8]) -> Box<str> {
    let retain = if retain { ", retain" } else { "" };
    let shown = &payload[..payload.len().min(TRACE_PAYLOAD_BYTES_MAX)];
    let more = if shown.len() < payload.len() { "…" } else { "" };
    let mut text = format!("QoS {}{retain}, {topic:?}, {} bytes: ", qos as u8, payload.len());
    text.truncate(nearest(&text, TRACE_TEXT_BYTES_MAX));
    // Into a text, which does not fail.
    let _ = write!(text, "{:?}{more}", String::from_utf8_lossy(shown));
    text.into()
}

fn code(code: ReasonCode) -> String {
    format!("{:#04x} {code}", code.0)
}

fn codes(codes: &[u8]) -> impl Iterator<Item = String> {
    codes.iter().map(|code| format!(", {code:#04x}"))
}

/// A text with as many parts as there is room for.
fn few(mut text: String, parts: impl Iterator<Item = String>) -> String {
    for part in parts {
        text.push_str(&part);
        if text.len() > TRACE_TEXT_BYTES_MAX {
            break;
        }
    }
    text
}

fn cut(mut text: String) -> Box<str> {
    let at = nearest(&text, TRACE_TEXT_BYTES_MAX);
    if at < text.len() {
        text.truncate(at);
        text.push('…');
    }
    text.into()
}

/// The place nearest to this many bytes where a text can be cut.
fn nearest(text: &str, bytes: usize) -> usize {
    (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Connect, Properties, Version, Will};

    #[test]
    fn a_password_is_not_shown() {
        let will = Will {
            topic: "w",
            payload: b"gone",
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Properties::EMPTY,
        };
        let connect = Connect {
            version: Version::V5,
            bridge: false,
            clean_start: true,
            keep_alive_s: 60,
            client_id: "c",
            will: Some(will),
            username: Some("u"),
            password: Some(b"secret"),
            properties: Properties::EMPTY,
        };
        let (name, text) = describe(&Packet::Connect(connect));
        let expected = "level 5, client \"c\", clean 1, keep alive 60, user \"u\", a password, will QoS 1, retain, \
                        \"w\", 4 bytes: \"gone\"";
        assert_eq!((name, &*text), ("CONNECT", expected));
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        let text = message(QoS::AtMostOnce, false, &"ä".repeat(30_000), &[b'x'; 5_000]);
        assert!(
            text.len() < TRACE_TEXT_BYTES_MAX + 2 * TRACE_PAYLOAD_BYTES_MAX && text.ends_with("\"…"),
            "{text}"
        );
        assert_eq!(cut("a".repeat(2_000)).len(), TRACE_TEXT_BYTES_MAX + '…'.len_utf8());
    }
}
