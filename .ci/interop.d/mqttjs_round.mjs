// A round with MQTT.js: node mqttjs_round.mjs PORT 3.1.1|5.0 PREFIX FOLDER_OF_NODE_MODULES

import { createRequire } from 'node:module';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

const [port, version, prefix, folder] = process.argv.slice(2);
const mqtt = createRequire(`${folder}/`)('mqtt');
const V5 = version === '5.0';
const TIMEOUT_MS = 30_000;
// LAYERS: tcp (the default), tls, ws or wss; CHAIN: the certificate of localhost.
const LAYERS = process.env.LAYERS ?? 'tcp';
const ca = LAYERS === 'tls' || LAYERS === 'wss' ? readFileSync(process.env.CHAIN) : undefined;
const protocol = LAYERS.startsWith('ws') ? LAYERS : LAYERS === 'tls' ? 'mqtts' : 'mqtt';

// A client that keeps what it gets, and never connects again by itself.
class Peer {
  static async open(name, { clean = true, expiry = 0, ...more } = {}) {
    const peer = new Peer();
    peer.name = name;
    peer.waiting = [];
    peer.takers = [];
    const options = {
      host: 'localhost', protocol, ca, path: '/mqtt', port: Number(port), clientId: name === '' ? '' : `${prefix}-${name}`, clean,
      reconnectPeriod: 0, resubscribe: false, keepalive: 30, connectTimeout: TIMEOUT_MS,
      protocolVersion: V5 ? 5 : 4, ...more,
    };
    if (V5) options.properties = { sessionExpiryInterval: expiry, ...more.properties };
    peer.client = mqtt.connect(options);
    peer.client.on('message', (topic, payload, packet) => peer.put({ topic, payload, packet }));
    peer.client.on('disconnect', (packet) => { peer.told = packet.reasonCode; });
    peer.closed = new Promise((resolve) => { peer.client.once('close', resolve); });
    peer.connack = await within(`${name}: CONNACK`, new Promise((resolve, reject) => {
      peer.client.once('connect', resolve);
      peer.client.once('error', reject);
    }));
    peer.client.on('error', () => {});
    return peer;
  }

  put(message) {
    const taker = this.takers.shift();
    if (taker) taker(message); else this.waiting.push(message);
  }

  next() {
    const message = this.waiting.shift();
    if (message) return message;
    return within(`${this.name}: a message`, new Promise((resolve) => { this.takers.push(resolve); }));
  }

  async expect(topic, payload, qos, retain = false) {
    const { topic: gotTopic, payload: gotPayload, packet } = await this.next();
    assert.deepEqual([gotTopic, gotPayload.toString(), packet.qos, packet.retain], [topic, payload, qos, retain]);
    return packet;
  }

  async subscribe(topic, qos, properties) {
    const granted = await this.client.subscribeAsync(topic, { qos, ...(V5 ? { properties } : {}) });
    assert.deepEqual(granted.map((one) => one.qos), [qos], `SUBACK of ${topic}`);
  }

  publish(topic, payload, qos = 1, options = {}) {
    const closed = this.closed.then(() => {
      throw new Error(`${this.name}: expected an acknowledgement, got DISCONNECT ${this.told} and the end`);
    });
    const acknowledged = this.client.publishAsync(topic, payload, { qos, ...options });
    return within(`${this.name}: an acknowledgement`, Promise.race([acknowledged, closed]));
  }

  end() { return this.client.endAsync(); }
}

function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`expected ${what}, got nothing`)), TIMEOUT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const steps = {
  async qos_both_ways() {
    const [sub, pub] = [await Peer.open('sub'), await Peer.open('pub')];
    for (const wanted of [0, 1, 2]) {
      const topic = `${prefix}/qos/${wanted}`;
      await sub.subscribe(`${topic}/+`, wanted);
      for (const qos of [0, 1, 2]) {
        await pub.publish(`${topic}/x`, `${qos} to ${wanted}`, qos);
        await sub.expect(`${topic}/x`, `${qos} to ${wanted}`, Math.min(qos, wanted));
      }
    }
    await sub.subscribe(`${prefix}/many`, 2);
    // MQTT.js does not heed the broker's receive maximum, which is 100.
    const sent = Array.from({ length: 100 }, (_, n) => `${n}`);
    await Promise.all(sent.map((payload) => pub.publish(`${prefix}/many`, payload, 2)));
    for (const payload of sent) await sub.expect(`${prefix}/many`, payload, 2);
    const unsuback = await sub.client.unsubscribeAsync([`${prefix}/many`, `${prefix}/never`]);
    if (V5) assert.deepEqual([...unsuback.granted], [0x00, 0x11], 'UNSUBACK');
    await pub.publish(`${prefix}/many`, 'not wanted');
    await pub.publish(`${prefix}/qos/1/x`, 'after it');
    await sub.expect(`${prefix}/qos/1/x`, 'after it', 1);
    await sub.end();
    await pub.end();
  },

  async properties_are_forwarded() {
    const [sub, pub] = [await Peer.open('sub'), await Peer.open('pub', { autoUseTopicAlias: false })];
    const topic = `${prefix}/properties`;
    await sub.subscribe(topic, 1, { subscriptionIdentifier: 16384 });
    const properties = {
      userProperties: { b: ['1', '2'], a: '3' }, responseTopic: `${prefix}/answers`, contentType: 'text/plain',
      correlationData: Buffer.from([0, 255, 1]), payloadFormatIndicator: true, messageExpiryInterval: 600,
    };
    await pub.publish(topic, 'all', 1, { properties });
    const got = (await sub.expect(topic, 'all', 1)).properties;
    assert(got.messageExpiryInterval > 0 && got.messageExpiryInterval <= 600, 'message expiry is 1 to 600');
    assert.equal(got.subscriptionIdentifier, 16384, 'subscription identifier');
    assert.deepEqual({ ...got.userProperties }, properties.userProperties, 'user properties');
    for (const name of ['responseTopic', 'contentType', 'correlationData', 'payloadFormatIndicator']) {
      assert.deepEqual(got[name], properties[name], name);
    }
    await pub.publish(topic, 'defines', 1, { properties: { topicAlias: 3 } });
    await pub.publish('', 'uses', 1, { properties: { topicAlias: 3 } });
    await sub.expect(topic, 'defines', 1);
    await sub.expect(topic, 'uses', 1);
    const automatic = await Peer.open('automatic', { autoAssignTopicAlias: true });
    for (const n of [1, 2, 3]) await automatic.publish(topic, `by itself ${n}`, 1);
    for (const n of [1, 2, 3]) await sub.expect(topic, `by itself ${n}`, 1);
    // The broker may use an alias as well.
    const aliased = await Peer.open('aliased', { properties: { topicAliasMaximum: 10 } });
    await aliased.subscribe(topic, 1);
    for (const n of [1, 2, 3]) await pub.publish(topic, `again ${n}`);
    for (const n of [1, 2, 3]) await aliased.expect(topic, `again ${n}`, 1);
    await aliased.end();
    const named = await Peer.open('');
    assert(named.connack.properties.assignedClientIdentifier.length > 0, 'an identifier is assigned');
    for (const peer of [sub, pub, automatic, named]) await peer.end();
  },

  async subscription_options() {
    const peer = await Peer.open('options');
    const topic = `${prefix}/options`;
    await peer.publish(topic, 'kept', 1, { retain: true });
    await peer.client.subscribeAsync(topic, { qos: 1, nl: true, rap: true, rh: 2 });
    await peer.publish(topic, 'own', 1);
    const other = await Peer.open('other');
    await other.publish(topic, 'as published', 1, { retain: true });
    await peer.expect(topic, 'as published', 1, true);
    await other.publish(topic, '', 1, { retain: true });
    await peer.expect(topic, '', 1, true);
    await peer.end();
    await other.end();
  },

  async will_of_a_client_that_dies() {
    const topic = `${prefix}/will`;
    const watcher = await Peer.open('watcher');
    await watcher.subscribe(topic, 2);
    const will = { topic, payload: Buffer.from('gone'), qos: 2, retain: false };
    if (V5) will.properties = { userProperties: { why: 'dead' }, willDelayInterval: 0 };
    const dying = await Peer.open('dying', { will });
    dying.client.stream.destroy();
    const packet = await watcher.expect(topic, 'gone', 2);
    if (V5) assert.deepEqual({ ...packet.properties.userProperties }, { why: 'dead' }, 'the will has its properties');
    const polite = await Peer.open('dying', { will });
    await polite.end();
    await watcher.publish(topic, 'after it');
    await watcher.expect(topic, 'after it', 1);
    await watcher.end();
  },

  async retained() {
    const topic = `${prefix}/retained`;
    const [pub, late, later] = [await Peer.open('pub'), await Peer.open('late'), await Peer.open('later')];
    await pub.publish(topic, 'old', 2, { retain: true });
    await pub.publish(topic, 'new', 1, { retain: true });
    await late.subscribe(`${topic}/#`, 1);
    await late.expect(topic, 'new', 1, true);
    await pub.publish(topic, '', 1, { retain: true });
    await late.expect(topic, '', 1, false);
    await later.subscribe(topic, 1);
    await pub.publish(topic, 'live');
    await later.expect(topic, 'live', 1);
    for (const peer of [pub, late, later]) await peer.end();
  },

  async resume() {
    const topic = `${prefix}/resume`;
    const lasting = { clean: false, expiry: 300 };
    const first = await Peer.open('resumed', lasting);
    assert.equal(first.connack.sessionPresent, false, 'session present');
    await first.subscribe(topic, 2);
    await first.end();
    const pub = await Peer.open('pub');
    for (let n = 0; n < 50; n += 1) await pub.publish(topic, `${n}`, 1 + (n % 2));
    const second = await Peer.open('resumed', lasting);
    assert.equal(second.connack.sessionPresent, true, 'session present');
    // QoS 2 messages are handed out at their PUBREL: the order holds within each quality of service.
    const got = [];
    for (let n = 0; n < 50; n += 1) got.push(await second.next());
    for (const qos of [1, 2]) {
      const wanted = Array.from({ length: 25 }, (_, n) => `${2 * n + qos - 1}`);
      const had = got.filter(({ packet }) => packet.qos === qos).map(({ payload }) => payload.toString());
      assert.deepEqual(had, wanted, `queued with QoS ${qos}`);
    }
    // Another connection with the same identifier takes it over.
    const third = await Peer.open('resumed', lasting);
    await within('the end of the connection that was taken over', second.closed);
    if (V5) assert.equal(second.told, 0x8e, 'DISCONNECT');
    await pub.publish(topic, 'still subscribed');
    await third.expect(topic, 'still subscribed', 1);
    await third.end();
    const last = await Peer.open('resumed');
    assert.equal(last.connack.sessionPresent, false, 'session present after a clean start');
    await last.end();
    await pub.end();
  },

  async shared() {
    const members = [await Peer.open('m1'), await Peer.open('m2')];
    const pub = await Peer.open('pub');
    for (const member of members) await member.subscribe(`$share/${prefix}/${prefix}/shared/#`, 1);
    const sent = Array.from({ length: 40 }, (_, n) => `${n}`);
    const got = [];
    const all = new Promise((resolve) => {
      for (const member of members) {
        member.put = ({ payload }) => {
          member.count = (member.count ?? 0) + 1;
          if (got.push(payload.toString()) === sent.length) resolve();
        };
      }
    });
    for (const payload of sent) await pub.publish(`${prefix}/shared/x`, payload);
    await within(`${sent.length} messages`, all);
    assert.deepEqual(got.sort(), sent.sort(), 'each message once');
    assert(members.every((member) => member.count > 0), 'both members have some');
    for (const peer of [...members, pub]) await peer.end();
  },
};

const of5 = ['properties_are_forwarded', 'subscription_options'];
for (const [name, step] of Object.entries(steps)) {
  if (of5.includes(name) && !V5) continue;
  try {
    await step();
  } catch (error) {
    console.error(`${name}: ${error.stack}`);
    process.exit(1);
  }
  process.stdout.write(`${name} `);
}
console.log();
process.exit(0);
