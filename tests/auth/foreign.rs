//! A client that others wrote.

use crate::common::{Broker, TIMEOUT};
use ringmq::codec::Version;
use rumqttc::v5;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

/// Name and password.
type User<'a> = Option<(&'a str, &'a str)>;

/// The return or reason code of CONNACK, as the client itself names it.
pub fn connect(broker: &Broker, version: Version, name: &str, user: User) -> String {
    run(broker, version, name, user, "never/asked/for").0
}

/// Whether a subscription is granted.
pub fn subscribe(broker: &Broker, version: Version, name: &str, user: User, filter: &str) -> bool {
    let (connack, granted) = run(broker, version, name, user, filter);
    assert_eq!(connack, "Success");
    granted
}

fn run(broker: &Broker, version: Version, name: &str, user: User, filter: &str) -> (String, bool) {
    let (host, port) = (broker.addr().ip().to_string(), broker.addr().port());
    let (tell, told) = std::sync::mpsc::channel();
    if version == Version::V5 {
        let mut options = v5::MqttOptions::new(name, host, port);
        options.set_connection_timeout(TIMEOUT.as_secs());
        options.set_keep_alive(Duration::from_secs(600));
        if let Some((user, password)) = user {
            options.set_credentials(user, password);
        }
        let (client, connection) = v5::Client::new(options, 8);
        client.subscribe(filter, v5::mqttbytes::QoS::AtMostOnce).expect("its queue has room");
        thread::spawn(move || drive_5(connection, &tell));
        let answer = told.recv_timeout(TIMEOUT).expect("CONNACK, and SUBACK behind one that accepts");
        drop(client);
        return answer;
    }
    let mut options = rumqttc::MqttOptions::new(name, host, port);
    options.set_keep_alive(Duration::from_secs(600));
    if let Some((user, password)) = user {
        options.set_credentials(user, password);
    }
    let (client, connection) = rumqttc::Client::new(options, 8);
    client.subscribe(filter, rumqttc::QoS::AtMostOnce).expect("its queue has room");
    thread::spawn(move || drive_4(connection, &tell));
    let answer = told.recv_timeout(TIMEOUT).expect("CONNACK, and SUBACK behind one that accepts");
    drop(client);
    answer
}

fn drive_5(mut connection: v5::Connection, tell: &Sender<(String, bool)>) {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    let mut connack = String::new();
    for event in connection.iter() {
        match event {
            Ok(v5::Event::Incoming(Packet::ConnAck(ack))) => connack = format!("{:?}", ack.code),
            Ok(v5::Event::Incoming(Packet::SubAck(ack))) => {
                let granted = matches!(ack.return_codes[..], [SubscribeReasonCode::Success(_)]);
                return drop(tell.send((connack, granted)));
            }
            Err(v5::ConnectionError::ConnectionRefused(code)) => {
                return drop(tell.send((format!("{code:?}"), false)));
            }
            Err(error) => return drop(tell.send((format!("{error:?}"), false))),
            Ok(_) => {}
        }
    }
}

fn drive_4(mut connection: rumqttc::Connection, tell: &Sender<(String, bool)>) {
    use rumqttc::{Packet, SubscribeReasonCode};
    let mut connack = String::new();
    for event in connection.iter() {
        match event {
            Ok(rumqttc::Event::Incoming(Packet::ConnAck(ack))) => connack = format!("{:?}", ack.code),
            Ok(rumqttc::Event::Incoming(Packet::SubAck(ack))) => {
                let granted = matches!(ack.return_codes[..], [SubscribeReasonCode::Success(_)]);
                return drop(tell.send((connack, granted)));
            }
            Err(rumqttc::ConnectionError::ConnectionRefused(code)) => {
                return drop(tell.send((format!("{code:?}"), false)));
            }
            Err(error) => return drop(tell.send((format!("{error:?}"), false))),
            Ok(_) => {}
        }
    }
}
