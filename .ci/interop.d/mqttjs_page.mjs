// A round with MQTT.js in headless Chromium:
// node mqttjs_page.mjs FOLDER_OF_NODE_MODULES PROFILE WS_PORT WSS_PORT PORT_OF_A_LISTENER_THAT_TAKES_OTHER_ORIGINS

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const [folder, profile, ws, wss, kept] = process.argv.slice(2);
const TIMEOUT_MS = 90_000;
const library = readFileSync(`${folder}/node_modules/mqtt/dist/mqtt.min.js`);

// Runs in the page.
async function round({ ws, wss, kept }) {
  const open = (url, id, protocolVersion, more = {}) => new Promise((resolve, reject) => {
    const client = mqtt.connect(url, { clientId: id, protocolVersion, reconnectPeriod: 0, connectTimeout: 30_000, ...more });
    client.waiting = [];
    client.takers = [];
    client.on('message', (topic, payload, packet) => {
      const message = { topic, payload, qos: packet.qos, retain: packet.retain };
      const taker = client.takers.shift();
      if (taker) taker(message); else client.waiting.push(message);
    });
    client.next = () => client.waiting.length ? client.waiting.shift() : new Promise((take) => client.takers.push(take));
    client.once('connect', () => resolve(client));
    client.once('close', () => reject(new Error(`${url} was closed`)));
    client.once('error', reject);
  });
  const same = (what, got, wanted) => {
    if (JSON.stringify(got) !== JSON.stringify(wanted)) throw new Error(`${what}: expected ${JSON.stringify(wanted)}, got ${JSON.stringify(got)}`);
  };
  for (const [name, url] of [['wss', `wss://localhost:${wss}/mqtt`], ['ws', `ws://localhost:${ws}/mqtt`]]) {
    for (const version of [4, 5]) {
      const prefix = `${name}/${version}`;
      const will = { topic: `${prefix}/will`, payload: 'gone', qos: 1, retain: false };
      const [sub, pub] = [await open(url, `${prefix}-sub`, version), await open(url, `${prefix}-pub`, version, { will })];
      for (const qos of [0, 1, 2]) {
        await sub.subscribeAsync(`${prefix}/${qos}/#`, { qos });
        // Of one frame, and of more than the largest record of TLS.
        for (const length of [0, 1, 125, 126, 65_536, 300_000]) {
          const payload = 'x'.repeat(length);
          await pub.publishAsync(`${prefix}/${qos}/${length}`, payload, { qos });
          const got = await sub.next();
          same('a message', [got.topic, got.qos, got.payload.length], [`${prefix}/${qos}/${length}`, qos, length]);
        }
      }
      await pub.publishAsync(`${prefix}/kept`, 'retained', { qos: 1, retain: true });
      await sub.subscribeAsync(`${prefix}/kept`, { qos: 1 });
      const got = await sub.next();
      same('a retained message', [got.topic, new TextDecoder().decode(got.payload), got.retain], [`${prefix}/kept`, 'retained', true]);
      await sub.subscribeAsync(`${prefix}/will`, { qos: 1 });
      pub.stream.destroy();
      same('a will', new TextDecoder().decode((await sub.next()).payload), 'gone');
      await sub.endAsync();
    }
  }
  const refused = await open(`wss://localhost:${kept}/mqtt`, 'stranger', 5).then(() => false, () => true);
  same('a page of another origin is refused', refused, true);
}

const page = `<!doctype html><title>MQTT</title><script src="/mqtt.min.js"></script><script type="module">
const tell = (result) => fetch('/result', { method: 'POST', body: result });
(${round})({ ws: ${ws}, wss: ${wss}, kept: ${kept} }).then(() => tell('ok'), (error) => tell(String(error.stack ?? error)));
</script>`;

let browser;
const finish = (code, text) => {
  if (text) console.error(text);
  process.exitCode = code;
  browser?.kill('SIGKILL');
  server.close();
  server.closeAllConnections();
  clearTimeout(timer);
};
const server = createServer((request, response) => {
  if (request.method === 'POST') {
    let result = '';
    request.on('data', (part) => { result += part; });
    request.on('end', () => {
      response.end();
      finish(result === 'ok' ? 0 : 1, result === 'ok' ? '' : result);
    });
  } else if (request.url === '/mqtt.min.js') {
    response.setHeader('content-type', 'text/javascript').end(library);
  } else {
    response.setHeader('content-type', 'text/html').end(page);
  }
});
const timer = setTimeout(() => finish(1, `the page did not come to an end within ${TIMEOUT_MS} ms`), TIMEOUT_MS);
server.listen(0, '127.0.0.1', () => {
  const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
    '--disable-background-networking', '--disable-component-update', '--ignore-certificate-errors', `--user-data-dir=${profile}`];
  browser = spawn('chromium', [...flags, `http://127.0.0.1:${server.address().port}/`], { stdio: 'ignore' });
  browser.on('error', (error) => finish(1, String(error)));
});
