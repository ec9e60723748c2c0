//! What goes on to subscribers, and the builder of properties.

use super::super::packet_type as place;
use super::generate::random_properties;
use super::*;
use crate::message::QoS;

fn publish(properties: Properties<'_>) -> Publish<'_> {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties,
        payload: b"",
    }
}

fn goes_on(property: &Property<'_>) -> bool {
    !matches!(
        property,
        Property::TopicAlias(_)
            | Property::MessageExpiryInterval(_)
            | Property::SubscriptionIdentifier(_)
            | Property::WillDelayInterval(_)
    )
}

/// What the standard says, the long way.
#[track_caller]
fn check_forward(of: Properties<'_>, forward: Forward<'_>) {
    let mut expected = PropertyBuf::new();
    assert!(of.iter().filter(goes_on).all(|property| expected.push(property)));
    let mut scratch = vec![1, 2, 3];
    assert_eq!(forward.bytes(&mut scratch), expected.as_properties().raw());
    assert_eq!((forward.len(), forward.is_empty()), (expected.len(), expected.is_empty()));
}

#[test]
fn routing_finds_what_random_properties_hold() {
    let mut rng = Rng(11);
    for _ in 0..2_000 {
        let buf = random_properties(&mut rng, place::PUBLISH);
        let properties = buf.as_properties();
        let routing = publish(properties).routing();
        check_forward(properties, routing.forward);
        let of = |test: fn(&Property<'_>) -> bool| properties.iter().any(|property| test(&property));
        assert_eq!(routing.payload_format, of(|p| *p == Property::PayloadFormatIndicator(1)));
        assert_eq!(routing.has_subscription_id, of(|p| matches!(p, Property::SubscriptionIdentifier(_))));
        let expiry = properties.iter().find_map(|property| match property {
            Property::MessageExpiryInterval(s) => Some(s),
            _ => None,
        });
        let alias = properties.iter().find_map(|property| match property {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        });
        assert_eq!((routing.expiry_s, routing.alias), (expiry, alias));
    }
}

#[test]
fn routing_finds_what_random_will_properties_hold() {
    let mut rng = Rng(12);
    for _ in 0..2_000 {
        let buf = random_properties(&mut rng, place::WILL);
        let properties = buf.as_properties();
        let will = Will { topic: "t", payload: b"", qos: QoS::AtMostOnce, retain: false, properties };
        let routing = will.routing();
        check_forward(properties, routing.forward);
        let delay = properties.iter().find_map(|property| match property {
            Property::WillDelayInterval(s) => Some(s),
            _ => None,
        });
        assert_eq!(routing.delay_s, delay.unwrap_or(0));
    }
}

#[test]
fn mqtt_3_3_2_18_v5_user_properties_keep_their_order() {
    let mut buf = PropertyBuf::new();
    for property in [
        Property::UserProperty("b", "1"),
        Property::MessageExpiryInterval(5),
        Property::UserProperty("a", "2"),
        Property::TopicAlias(1),
        Property::UserProperty("b", "0"),
    ] {
        assert!(buf.push(property));
    }
    let mut scratch = Vec::new();
    let forward = publish(buf.as_properties()).routing().forward;
    let raw = forward.bytes(&mut scratch);
    let properties = Properties::parse(raw, PacketType::Publish).expect("valid");
    let expected = [
        Property::UserProperty("b", "1"),
        Property::UserProperty("a", "2"),
        Property::UserProperty("b", "0"),
    ];
    assert_eq!(properties.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn nothing_is_copied_when_what_goes_on_stands_together() {
    let own = [Property::ContentType("c"), Property::UserProperty("k", "v")];
    let (alias, expiry) = (Property::TopicAlias(1), Property::MessageExpiryInterval(1));
    for order in
        [[alias, own[0], own[1], expiry], [alias, expiry, own[0], own[1]], [own[0], own[1], alias, expiry]]
    {
        let mut buf = PropertyBuf::new();
        assert!(order.iter().all(|property| buf.push(*property)));
        let mut scratch = Vec::new();
        let forward = publish(buf.as_properties()).routing().forward;
        let raw = buf.as_properties().raw().as_ptr_range();
        assert!(raw.contains(&forward.bytes(&mut scratch).as_ptr()));
        assert_eq!(scratch.capacity(), 0);
    }
}

#[test]
fn a_property_buf_refuses_what_cannot_be_written() {
    let long = "x".repeat(65_536);
    let mut buf = PropertyBuf::new();
    for property in [
        Property::ReasonString(&long),
        Property::CorrelationData(long.as_bytes()),
        Property::UserProperty("k", &long),
        Property::UserProperty(&long, "v"),
        Property::UserProperty("k\0", "v"),
        Property::ResponseTopic("#"),
        Property::SubscriptionIdentifier(0),
        Property::SubscriptionIdentifier(268_435_456),
        Property::MaximumQoS(2),
    ] {
        assert!(!buf.push(property), "{:.40}", format!("{property:?}"));
        assert!(buf.is_empty());
    }
    assert!(buf.push(Property::ReasonString(&long[1..])));
    assert_eq!(buf.len(), 65_538);
}

#[test]
fn a_property_buf_is_cut_between_properties() {
    let mut buf = PropertyBuf::new();
    assert!(buf.push(Property::ServerKeepAlive(3)));
    let before = buf.len();
    assert!(buf.push(Property::ReasonString("because")));
    let all = buf.clone();
    for len in 0..=all.len() + 1 {
        let mut cut = all.clone();
        cut.truncate(len);
        let left = cut.as_properties().iter().count();
        assert_eq!(left, usize::from(len >= before) + usize::from(len >= all.len()));
    }
}

#[test]
fn kept_properties_are_checked_when_they_are_parsed() {
    assert!(Properties::parse(b"\x03\0\x01c", PacketType::Publish).is_ok());
    assert!(Properties::parse(b"\x03\0\x01c", PacketType::Connect).is_err());
    assert!(Properties::parse(b"\x03\0\x02c", PacketType::Publish).is_err());
}
