//! Listeners in the file system.

use crate::common::{Broker, DRIVERS, Ground, Http, Peer, ids};
use crate::{await_connections, expect_counter, row};
use ringmq::codec::{Packet, ReasonCode, Version};
use ringmq::message::QoS;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A folder of its own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("ringmq-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder below that for temporary ones");
        Folder(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("mqtt.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A socket to be connected to.
struct At<'a>(&'a Path);

impl Ground for At<'_> {
    type Socket = UnixStream;

    fn dial(&self) -> UnixStream {
        UnixStream::connect(self.0).expect("the socket takes connections")
    }
}

fn settings(path: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("listeners.local.kind", "unix".to_owned()),
        ("listeners.local.socket", path.display().to_string()),
        ("listeners.local.mode", "600".to_owned()),
        ("listeners.local.max_connections", "8".to_owned()),
    ]
}

fn start(driver: crate::common::Driver, shards: usize, path: &Path) -> Broker {
    let settings = settings(path);
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    Broker::start_http(driver, shards, &settings)
}

#[test]
fn clients_come_through_the_file_system_on_every_shard() {
    for &driver in DRIVERS {
        for shards in [1, 4] {
            let folder = Folder::new("unix");
            let path = folder.socket();
            // What an earlier run left behind is no obstacle.
            drop(UnixListener::bind(&path).unwrap());
            let broker = start(driver, shards, &path);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let told = row(&broker, "local");
            assert_eq!((&told["protocol"], &told["listen_on"]), (&"mqtt:unix".into(), &path.to_str().into()));
            let mut peers: Vec<Peer<UnixStream>> =
                ids("l", 8).iter().map(|id| Peer::connect(&At(&path), Version::V5, id)).collect();
            for peer in &mut peers {
                assert_eq!(peer.subscribe("all", QoS::AtMostOnce), 0);
                // They are on this machine, as they could not be elsewhere.
                assert_eq!(peer.subscribe("$SYS/none", QoS::AtMostOnce), 0);
            }
            let mut other: Peer = Peer::connect(&broker, Version::V311, "other");
            other.send_publish("all", &[b'x'; 100_000], QoS::AtMostOnce, false);
            for peer in &mut peers {
                assert_eq!(peer.expect_message().payload.len(), 100_000);
            }
            await_connections(&broker, "local", 8);
            let (_, answer) = Peer::try_login(&At(&path), &crate::common::Login::new(Version::V5, "surplus"));
            let Packet::ConnAck(connack) = answer.packet() else { panic!("CONNACK, got {answer:?}") };
            assert_eq!(connack.code, ReasonCode::QUOTA_EXCEEDED);
            expect_counter(&broker, "refused_full", 1);
            peers.drain(..).for_each(Peer::disconnect);
            await_connections(&broker, "local", 0);
            broker.stop();
            assert!(!path.exists(), "the socket goes with the broker");
        }
    }
}

#[test]
fn a_restart_keeps_the_socket() {
    for &driver in DRIVERS {
        let folder = Folder::new("unix-restart");
        let path = folder.socket();
        let broker = start(driver, 2, &path);
        let mut first: Peer<UnixStream> = Peer::connect(&At(&path), Version::V5, "first");
        first.ping();
        let answer = Http::of(&broker).post("/api/v4/ctrl/restart", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        // Whoever connects from now on is served, by the old program or by the new one.
        while !matches!(first.read_packet(crate::common::TIMEOUT), crate::common::Read::Closed) {
            UnixStream::connect(&path).expect("the socket takes connections");
        }
        UnixStream::connect(&path).expect("the socket takes connections");
        let mut second: Peer<UnixStream> = Peer::connect(&At(&path), Version::V5, "second");
        second.ping();
        broker.stop();
        assert!(!path.exists(), "the socket goes with the broker");
    }
}
