//! A client that others wrote.

use crate::common::{Broker, TIMEOUT};
use ringmq::codec::Version;
use rumqttc::v5;
use std::thread;
use std::time::Duration;

/// The return or reason code of CONNACK, as the client itself names it.
pub fn connect(broker: &Broker, version: Version, name: &str, user: Option<(&str, &str)>) -> String {
    let (host, port) = (broker.addr().ip().to_string(), broker.addr().port());
    let (tell, told) = std::sync::mpsc::channel();
    if version == Version::V5 {
        let mut options = v5::MqttOptions::new(name, host, port);
        options.set_connection_timeout(TIMEOUT.as_secs());
        options.set_keep_alive(Duration::from_secs(600));
        if let Some((user, password)) = user {
            options.set_credentials(user, password);
        }
        let (_client, mut connection) = v5::Client::new(options, 8);
        thread::spawn(move || {
            let code = match connection.iter().next() {
                Some(Ok(v5::Event::Incoming(v5::mqttbytes::v5::Packet::ConnAck(ack)))) => {
                    format!("{:?}", ack.code)
                }
                Some(Err(v5::ConnectionError::ConnectionRefused(code))) => format!("{code:?}"),
                other => format!("{other:?}"),
            };
            tell.send(code)
        });
    } else {
        let mut options = rumqttc::MqttOptions::new(name, host, port);
        options.set_keep_alive(Duration::from_secs(600));
        if let Some((user, password)) = user {
            options.set_credentials(user, password);
        }
        let (_client, mut connection) = rumqttc::Client::new(options, 8);
        thread::spawn(move || {
            let code = match connection.iter().next() {
                Some(Ok(rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(ack)))) => {
                    format!("{:?}", ack.code)
                }
                Some(Err(rumqttc::ConnectionError::ConnectionRefused(code))) => format!("{code:?}"),
                other => format!("{other:?}"),
            };
            tell.send(code)
        });
    }
    told.recv_timeout(TIMEOUT).expect("CONNACK")
}
