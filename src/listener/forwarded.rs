//! The header X-Forwarded-For, to which each proxy of HTTP adds, at the end, for whom it speaks.
//!
//! So it is read from its end: what a proxy that is trusted said last counts, and as long as that is a proxy that is
//! trusted itself, what that one said before. Whatever stands further to the front was written by somebody else.

use crate::limits::FORWARDED_HOPS_MAX;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Whose connection a proxy passes on, by the values of the header, joined by commas: the last address that is no
/// proxy of ours, else the first one; `None` where there is none.
///
/// # Errors
/// What was expected, where one of the addresses that count is none.
pub fn client(values: &str, is_trusted: impl Fn(IpAddr) -> bool) -> Result<Option<IpAddr>, &'static str> {
    let mut found = None;
    let parts = values.split(',').rev().map(str::trim).filter(|part| !part.is_empty());
    for (hops, part) in parts.enumerate() {
        if hops == FORWARDED_HOPS_MAX {
            return Err("expected fewer proxies in X-Forwarded-For");
        }
        let addr = address(part).ok_or("expected addresses in X-Forwarded-For, got something else")?;
        found = Some(addr);
        if !is_trusted(addr) {
            break;
        }
    }
    Ok(found)
}

/// An address with or without a port, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|addr| addr.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    bare.or_else(with_port).or_else(in_brackets).map(|addr| addr.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &str) -> Result<Option<String>, &'static str> {
        let proxy =
            |addr: IpAddr| addr.to_string().starts_with("10.") || addr.to_string().starts_with("fd00::");
        client(values, proxy).map(|found| found.map(|addr| addr.to_string()))
    }

    #[test]
    fn the_last_address_that_is_no_proxy_of_ours_is_the_clients() {
        for (values, told) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7, 10.0.0.1", "192.0.2.7"),
            // What a client says of itself is not believed.
            ("127.0.0.1, 192.0.2.7", "192.0.2.7"),
            ("127.0.0.1,10.0.0.9,192.0.2.7 , 10.0.0.2,10.0.0.1", "192.0.2.7"),
            ("<script>, unknown, 192.0.2.7", "192.0.2.7"),
            // Only proxies: where it began.
            ("10.0.0.3, 10.0.0.2, 10.0.0.1", "10.0.0.3"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443, fd00::2", "2001:db8::1"),
            ("192.0.2.7:1234", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            (",, 192.0.2.7 ,", "192.0.2.7"),
        ] {
            assert_eq!(of(values), Ok(Some(told.to_owned())), "{values}");
        }
        for values in ["", " ", " , ,"] {
            assert_eq!(of(values), Ok(None), "{values:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_where_it_counts() {
        for values in [
            "unknown",
            "192.0.2.7, unknown",
            "192.0.2.7, unknown, 10.0.0.1",
            "192.0.2",
            "192.0.2.7:",
            "192.0.2.7:70000",
            "[192.0.2.7]",
            "[2001:db8::1",
            "2001:db8::1]",
            "192.0.2.7 192.0.2.8",
            "\u{fffd}",
        ] {
            assert!(of(values).is_err(), "{values}");
        }
        let hops = vec!["10.0.0.1"; FORWARDED_HOPS_MAX];
        assert!(of(&hops.join(",")).is_ok());
        assert!(of(&[&["192.0.2.7"], &hops[..]].concat().join(",")).is_err());
    }
}
