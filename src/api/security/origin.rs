//! Keeps other web sites out: a browser that a user has here must not carry their requests in.
//!
//! No answer permits another origin (there are no CORS headers at all), a request that changes something is
//! refused when its `Origin` is another host, and a listener on a loopback address answers to its own names
//! only, so that a name that was rebound to 127.0.0.1 leads nowhere.

use crate::api::fault::{Cause, Fault};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method};
use std::net::{IpAddr, SocketAddr};

/// Checks where a request comes from and by which name it called us. `local` is the address that it came in at,
/// `hosts` the names that are configured beside the own ones; `*` is any.
///
/// # Errors
/// What is not allowed, and how to allow it.
pub fn guard(
    method: &Method,
    headers: &HeaderMap,
    local: SocketAddr,
    hosts: &[Box<str>],
) -> Result<(), Fault> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let known = |name: &str| hosts.iter().any(|host| &**host == "*" || host.eq_ignore_ascii_case(name));
    let host = text(HOST).unwrap_or_default();
    if local.ip().to_canonical().is_loopback()
        && !host.is_empty()
        && !is_local(name_of(host))
        && !known(name_of(host))
    {
        let words = "this address answers to localhost and 127.0.0.1; http.hosts allows other names";
        return Err(Fault::new(Cause::Foreign, words));
    }
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE) {
        return Ok(());
    }
    let Some(origin) = text(ORIGIN) else { return Ok(()) };
    let from = origin.split_once("://").map_or("", |(_, rest)| rest);
    if !from.is_empty() && (from.eq_ignore_ascii_case(host) || known(name_of(from))) {
        return Ok(());
    }
    Err(Fault::new(
        Cause::Foreign,
        "a page of another site may not change anything; http.hosts allows its host",
    ))
}

/// The name of `NAME:PORT`, without the brackets of an IPv6 address.
fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.split(':').next().unwrap_or_default()
}

fn is_local(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(method: Method, host: &str, origin: &str, local: &str, hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in [(HOST, host), (ORIGIN, origin)] {
            if !value.is_empty() {
                headers.insert(name, value.parse().unwrap());
            }
        }
        let hosts: Vec<Box<str>> = hosts.iter().map(|host| (*host).into()).collect();
        guard(&method, &headers, local.parse().unwrap(), &hosts).is_ok()
    }

    #[test]
    fn a_loopback_listener_answers_to_its_own_names() {
        let local = "127.0.0.1:8081";
        for host in ["localhost", "LOCALHOST:8081", "a.localhost.", "127.0.0.1:8081", "[::1]:8081", ""] {
            assert!(allowed(Method::GET, host, "", local, &[]), "{host}");
        }
        for host in ["evil.example", "evil.example:8081", "localhost.evil.example", "127.0.0.1.evil.example"]
        {
            assert!(!allowed(Method::GET, host, "", local, &[]), "{host}");
            assert!(allowed(Method::GET, host, "", "192.0.2.1:8081", &[]), "{host}");
            assert!(allowed(Method::GET, host, "", local, &["*"]), "{host}");
        }
        assert!(!allowed(Method::GET, "evil.example", "", "[::ffff:127.0.0.1]:8081", &[]));
        assert!(allowed(Method::GET, "mqtt.example:443", "", local, &["Mqtt.example"]));
    }

    #[test]
    fn another_site_changes_nothing() {
        let local = "192.0.2.1:8081";
        let post = |origin, hosts: &[&str]| allowed(Method::POST, "b.example:8081", origin, local, hosts);
        assert!(post("", &[]) && post("http://b.example:8081", &[]) && post("https://B.example:8081", &[]));
        for origin in [
            "http://evil.example",
            "http://b.example",
            "http://b.example:80",
            "null",
            "b.example:8081",
            "http://",
        ] {
            assert!(!post(origin, &[]), "{origin}");
            assert!(allowed(Method::GET, "b.example:8081", origin, local, &[]), "{origin}");
        }
        assert!(post("https://ui.example:3000", &["ui.example"]));
        assert!(!post("null", &["*"]));
    }
}
