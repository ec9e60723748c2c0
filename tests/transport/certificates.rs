//! Certificates that are replaced while the broker runs, and certificates of clients.

use crate::common::{Broker, DRIVERS, Http, Peer};
use crate::ground::Files;
use crate::{counter, serve, way};
use ringmq::codec::Version;
use ringmq::message::QoS;
use std::time::Duration;

/// Waits until the log has these words.
fn await_log(broker: &Broker, words: &str) {
    for _ in 0..1_500 {
        if broker.log().contains(words) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("expected {words:?} in the log");
}

#[test]
fn new_certificates_are_for_new_connections_and_wrong_ones_for_none() {
    let files = Files::new();
    for (round, &driver) in DRIVERS.iter().enumerate() {
        let broker = serve(driver, 2, &files, &[]);
        let ground = way(&broker, &files, "tls");
        let shown = || {
            ground.connect().map(|mut through| {
                use crate::common::Socket;
                through.send(&[0xc0, 0]).unwrap();
                through.shown()
            })
        };
        let first = shown().unwrap();
        let mut old: Vec<_> =
            crate::common::ids("old", 100).iter().map(|id| Peer::connect(&ground, Version::V5, id)).collect();
        // Seen by itself.
        let (chain, key) = files.sign("server", "localhost");
        files.write("key.pem", &key);
        files.write("chain.pem", &chain);
        await_log(&broker, "used from now on");
        let second = shown().unwrap();
        assert_ne!(first, second);
        // Wrong, and by a signal.
        files.write("chain.pem", &chain.replace("END CERT", "END CORT"));
        broker.signal("HUP");
        await_log(&broker, "SIGHUP: listeners.tls: ");
        let lines = chain.lines().count();
        let told = format!("chain.pem:{lines}: expected -----END CERTIFICATE-----");
        assert!(broker.log().contains(&told), "{told}");
        assert!(broker.log().contains("nothing was changed"));
        assert_eq!(shown().unwrap(), second, "the old ones stay in use");
        // Right again, and over HTTP.
        files.write("chain.pem", &chain);
        if round == 0 {
            let answer = Http::of(&broker).post("/api/v4/reload", "{\"data\": {}}");
            assert_eq!(answer.status, 200, "{answer:?}");
        } else {
            broker.signal("HUP");
            await_log(&broker, "SIGHUP: changed nothing");
        }
        assert_eq!(shown().unwrap(), second);
        // Nobody was dropped.
        for peer in &mut old {
            peer.subscribe("x", QoS::AtMostOnce);
        }
        assert_eq!(counter(&broker, "disconnects"), 0);
        old.into_iter().for_each(Peer::disconnect);
        broker.stop();
    }
}

#[test]
fn a_client_is_who_its_certificate_says() {
    let files = Files::new();
    let ca = files.path("ca.pem");
    let settings = [
        ("listeners.tls.client_certificate", "required"),
        ("listeners.tls.ca", ca.as_str()),
        ("listeners.tls.client_id_from", "cn"),
        ("listeners.tls.username_from", "san"),
        ("mqtt.allow_anonymous", "false"),
    ];
    for &driver in DRIVERS {
        let broker = serve(driver, 3, &files, &settings);
        let mut ground = way(&broker, &files, "tls");
        let mut nobody = ground.connect().unwrap();
        use crate::common::Socket;
        let _ = nobody.send(&[0xc0, 0]);
        drop(nobody);
        for (name, user) in [("device-1", "user-1"), ("device-2", "user-2"), ("device-3", "user-3")] {
            ground.tls = Some(files.client(Some(&files.sign(name, user))));
            let peer = Peer::connect(&ground, Version::V5, "somebody else");
            let told = Http::of(&broker).json(&format!("/api/v4/clients/{name}"));
            assert_eq!(told["data"][0]["username"], user, "{told}");
            peer.disconnect();
        }
        broker.stop();
    }
}
