//! The header of the PROXY protocol, version 1 (a line) and 2 (binary), by which a proxy says whose connection it
//! passes on. From "The PROXY protocol", HAProxy, revision of 2020/03/05.
//!
//! Whether the sender may be believed is not decided here. Additional values (TLVs) of version 2 are skipped, but
//! their lengths must fit the header's.

use crate::limits::PROXY_HEADER_BYTES_MAX;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What begins a header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What begins a header of version 1.
const PREFIX: &[u8] = b"PROXY ";
/// Bytes of a header of version 1 at most, its end of line included.
const LINE_BYTES_MAX: usize = 107;
/// Bytes of a header of version 2 before its addresses.
const FIXED_BYTES: usize = 16;

const _: () = assert!(LINE_BYTES_MAX <= PROXY_HEADER_BYTES_MAX && FIXED_BYTES < PROXY_HEADER_BYTES_MAX);

/// What stands at the beginning of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// More bytes are needed.
    Incomplete,
    /// A whole header.
    Header {
        /// Its bytes; what follows is the client's.
        len: usize,
        /// Whose connection it is; `None`: the proxy's own (LOCAL), or one of which it does not know (UNKNOWN,
        /// UNSPEC) or that has no IP address.
        source: Option<SocketAddr>,
    },
}

/// Reads the header at the beginning of `bytes`.
///
/// # Errors
/// What was expected and what came.
pub fn parse(bytes: &[u8]) -> Result<Parsed, &'static str> {
    if begins(bytes, &SIGNATURE) {
        return binary(bytes);
    }
    if begins(bytes, PREFIX) {
        return line(bytes);
    }
    Err("expected a PROXY header, got something else")
}

/// Whether `bytes` are the beginning of this, or this is theirs.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(a, b)| a == b)
}

fn line(bytes: &[u8]) -> Result<Parsed, &'static str> {
    let within = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        if within.len() == LINE_BYTES_MAX {
            return Err("expected a PROXY line of at most 107 bytes, got a longer one");
        }
        return Ok(Parsed::Incomplete);
    };
    let bad = "expected a PROXY line such as \"PROXY TCP4 192.0.2.1 192.0.2.2 56324 1883\"";
    let text = std::str::from_utf8(&bytes[PREFIX.len().min(end)..end]).map_err(|_| bad)?;
    let len = end + 2;
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["UNKNOWN", ..] => Ok(Parsed::Header { len, source: None }),
        [family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let addr = |text: &str| match family {
                "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                _ => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            };
            let (Some(source), Some(_)) = (addr(source), addr(destination)) else { return Err(bad) };
            let (Some(port), Some(_)) = (port(source_port), port(destination_port)) else { return Err(bad) };
            Ok(Parsed::Header { len, source: Some(SocketAddr::new(source.to_canonical(), port)) })
        }
        _ => Err(bad),
    }
}

/// A port without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn binary(bytes: &[u8]) -> Result<Parsed, &'static str> {
    let Some(fixed) = bytes.get(..FIXED_BYTES) else { return Ok(Parsed::Incomplete) };
    let (version, command) = (fixed[12] >> 4, fixed[12] & 0x0F);
    let (family, transport) = (fixed[13] >> 4, fixed[13] & 0x0F);
    if version != 2 {
        return Err("expected version 2 of the PROXY protocol, got another one");
    }
    if command > 1 || family > 3 || transport > 2 {
        return Err("expected a command, a family and a transport that the PROXY protocol has");
    }
    let len = FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len > PROXY_HEADER_BYTES_MAX {
        return Err("expected a PROXY header of at most 4096 bytes, got a longer one");
    }
    let Some(body) = bytes.get(FIXED_BYTES..len) else { return Ok(Parsed::Incomplete) };
    // LOCAL: whatever the addresses say does not count, nor how long they are.
    if command == 0 {
        return Ok(Parsed::Header { len, source: None });
    }
    let (addresses, source) = match family {
        1 => (12, source::<4>(body, 8)),
        2 => (36, source::<16>(body, 32)),
        3 => (216, None),
        _ => (0, None),
    };
    let Some(values) = body.get(addresses..) else {
        return Err("expected addresses as long as their family has them in the PROXY header");
    };
    // Nothing is known of a family that is not specified, so that there may be anything behind it.
    if family != 0 {
        check_values(values)?;
    }
    // A datagram's source says nothing of a stream.
    Ok(Parsed::Header { len, source: source.filter(|_| transport == 1) })
}

/// The source address and its port, which stands at `port_at`.
fn source<const N: usize>(body: &[u8], port_at: usize) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let addr: [u8; N] = body.get(..N)?.try_into().ok()?;
    let port = body.get(port_at..port_at + 2)?;
    Some(SocketAddr::new(IpAddr::from(addr).to_canonical(), u16::from_be_bytes([port[0], port[1]])))
}

/// Each value has a type, a length of two bytes, and so many bytes.
fn check_values(mut values: &[u8]) -> Result<(), &'static str> {
    let bad = "expected additional values that fit the PROXY header, got one that is cut off";
    while !values.is_empty() {
        let &[_, high, low, ..] = values else { return Err(bad) };
        values = values.get(3 + usize::from(u16::from_be_bytes([high, low]))..).ok_or(bad)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(len: usize, source: Option<&str>) -> Result<Parsed, &'static str> {
        Ok(Parsed::Header { len, source: source.map(|text| text.parse().unwrap()) })
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &len, body].concat()
    }

    fn inet(values: &[u8]) -> Vec<u8> {
        [&[192, 0, 2, 1, 192, 0, 2, 2, 0xDC, 0x04, 0x07, 0x5B], values].concat()
    }

    /// Whatever is cut off is incomplete, and what follows does not matter.
    fn check_whole(bytes: &[u8], source: Option<&str>) {
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(Parsed::Incomplete), "{cut}");
        }
        assert_eq!(parse(bytes), header(bytes.len(), source));
        assert_eq!(parse(&[bytes, b"\x10\x00PROXY"].concat()), header(bytes.len(), source));
    }

    #[test]
    fn lines_of_version_1() {
        check_whole(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 1883\r\n", Some("192.0.2.1:56324"));
        check_whole(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", Some("[2001:db8::1]:1"));
        check_whole(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Some("192.0.2.1:1"));
        check_whole(b"PROXY UNKNOWN\r\n", None);
        check_whole(b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None);
        let longest = format!("PROXY UNKNOWN{}\r\n", " ".repeat(LINE_BYTES_MAX - 15));
        check_whole(longest.as_bytes(), None);
    }

    #[test]
    fn lines_that_are_wrong() {
        for text in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324 1883 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 1883\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 1883\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 1883\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 1 1883\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 \u{e4} 192.0.2.2 1 2\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "GET / HTTP/1.1\r\n",
            "\x10\x0c\0\x04MQTT",
            "\n",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        let endless = [b'x'; 200];
        assert_eq!(parse(&[PREFIX, &endless[..100]].concat()), Ok(Parsed::Incomplete));
        assert!(parse(&[PREFIX, &endless[..101]].concat()).is_err());
        assert!(parse(b"PROXY \xFF\xFF\r\n").is_err());
    }

    #[test]
    fn headers_of_version_2() {
        check_whole(&v2(1, 0x11, &inet(&[])), Some("192.0.2.1:56324"));
        let values = [0x04, 0, 3, 1, 2, 3, 0xEE, 0, 0, 0x20, 1, 0];
        check_whole(&v2(1, 0x11, &inet(&[&values[..], &[0; 256]].concat())), Some("192.0.2.1:56324"));
        let mut six = [0u8; 36];
        six[15] = 9;
        six[33] = 7;
        check_whole(&v2(1, 0x21, &six), Some("[::9]:7"));
        // A proxy's own connection, with or without addresses.
        check_whole(&v2(0, 0x00, &[]), None);
        check_whole(&v2(0, 0x11, &[1, 2, 3]), None);
        // UNSPEC, a Unix socket, and a datagram: nobody's address.
        check_whole(&v2(1, 0x00, &[1, 2, 3]), None);
        check_whole(&v2(1, 0x31, &[0; 216]), None);
        check_whole(&v2(1, 0x12, &inet(&[])), None);
        check_whole(
            &v2(1, 0x11, &inet(&[&[0x04, 0x0F, 0xE1][..], &[0; 4065]].concat())),
            Some("192.0.2.1:56324"),
        );
    }

    #[test]
    fn headers_that_are_wrong() {
        let version = |byte: u8| {
            let mut bytes = v2(1, 0x11, &inet(&[]));
            bytes[12] = byte;
            bytes
        };
        for bytes in [
            version(0x11),
            version(0x31),
            version(0x22),
            v2(1, 0x41, &inet(&[])),
            v2(1, 0x13, &inet(&[])),
            v2(1, 0x11, &[0; 11]),
            v2(1, 0x21, &[0; 35]),
            v2(1, 0x31, &[0; 215]),
            v2(1, 0x11, &inet(&[4])),
            v2(1, 0x11, &inet(&[4, 0, 2, 1])),
            v2(1, 0x11, &inet(&[0; 4096])),
        ] {
            assert!(parse(&bytes).is_err(), "{bytes:02x?}");
        }
        // How long it is is seen before all of it came.
        assert!(parse(&v2(1, 0x11, &inet(&[0; 5000]))[..16]).is_err());
        assert!(parse(&[&SIGNATURE[..11], b"x"].concat()).is_err());
    }
}
