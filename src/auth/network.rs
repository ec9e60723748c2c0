//! Networks of addresses.

use std::fmt::{Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address and how many of its leading bits count; IPv4 and IPv6 never match each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Network {
    addr: IpAddr,
    bits: u8,
}

impl Network {
    /// The network of an address of which so many leading bits count; those that do not are cleared.
    pub fn around(addr: IpAddr, bits: u8) -> Network {
        let addr = match addr {
            IpAddr::V4(addr) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or_default();
                IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() & mask))
            }
            IpAddr::V6(addr) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or_default();
                IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & mask))
            }
        };
        Network { addr, bits }
    }

    /// How many bits count.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The address, where it is one alone.
    pub fn alone(&self) -> Option<IpAddr> {
        (self.bits == if self.is_v4() { 32 } else { 128 }).then_some(self.addr)
    }

    /// Whether it is one of IPv4.
    pub fn is_v4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// Whether an address is in it. An IPv4 address in the form of IPv6 counts as what it is.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

impl Display for Network {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.addr, self.bits)
    }
}

impl FromStr for Network {
    type Err = String;

    /// Reads `10.0.0.0/8`, `fd00::/8`, or an address alone. Bits of the address that do not count are cleared.
    fn from_str(text: &str) -> Result<Network, String> {
        let bad = || {
            format!("expected networks such as \"10.0.0.0/8\", \"fd00::/8\" or \"192.0.2.7\", got {text:?}")
        };
        let (addr, bits) = text.split_once('/').map_or((text, None), |(addr, bits)| (addr, Some(bits)));
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let bits: u8 = match bits {
            None => most,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= most).ok_or_else(bad)?
            }
            Some(_) => return Err(bad()),
        };
        Ok(Network::around(addr, bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_read_and_shown() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::1/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text).to_string(), shown);
        }
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10/8",
            "a",
            "1.2.3.4/8/8",
        ] {
            let told = text.parse::<Network>().unwrap_err();
            assert!(told.ends_with(&format!("got {text:?}")), "{told}");
        }
    }

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        let has = |text: &str, addr: &str| network(text).contains(addr.parse().unwrap());
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.0"));
        assert!(has("10.0.0.0/8", "::ffff:10.0.0.1"), "an IPv4 peer of an IPv6 socket");
        assert!(has("0.0.0.0/0", "1.2.3.4") && !has("0.0.0.0/0", "::1") && !has("::/0", "1.2.3.4"));
        assert!(has("192.0.2.7/32", "192.0.2.7") && !has("192.0.2.7/32", "192.0.2.6"));
        assert!(has("fd00::/8", "fdff::1") && !has("fd00::/9", "fd80::"));
    }
}
