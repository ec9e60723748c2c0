//! Who may come to a listener.

use crate::auth::Network;
use std::net::IpAddr;

/// Who may come by their address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// Who may; empty: everybody.
    pub allow: Vec<Network>,
    /// Who may not, even where `allow` has them.
    pub deny: Vec<Network>,
}

impl Access {
    /// Whether it asks for addresses at all.
    pub fn is_open(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Whether this one may come. Where there are lists, one without an address may not.
    pub fn permits(&self, addr: Option<IpAddr>) -> bool {
        if self.is_open() {
            return true;
        }
        addr.is_some_and(|addr| {
            let within = |list: &[Network]| list.iter().any(|network| network.contains(addr));
            !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn deny_goes_before_allow_and_lists_need_an_address() {
        let list = |texts: &[&str]| texts.iter().map(|text| network(text)).collect::<Vec<_>>();
        let addr = |text: &str| Some(text.parse().unwrap());
        assert!(Access::default().permits(None));
        let access = Access { allow: list(&["10.0.0.0/8", "::1"]), deny: list(&["10.9.0.0/16"]) };
        assert!(access.permits(addr("10.0.0.1")) && access.permits(addr("::1")));
        assert!(
            !access.permits(addr("10.9.0.1")) && !access.permits(addr("192.0.2.1")) && !access.permits(None)
        );
        let access = Access { allow: vec![], deny: list(&["10.0.0.0/8"]) };
        assert!(
            access.permits(addr("11.0.0.1")) && !access.permits(addr("10.0.0.1")) && !access.permits(None)
        );
    }
}
