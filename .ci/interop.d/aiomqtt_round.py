"""A round with Python's aiomqtt: aiomqtt_round.py PORT 3.1.1|5.0 PREFIX"""

import asyncio
import logging
import socket
import sys

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PORT, VERSION, PREFIX = int(sys.argv[1]), sys.argv[2], sys.argv[3]
V5 = VERSION == "5.0"
TIMEOUT = 30
# Silent about how many calls are under way.
LOGGER = logging.getLogger("round")
LOGGER.setLevel(logging.ERROR)


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


def peer(name, clean=True, expiry_s=0, will=None):
    version = aiomqtt.ProtocolVersion.V5 if V5 else aiomqtt.ProtocolVersion.V311
    clean = {"clean_start": clean} if V5 else {"clean_session": clean}
    props = properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry_s)
    return aiomqtt.Client(
        "127.0.0.1",
        PORT,
        identifier=f"{PREFIX}-{name}",
        protocol=version,
        will=will,
        properties=props,
        logger=LOGGER,
        **clean,
    )


async def expect(client, topic, payload, qos, retain=False):
    async with asyncio.timeout(TIMEOUT):
        message = await anext(aiter(client.messages))
    got = (str(message.topic), message.payload, message.qos, bool(message.retain))
    same("message", (topic, payload, qos, retain), got)
    return message


async def subscribe(client, topic, qos, **values):
    codes = await client.subscribe(topic, qos, properties=properties(PacketTypes.SUBSCRIBE, **values))
    same(f"SUBACK of {topic}", [qos], [getattr(code, "value", code) for code in codes])


async def qos_both_ways():
    async with peer("sub") as sub, peer("pub") as pub:
        for wanted in (0, 1, 2):
            topic = f"{PREFIX}/qos/{wanted}"
            await subscribe(sub, f"{topic}/#", wanted)
            for qos in (0, 1, 2):
                payload = f"{qos} to {wanted}".encode()
                await pub.publish(f"{topic}/x", payload, qos)
                await expect(sub, f"{topic}/x", payload, min(qos, wanted))
        # Many at once: acknowledgements come interleaved.
        await subscribe(sub, f"{PREFIX}/many", 2)
        sent = [f"{n}".encode() for n in range(200)]
        await asyncio.gather(*(pub.publish(f"{PREFIX}/many", payload, 2) for payload in sent))
        for payload in sent:
            await expect(sub, f"{PREFIX}/many", payload, 2)
        await sub.unsubscribe(f"{PREFIX}/many")
        await pub.publish(f"{PREFIX}/many", b"not wanted", 1)
        await pub.publish(f"{PREFIX}/qos/1/x", b"after it", 1)
        await expect(sub, f"{PREFIX}/qos/1/x", b"after it", 1)


async def properties_are_forwarded():
    async with peer("sub") as sub, peer("pub") as pub:
        topic, users = f"{PREFIX}/properties", [("z", "1"), ("a", "2"), ("z", "3")]
        await subscribe(sub, topic, 2, SubscriptionIdentifier=300)
        values = {
            "UserProperty": users,
            "ResponseTopic": f"{PREFIX}/answers",
            "CorrelationData": bytes(range(64)),
            "ContentType": "application/octet-stream",
            "MessageExpiryInterval": 3600,
            "TopicAlias": 2,
        }
        await pub.publish(topic, b"all", 2, properties=properties(PacketTypes.PUBLISH, **values))
        await pub.publish("", b"by alias", 2, properties=properties(PacketTypes.PUBLISH, TopicAlias=2))
        got = (await expect(sub, topic, b"all", 2)).properties
        same("user properties", users, got.UserProperty)
        same("response topic", f"{PREFIX}/answers", got.ResponseTopic)
        same("correlation data", bytes(range(64)), got.CorrelationData)
        same("content type", "application/octet-stream", got.ContentType)
        same("message expiry is 1 to 3600", True, 0 < got.MessageExpiryInterval <= 3600)
        same("subscription identifier", [300], got.SubscriptionIdentifier)
        same("no topic alias is passed on", False, hasattr(got, "TopicAlias"))
        await expect(sub, topic, b"by alias", 2)


async def will_of_a_client_that_dies():
    topic = f"{PREFIX}/will"
    async with peer("watcher") as watcher:
        # Once this one came, the retained will is not looked up for the watcher as well.
        await watcher.publish(topic, b"before", 1, True)
        await subscribe(watcher, topic, 1)
        await expect(watcher, topic, b"before", 1, True)
        props = properties(PacketTypes.WILLMESSAGE, ContentType="text/plain", MessageExpiryInterval=60)
        will = aiomqtt.Will(topic, b"gone", 1, True, props)
        try:
            async with peer("dying", will=will) as dying:
                dying._client.socket().shutdown(socket.SHUT_RDWR)
                await asyncio.wait_for(anext(aiter(dying.messages)), TIMEOUT)
        except aiomqtt.MqttError:
            pass
        message = await expect(watcher, topic, b"gone", 1, False)
        if V5:
            same("content type of the will", "text/plain", message.properties.ContentType)
        async with peer("late") as late:
            await subscribe(late, topic, 1)
            await expect(late, topic, b"gone", 1, True)
        await watcher.publish(topic, b"", 1, True)


async def retained():
    topic = f"{PREFIX}/retained/a/b"
    async with peer("pub") as pub, peer("late") as late:
        await pub.publish(topic, b"kept", 0, True)
        await pub.publish(f"{topic}/c", b"kept as well", 2, True)
        await pub.publish(f"{topic}/c", b"another", 1, False)
        await subscribe(late, f"{PREFIX}/retained/+/b/#", 2)
        async with asyncio.timeout(TIMEOUT):
            got = sorted([(await anext(aiter(late.messages))) for _ in range(2)], key=lambda m: str(m.topic))
        wanted = [(topic, b"kept", 0, True), (f"{topic}/c", b"kept as well", 2, True)]
        same("retained", wanted, [(str(m.topic), m.payload, m.qos, bool(m.retain)) for m in got])
        for name in (topic, f"{topic}/c"):
            await pub.publish(name, b"", 1, True)
            await expect(late, name, b"", 1, False)
        async with peer("later") as later:
            await subscribe(later, f"{PREFIX}/retained/#", 1)
            await pub.publish(topic, b"live", 1)
            await expect(later, topic, b"live", 1, False)


async def resume():
    topic = f"{PREFIX}/resume"
    async with peer("resumed", clean=False, expiry_s=300) as first:
        await subscribe(first, topic, 1)
    async with peer("pub") as pub:
        for n in range(50):
            await pub.publish(topic, b"%d" % n, 1)
    async with peer("resumed", clean=False, expiry_s=300) as second:
        for n in range(50):
            await expect(second, topic, b"%d" % n, 1)
    async with peer("resumed", clean=True) as third:
        await third.publish(topic, b"not subscribed any more", 1)
        await subscribe(third, f"{topic}/2", 1)
        await third.publish(f"{topic}/2", b"alone", 1)
        await expect(third, f"{topic}/2", b"alone", 1)


async def shared():
    async with peer("m1") as m1, peer("m2") as m2, peer("pub") as pub:
        got = {m1: [], m2: []}
        for member in got:
            await subscribe(member, f"$share/{PREFIX}/{PREFIX}/shared/#", 2)
        sent = [f"{n}".encode() for n in range(40)]

        async def take(member):
            async for message in member.messages:
                got[member].append(message.payload)
                if sum(map(len, got.values())) == len(sent):
                    done.set()

        done = asyncio.Event()
        takers = [asyncio.create_task(take(member)) for member in got]
        for payload in sent:
            await pub.publish(f"{PREFIX}/shared/x", payload, 2)
        try:
            await asyncio.wait_for(done.wait(), TIMEOUT)
        except TimeoutError:
            pass
        for taker in takers:
            taker.cancel()
        same("each message once", sorted(sent), sorted(got[m1] + got[m2]))
        same("both members have some", True, bool(got[m1]) and bool(got[m2]))


async def main():
    for step in (qos_both_ways, properties_are_forwarded, will_of_a_client_that_dies, retained, resume, shared):
        if step is properties_are_forwarded and not V5:
            continue
        await step()
        print(step.__name__, end=" ", flush=True)
    print()


asyncio.run(main())
