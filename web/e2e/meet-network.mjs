// SPDX-License-Identifier: Apache-2.0
// Five people in a meeting, one of them behind a network that lets nothing out but TCP to port 443: page, signalling and media come
// through that port, the media inside TURN over TLS. Runs in a network namespace of its own, which has nothing but a loopback device.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { networkInterfaces } from 'node:os';
import { after, before, it } from 'node:test';
import { Guest, MEET_FLAGS } from './meet.mjs';
import { launch } from './pages.mjs';
import { homeserver } from './server.mjs';

const RELAY_PORTS = '20000-20999';
const SFU_PORT = 21000;

/** `closed`: nothing new passes but TCP to port 443; what flows already goes on, and so do relay and SFU inside the server. */
function firewall(closed) {
  const done = spawnSync('nft', ['-f', '-'], {
    encoding: 'utf8',
    input: `
      table inet trunkboard
      delete table inet trunkboard
      table inet trunkboard {
        chain out {
          type filter hook output priority 0; policy ${closed ? 'drop' : 'accept'};
          ct state established accept
          tcp dport 443 accept
          udp sport ${RELAY_PORTS} udp dport ${SFU_PORT} accept
          udp sport ${SFU_PORT} udp dport ${RELAY_PORTS} accept
        }
      }`,
  });
  if (done.status !== 0) throw new Error(`nft: ${done.stderr || done.error}`);
}

let server;
let browser;
before(async () => {
  assert.ok(Object.keys(networkInterfaces()).every((name) => name === 'lo'), 'run this with "make test-network": it wants a network namespace that has only a loopback device');
  server = await homeserver({
    'tls.mode': 'self-signed',
    'listen.https': '127.0.0.1:443', // in a namespace of our own it is free
    'listen.federation': '127.0.0.1:0',
    'turn.tls_listen': '127.0.0.1:0',
    'turn.relay.addresses': '127.0.0.1',
    'turn.relay.min_port': RELAY_PORTS.split('-')[0],
    'turn.relay.max_port': RELAY_PORTS.split('-')[1],
    'sfu.listen_udp': `127.0.0.1:${SFU_PORT}`,
  });
  browser = await launch({ flags: [...MEET_FLAGS, '--ignore-certificate-errors'] });
});
after(async () => {
  await browser?.close();
  await server?.close();
});

it('five people meet, one through port 443 alone', { timeout: 240_000 }, async () => {
  const room = '/meet/Closed';
  firewall(false); // the kernel follows connections from the first rule about them on
  const friends = [];
  for (const name of ['Ann', 'Ben', 'Cem', 'Dora']) {
    const guest = await Guest.come(browser, server.url, name);
    await guest.join(room);
    friends.push(guest);
  }
  for (const friend of friends) await friend.sees(...friends.map((f) => f.name));

  firewall(true);
  await assert.rejects(fetch(`${server.url}/health`, { signal: AbortSignal.timeout(2_000) }), 'the firewall lets another port through');
  const eve = await Guest.come(browser, 'https://localhost', 'Eve');
  await eve.page.addInitScript(() => {
    window.connections = [];
    window.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(...args) {
        super(...args);
        window.connections.push(this);
      }
    };
  });
  const began = Date.now();
  await eve.join(room);
  await eve.sees('Ann', 'Ben', 'Cem', 'Dora');
  console.log(`from the link to the others' pictures through port 443: ${Date.now() - began} ms`);
  for (const friend of friends) await friend.sees('Eve');

  const pairs = await eve.page.evaluate(async () => {
    const found = [];
    for (const connection of window.connections.filter((c) => c.connectionState === 'connected')) {
      const stats = await connection.getStats();
      for (const s of stats.values()) {
        if (s.type !== 'candidate-pair' || !s.nominated || s.state !== 'succeeded') continue;
        const local = stats.get(s.localCandidateId);
        found.push(`${local.candidateType} ${local.relayProtocol} ${local.url ?? ''}`);
      }
    }
    return found;
  });
  console.log(`Eve's connections: ${pairs.join('; ')}`);
  assert.ok(pairs.length > 0 && pairs.every((p) => p.startsWith('relay tls') && p.includes(':443')), pairs.join('; '));
  // Her camera is sent so that frames can be left out of it for whom the way is narrow.
  await eve.page.waitForFunction(() => {
    const cameras = window.connections.flatMap((c) => c.getSenders()).filter((s) => s.track?.kind === 'video' && s.getParameters().encodings.length > 0);
    return cameras.length > 0 && cameras.every((s) => s.getParameters().encodings.every((e) => e.scalabilityMode === 'L1T3'));
  });
  for (const guest of [...friends, eve]) assert.deepEqual(guest.client.problems, [], guest.name);
});
