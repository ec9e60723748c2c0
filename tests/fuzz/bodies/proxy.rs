//! PROXY headers: whatever comes, in whatever pieces, is judged once and for all.

use ringmq::limits::PROXY_HEADER_BYTES_MAX;
use ringmq::listener::proxy::{Parsed, parse};

pub fn target(data: &[u8]) {
    let whole = parse(data);
    match whole {
        Ok(Parsed::Header { len, source }) => {
            assert!((1..=data.len().min(PROXY_HEADER_BYTES_MAX)).contains(&len), "{len}");
            // What is behind it does not count, and a part of it is not enough.
            assert_eq!(parse(&data[..len]), whole);
            for cut in [0, 1, len / 2, len - 1] {
                assert_eq!(parse(&data[..cut]), Ok(Parsed::Incomplete), "{cut}");
            }
            assert!(source.is_none_or(|addr| addr.ip().to_canonical() == addr.ip()), "{source:?}");
            assert_eq!(source, naive(data), "read naively");
        }
        Ok(Parsed::Incomplete) => {
            assert!(data.len() < PROXY_HEADER_BYTES_MAX, "a bound on what is waited for")
        }
        Err(text) => {
            assert!(text.starts_with("expected "), "{text}");
            // More bytes make nothing right.
            assert_eq!(parse(&[data, b"\r\n"].concat()), whole);
            assert_eq!(parse(&[data, &[0; 300]].concat()), whole);
        }
    }
}

/// The source of a valid header.
fn naive(data: &[u8]) -> Option<std::net::SocketAddr> {
    let canonical = |ip: std::net::IpAddr, port| std::net::SocketAddr::new(ip.to_canonical(), port);
    if data[0] == b'P' {
        let line = String::from_utf8_lossy(data);
        let words: Vec<&str> = line.lines().next()?.split(' ').collect();
        return match words[1] {
            "UNKNOWN" => None,
            _ => Some(canonical(words[2].parse().ok()?, words[4].parse().ok()?)),
        };
    }
    let port = |at: usize| u16::from(data[at]) << 8 | u16::from(data[at + 1]);
    match (data[12] & 1, data[13]) {
        (1, 0x11) => Some(canonical([data[16], data[17], data[18], data[19]].into(), port(24))),
        (1, 0x21) => {
            let ip: [u8; 16] = data[16..32].try_into().ok()?;
            Some(canonical(ip.into(), port(48)))
        }
        _ => None,
    }
}
