//! AUTH and enhanced authentication, where SCRAM-SHA-256 is configured [3.15, 4.12 of 5.0].

use super::client::*;
use crate::common::scram::{METHOD, Scram};
use crate::ground::Broker;
use crate::raw::{packet, properties};
use crate::{Peer, Scene, cases};
use ringmq::codec::{Packet, Property, ReasonCode, Version};

cases! {
    "3.15.2-1" "3.15.2-2" "3.15.2-3" "4.12.0-2" "4.12.0-5" => a_proof_lets_a_client_in,
    "4.12.0-4" => a_proof_that_is_wrong_is_refused_and_closes,
    "4.12.0-4" "4.12.0-5" => what_comes_instead_of_a_proof_is_refused,
    "3.15.2-2" => an_auth_that_the_client_does_not_take_is_not_sent,
    "4.12.1-1" "3.15.2-1" => a_client_authenticates_again,
    "4.12.1-2" => a_second_authentication_that_fails_closes,
}

/// A broker that knows `user`, whose password is `pencil`.
fn broker(s: &Scene) -> Broker {
    s.with(&[("auth.password_file", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spec/users"))])
}

/// AUTH with a code, a method and data.
fn auth(code: u8, method: &str, data: &str) -> Vec<u8> {
    let list = properties(&[&p_text(id::AUTH_METHOD, method), &p_text(id::AUTH_DATA, data)]);
    packet(0xF0, &[&[code], &list])
}

/// A client that begins with the first message of an exchange.
fn client(s: &Scene, name: &str, scram: &Scram) -> Client {
    Client::new(s.id(name)).with(p_text(id::AUTH_METHOD, METHOD)).with(p_text(id::AUTH_DATA, scram.first()))
}

/// The data of an AUTH with this code, which has the method and nothing else.
#[track_caller]
fn data_of(peer: &mut Peer, code: ReasonCode) -> Vec<u8> {
    let got = peer.next();
    let Packet::Auth(auth) = got.packet() else { panic!("AUTH, got {got:?}") };
    assert_eq!(auth.code, code);
    let list: Vec<_> = auth.properties.iter().collect();
    let [Property::AuthenticationMethod(METHOD), Property::AuthenticationData(data)] = list[..] else {
        panic!("method and data, got {got:?}")
    };
    data.to_vec()
}

/// Sends a CONNECT and takes the challenge.
fn challenged(s: &Scene, name: &str, scram: &Scram) -> (Peer, Vec<u8>) {
    let mut peer = Peer::open(&broker(s), Version::V5);
    peer.send_raw(&client(s, name, scram).bytes());
    let challenge = data_of(&mut peer, ReasonCode::CONTINUE_AUTHENTICATION);
    (peer, challenge)
}

/// A client that has proven who it is.
fn proven(s: &Scene, name: &str) -> Peer {
    let scram = Scram::new("user", "pencil");
    let (mut peer, challenge) = challenged(s, name, &scram);
    let (answer, signature) = scram.answer(&challenge);
    // What comes behind the proof is handled after it.
    peer.send_raw(&[auth(0x18, METHOD, &answer), vec![0xC0, 0]].concat());
    let got = peer.next();
    let connack = connack_of(&got);
    assert_eq!(connack.code, ReasonCode::SUCCESS, "{got:?}");
    let list: Vec<_> = connack.properties.iter().collect();
    assert!(list.contains(&Property::AuthenticationMethod(METHOD)), "{got:?}");
    assert!(list.contains(&Property::AuthenticationData(signature.as_bytes())), "{got:?}");
    peer.expect(&Packet::PingResp);
    peer
}

#[track_caller]
fn expect_refusal(peer: &mut Peer, code: ReasonCode) {
    let got = peer.next();
    assert_eq!(connack_of(&got).code, code, "{got:?}");
    peer.expect_closed();
}

fn a_proof_lets_a_client_in(s: &Scene) {
    let topic = s.topic("t");
    let mut peer = proven(s, "a");
    subscribe(&mut peer, &topic, 0);
    Pub::new(&topic, "x").send(&mut peer);
    take(&mut peer, "x");
}

fn a_proof_that_is_wrong_is_refused_and_closes(s: &Scene) {
    for (user, password) in [("user", "pen"), ("nobody", "pencil")] {
        let scram = Scram::new(user, password);
        let (mut peer, challenge) = challenged(s, "a", &scram);
        peer.send_raw(&auth(0x18, METHOD, &scram.answer(&challenge).0));
        expect_refusal(&mut peer, ReasonCode::NOT_AUTHORIZED);
    }
    // Who does not exist has a salt of its own, which stays the same.
    let salt = |user: &str| {
        let challenge = challenged(s, "b", &Scram::new(user, "x")).1;
        let challenge = String::from_utf8(challenge).expect("a challenge is text");
        challenge.split(',').find_map(|part| part.strip_prefix("s=").map(str::to_owned)).expect("a salt")
    };
    assert_eq!(salt("nobody"), salt("nobody"));
    assert_ne!(salt("nobody"), salt("somebody"));
    // A first message that is none.
    for first in ["", "n,,", "p=tls-exporter,,n=user,r=a"] {
        let list = [p_text(id::AUTH_METHOD, METHOD), p_text(id::AUTH_DATA, first)];
        let [method, data] = list;
        refused(
            &broker(s),
            &Client::new(s.id("c")).with(method).with(data).bytes(),
            ReasonCode::NOT_AUTHORIZED,
        );
    }
}

fn what_comes_instead_of_a_proof_is_refused(s: &Scene) {
    let scram = Scram::new("user", "pencil");
    let again = client(s, "a", &scram).bytes();
    let method = p_text(id::AUTH_METHOD, METHOD);
    for instead in [
        again,
        vec![0xC0, 0],
        auth(0x19, METHOD, "x"),
        auth(0x18, "SCRAM-SHA-1", "x"),
        packet(0xF0, &[&[0x18], &properties(&[&method])]),
    ] {
        let (mut peer, _) = challenged(s, "a", &scram);
        peer.send_raw(&instead);
        expect_refusal(&mut peer, ReasonCode::PROTOCOL_ERROR);
    }
    let (mut peer, _) = challenged(s, "a", &scram);
    peer.send_raw(&[0xE0, 0]);
    peer.expect_closed();
}

fn an_auth_that_the_client_does_not_take_is_not_sent(s: &Scene) {
    let scram = Scram::new("user", "pencil");
    let mut peer = Peer::open(&broker(s), Version::V5);
    peer.send_raw(&client(s, "a", &scram).packet_maximum(60).bytes());
    expect_refusal(&mut peer, ReasonCode::PACKET_TOO_LARGE);
}

fn a_client_authenticates_again(s: &Scene) {
    let topic = s.topic("t");
    let mut peer = proven(s, "a");
    subscribe(&mut peer, &topic, 0);
    for _ in 0..2 {
        let scram = Scram::new("user", "pencil");
        peer.send_raw(&auth(0x19, METHOD, &scram.first()));
        let challenge = data_of(&mut peer, ReasonCode::CONTINUE_AUTHENTICATION);
        // Messages flow meanwhile.
        Pub::new(&topic, "x").send(&mut peer);
        take(&mut peer, "x");
        let (answer, signature) = scram.answer(&challenge);
        peer.send_raw(&auth(0x18, METHOD, &answer));
        assert_eq!(data_of(&mut peer, ReasonCode::SUCCESS), signature.as_bytes());
    }
    peer.ping();
}

fn a_second_authentication_that_fails_closes(s: &Scene) {
    let wrong = Scram::new("user", "pen");
    let mut peer = proven(s, "a");
    peer.send_raw(&auth(0x19, METHOD, &wrong.first()));
    let challenge = data_of(&mut peer, ReasonCode::CONTINUE_AUTHENTICATION);
    peer.send_raw(&auth(0x18, METHOD, &wrong.answer(&challenge).0));
    peer.expect_disconnect(ReasonCode::NOT_AUTHORIZED);
    for bytes in [auth(0x19, "SCRAM-SHA-1", "x"), auth(0x18, METHOD, "x"), auth(0x00, METHOD, "x")] {
        let mut peer = proven(s, "a");
        peer.send_raw(&bytes);
        peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR);
    }
}
