"""A round with Python's paho-mqtt: paho_mqtt.py PORT 3.1.1|5.0 PREFIX

LAYERS: tcp (the default), tls, ws or wss; CHAIN: the certificate of localhost.
"""

import os
import queue
import socket
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT, VERSION, PREFIX = int(sys.argv[1]), sys.argv[2], sys.argv[3]
V5 = VERSION == "5.0"
TIMEOUT = 30
LAYERS = os.environ.get("LAYERS", "tcp")


def same(what, expected, got):
    if expected != got:
        sys.exit(f"{what}: expected {expected!r}, got {got!r}")


def properties(packet, **values):
    if not V5:
        return None
    made = Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Peer:
    """A client that keeps what it gets in a queue and never connects again by itself."""

    def __init__(self, name, lasting=False, clean=True, will=None):
        self.name = name
        self.messages = queue.Queue()
        self.answers = queue.Queue()
        self.connected = queue.Queue()
        extra = {} if V5 else {"clean_session": clean}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=mqtt.MQTTv5 if V5 else mqtt.MQTTv311,
            reconnect_on_failure=False,
            transport="websockets" if LAYERS.startswith("ws") else "tcp",
            **extra,
        )
        if LAYERS in ("tls", "wss"):
            self.client.tls_set(ca_certs=os.environ["CHAIN"])
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_connect = lambda _c, _u, flags, code, props: self.connected.put((flags, code, props))
        self.client.on_subscribe = lambda _c, _u, mid, codes, _p: self.answers.put((mid, codes))
        self.client.on_unsubscribe = lambda _c, _u, mid, codes, _p: self.answers.put((mid, codes))
        if will:
            topic, payload, qos, retain, props = will
            self.client.will_set(topic, payload, qos, retain, props)
        options = {}
        if V5:
            props = properties(PacketTypes.CONNECT)
            if lasting:
                props.SessionExpiryInterval = 300
            options = {"clean_start": clean, "properties": props}
        self.client.connect("localhost", PORT, keepalive=30, **options)
        self.client.loop_start()
        self.flags, code, self.properties = self.connected.get(timeout=TIMEOUT)
        same(f"{name}: CONNACK", "Success", str(code))

    def subscribe(self, topic, qos, **values):
        if V5:
            options = SubscribeOptions(qos=qos)
            _, mid = self.client.subscribe(
                topic, options=options, properties=properties(PacketTypes.SUBSCRIBE, **values)
            )
        else:
            _, mid = self.client.subscribe(topic, qos)
        got, codes = self.answers.get(timeout=TIMEOUT)
        same(f"{self.name}: SUBACK of {topic}", (mid, [qos]), (got, [code.value for code in codes]))

    def unsubscribe(self, topic):
        _, mid = self.client.unsubscribe(topic)
        got, codes = self.answers.get(timeout=TIMEOUT)
        same(f"{self.name}: UNSUBACK of {topic}", mid, got)
        return [code.value for code in codes]

    def publish(self, topic, payload, qos=1, retain=False, **values):
        props = properties(PacketTypes.PUBLISH, **values) if values else None
        info = self.client.publish(topic, payload, qos, retain, props)
        info.wait_for_publish(TIMEOUT)
        same(f"{self.name}: {payload!r} is acknowledged", True, info.is_published())

    def next(self):
        try:
            return self.messages.get(timeout=TIMEOUT)
        except queue.Empty:
            sys.exit(f"{self.name}: expected a message, got none")

    def expect(self, topic, payload, qos, retain=False):
        message = self.next()
        got = (message.topic, message.payload, message.qos, bool(message.retain))
        same(f"{self.name}: message", (topic, payload, qos, retain), got)
        return message

    def disconnect(self):
        self.client.disconnect()
        self.client.loop_stop()

    def die(self):
        """Ends the connection without a DISCONNECT."""
        self.client.loop_stop()
        # The descriptor itself, which is a socket whatever stands above it.
        with socket.socket(fileno=os.dup(self.client.socket().fileno())) as beneath:
            beneath.shutdown(socket.SHUT_RDWR)


def qos_both_ways():
    sub, pub = Peer(f"{PREFIX}-sub"), Peer(f"{PREFIX}-pub")
    for wanted in (0, 1, 2):
        topic = f"{PREFIX}/qos/{wanted}"
        sub.subscribe(f"{topic}/+", wanted)
        for qos in (0, 1, 2):
            payload = f"{qos} to {wanted}".encode()
            pub.publish(f"{topic}/x", payload, qos)
            sub.expect(f"{topic}/x", payload, min(qos, wanted))
    large = bytes(range(256)) * 1200
    sub.subscribe(f"{PREFIX}/large", 2)
    pub.publish(f"{PREFIX}/large", large, 2)
    sub.expect(f"{PREFIX}/large", large, 2)
    sub.unsubscribe(f"{PREFIX}/large")
    pub.publish(f"{PREFIX}/large", b"not wanted", 1)
    pub.publish(f"{PREFIX}/qos/1/x", b"after it", 1)
    sub.expect(f"{PREFIX}/qos/1/x", b"after it", 1)
    if V5:
        same("UNSUBACK of an unknown filter", [0x11], sub.unsubscribe(f"{PREFIX}/never"))
    sub.disconnect()
    pub.disconnect()


def properties_are_forwarded():
    sub, pub = Peer(f"{PREFIX}-sub"), Peer(f"{PREFIX}-pub")
    topic = f"{PREFIX}/properties"
    sub.subscribe(topic, 1, SubscriptionIdentifier=7)
    sub.subscribe(f"{PREFIX}/+", 1, SubscriptionIdentifier=268435455)
    users = [("b", "1"), ("a", "2"), ("b", "3"), ("", "")]
    pub.publish(
        topic,
        b"all",
        1,
        UserProperty=users,
        ResponseTopic=f"{PREFIX}/answers",
        CorrelationData=b"\x00\xff\x01",
        ContentType="text/plain",
        PayloadFormatIndicator=1,
        MessageExpiryInterval=600,
    )
    got = sub.expect(topic, b"all", 1).properties
    same("user properties", users, got.UserProperty)
    same("response topic", f"{PREFIX}/answers", got.ResponseTopic)
    same("correlation data", b"\x00\xff\x01", got.CorrelationData)
    same("content type", "text/plain", got.ContentType)
    same("payload format indicator", 1, got.PayloadFormatIndicator)
    same("message expiry is 1 to 600", True, 0 < got.MessageExpiryInterval <= 600)
    found = list(got.SubscriptionIdentifier)
    if len(found) == 1:
        found += sub.expect(topic, b"all", 1).properties.SubscriptionIdentifier
    same("subscription identifiers", [7, 268435455], sorted(found))
    # A topic alias in place of the topic, of which the subscriber sees nothing.
    sub.unsubscribe(f"{PREFIX}/+")
    same("topic alias maximum is 1 or more", True, pub.properties.TopicAliasMaximum >= 1)
    pub.publish(topic, b"defines", 1, TopicAlias=1)
    pub.publish("", b"uses", 1, TopicAlias=1)
    sub.expect(topic, b"defines", 1)
    sub.expect(topic, b"uses", 1)
    named = Peer("")
    same("an identifier is assigned", True, len(named.properties.AssignedClientIdentifier) > 0)
    for peer in (sub, pub, named):
        peer.disconnect()


def will_of_a_client_that_dies():
    topic = f"{PREFIX}/will"
    watcher = Peer(f"{PREFIX}-watcher")
    watcher.subscribe(topic, 2)
    props = properties(PacketTypes.WILLMESSAGE, UserProperty=[("why", "dead")], WillDelayInterval=0)
    dying = Peer(f"{PREFIX}-dying", will=(topic, b"gone", 2, False, props))
    dying.die()
    message = watcher.expect(topic, b"gone", 2)
    if V5:
        same("user property of the will", [("why", "dead")], message.properties.UserProperty)
    polite = Peer(f"{PREFIX}-dying", will=(topic, b"not said", 2, False, props))
    polite.disconnect()
    watcher.publish(topic, b"after it", 1)
    watcher.expect(topic, b"after it", 1)
    watcher.disconnect()


def retained():
    topic = f"{PREFIX}/retained"
    pub = Peer(f"{PREFIX}-pub")
    pub.publish(topic, b"old", 1, True)
    pub.publish(topic, b"new", 2, True)
    late = Peer(f"{PREFIX}-late")
    late.subscribe(f"{PREFIX}/retained/#", 2)
    late.expect(topic, b"new", 2, True)
    pub.publish(topic, b"live", 1, True)
    late.expect(topic, b"live", 1, False)
    pub.publish(topic, b"", 1, True)
    late.expect(topic, b"", 1, False)
    later = Peer(f"{PREFIX}-later")
    later.subscribe(topic, 1)
    pub.publish(topic, b"first", 1)
    later.expect(topic, b"first", 1, False)
    for peer in (pub, late, later):
        peer.disconnect()


def resume():
    topic, name = f"{PREFIX}/resume", f"{PREFIX}-resumed"
    first = Peer(name, lasting=True, clean=False)
    same("session present", False, first.flags.session_present)
    first.subscribe(topic, 2)
    first.disconnect()
    pub = Peer(f"{PREFIX}-pub")
    if V5:
        pub.publish(topic, b"expires", 1, MessageExpiryInterval=1)
        time.sleep(2.2)
    for n in range(60):
        pub.publish(topic, b"waited %d" % n, 1 + n % 2)
    second = Peer(name, lasting=True, clean=False)
    same("session present", True, second.flags.session_present)
    # QoS 2 messages are handed out at their PUBREL: the order holds within each quality of service.
    got = [second.next() for _ in range(60)]
    for qos in (1, 2):
        wanted = [b"waited %d" % n for n in range(60) if 1 + n % 2 == qos]
        same(f"queued with QoS {qos}", wanted, [message.payload for message in got if message.qos == qos])
    second.disconnect()
    third = Peer(name, clean=True)
    same("session present after a clean start", False, third.flags.session_present)
    for peer in (pub, third):
        peer.disconnect()


def shared():
    members = [Peer(f"{PREFIX}-member-{n}") for n in range(2)]
    for member in members:
        member.subscribe(f"$share/{PREFIX}/{PREFIX}/shared/+", 1)
        member.subscribe(f"{PREFIX}/shared/end/+", 1)
    pub = Peer(f"{PREFIX}-pub")
    sent = [f"m{n}".encode() for n in range(40)]
    for payload in sent:
        pub.publish(f"{PREFIX}/shared/x", payload, 1)
    got = [[], []]
    deadline = time.monotonic() + TIMEOUT
    while sum(map(len, got)) < len(sent) and time.monotonic() < deadline:
        for taken, member in zip(got, members):
            try:
                taken.append(member.messages.get(timeout=0.02).payload)
            except queue.Empty:
                pass
    same("each message once", sorted(sent), sorted(got[0] + got[1]))
    same("both members have some", True, bool(got[0]) and bool(got[1]))
    pub.publish(f"{PREFIX}/shared/end/x", b"end", 1)
    for member in members:
        member.expect(f"{PREFIX}/shared/end/x", b"end", 1)
    for peer in [*members, pub]:
        peer.disconnect()


# An exception in one of the library's threads must not pass for silence.
threading.excepthook = lambda args: (sys.__excepthook__(*args[:3]), sys.stderr.flush())
for step in (qos_both_ways, properties_are_forwarded, will_of_a_client_that_dies, retained, resume, shared):
    if step is properties_are_forwarded and not V5:
        continue
    step()
    print(step.__name__, end=" ", flush=True)
print()
