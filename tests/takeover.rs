//! Takeover.
mod common;
use common::*;
use ringmq::codec::Version;
use ringmq::message::QoS;

#[test]
fn smoke() {
    for &driver in DRIVERS {
        let broker = Broker::start(driver, 3, &[]);
        let mut one = Peer::connect(&broker, Version::V5, "one");
        assert_eq!(one.subscribe("a/+", QoS::ExactlyOnce), 2);
        let mut two = Peer::connect(&broker, Version::V311, "two");
        two.publish("a/b", b"x", QoS::ExactlyOnce, false);
        assert_eq!(one.expect_message().text(), "x");
        two.ping();
        two.disconnect();
        one.cut();
        broker.stop();
    }
}
