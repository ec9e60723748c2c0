//! Packets before and after CONNECT [3.1.0 of 5.0].

use crate::common::Peer;
use crate::{Scene, cases};
use ringmq::codec::{ReasonCode, Version};

cases! {
    "3.1.0-2" => a_second_connect_is_a_protocol_error,
}

fn a_second_connect_is_a_protocol_error(s: &Scene) {
    let login = crate::common::Login::new(Version::V5, &s.id("a"));
    let (mut peer, _) = Peer::login(&s.broker(), &login);
    peer.send_raw(&login.bytes());
    peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR);
}
