// SPDX-License-Identifier: Apache-2.0
// One video call in each of six networks: what a person behind that network gets. Runs in a network namespace of its own that has
// nothing but a loopback device, so that no packet can leave and firewall rules hurt nobody:
//
//   case                firewall between clients and server          the call must run over
//   direct              none                                         host to host, UDP
//   relay over UDP      none, clients allow relayed only             relay, UDP leg
//   relay over TCP      UDP dropped, clients allow relayed only      relay, TCP leg
//   relay over TLS      UDP and plain TURN/TCP dropped, likewise     relay, TLS leg
//   UDP dropped         UDP dropped, clients allow everything        relay by itself, TCP or TLS leg
//   port 443 alone      everything dropped but TCP to port 443, on   relay by itself, TLS leg, on the port that the page
//                       which clients also load the page             came from
//
// Chromium makes nothing of turns:…?transport=udp, as the last test shows: TURN over DTLS is tested with pion's client and coturn's
// (turn/server_test.go, turn/uclient_test.go).
//
// Passing means decoded frames and audio energy on both sides, and the selected pair that the case demands on both sides.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { networkInterfaces } from 'node:os';
import { after, before, describe, it } from 'node:test';
import { freshName, introduce, launch, mediaFlows } from './pages.mjs';
import { homeserver } from './server.mjs';

const RELAY_PORTS = [20000, 20999];
const alone = Object.keys(networkInterfaces()).every((name) => name === 'lo');
const rows = [];

function nft(rules) {
  const done = spawnSync('nft', ['-f', '-'], { input: rules, encoding: 'utf8' });
  if (done.status !== 0) throw new Error(`nft: ${done.stderr || done.error}`);
}

/**
 * Drops UDP but for the relay's own ports, on which relayed calls meet inside the server; and TCP to the ports `tcp`, or to and from
 * all but the port `only`.
 */
function firewall({ udp = false, tcp = [], only } = {}) {
  const [low, high] = RELAY_PORTS;
  nft(`
    table inet trunkboard
    delete table inet trunkboard
    table inet trunkboard {
      chain out {
        type filter hook output priority 0; policy accept;
        ${udp ? `udp sport ${low}-${high} udp dport ${low}-${high} accept\n        meta l4proto udp drop` : ''}
        ${tcp.length ? `tcp dport { ${tcp.join(', ')} } drop` : ''}
        ${only ? `tcp dport ${only} accept\n        tcp sport ${only} accept\n        meta l4proto tcp drop` : ''}
      }
    }`);
}

describe('one call in six networks', () => {
  let server;
  let browser;

  before(async () => {
    assert.ok(alone, 'run this with "make test-network": it wants a network namespace that has only a loopback device');
    server = await homeserver({
      'tls.mode': 'self-signed',
      'listen.https': '127.0.0.1:443', // in a namespace of our own it is free
      'listen.federation': '127.0.0.1:0',
      'turn.tls_listen': '127.0.0.1:0',
      'turn.relay.addresses': '127.0.0.1',
      'turn.relay.min_port': String(RELAY_PORTS[0]),
      'turn.relay.max_port': String(RELAY_PORTS[1]),
    });
    // The local authority is nobody's whom a browser trusts; turns: obeys this flag as https: does.
    browser = await launch({ flags: ['--ignore-certificate-errors'] });
  });
  after(async () => {
    await browser?.close();
    await server?.close();
    if (rows.length) {
      console.log('\n| network | selected pair | leg | first media | round trip |\n|---|---|---|---|---|');
      for (const r of rows) console.log(`| ${r.name} | ${r.pair.local} ${r.pair.localAddress} - ${r.pair.remote} ${r.pair.remoteAddress} | ${r.pair.protocol} | ${r.ms} ms | ${r.pair.rttMs?.toFixed(1)} ms |`);
    }
  });

  const port = (key) => Number(server.addresses[key].split(':').pop());

  for (const [name, { relayOnly, udp, closed, only, wants }] of Object.entries({
    direct: { wants: { types: ['host', 'prflx'], legs: ['udp'] } },
    'relay over UDP': { relayOnly: true, wants: { types: ['relay'], legs: ['udp'] } },
    'relay over TCP': { relayOnly: true, udp: true, wants: { types: ['relay'], legs: ['tcp'] } },
    'relay over TLS': { relayOnly: true, udp: true, closed: ['turn.listen/tcp'], wants: { types: ['relay'], legs: ['tls'] } },
    'UDP dropped': { udp: true, wants: { types: ['relay'], legs: ['tcp', 'tls'] } },
    'port 443 alone': { udp: true, only: 443, wants: { types: ['relay'], legs: ['tls'] } },
  })) {
    it(name, { timeout: 120_000 }, async () => {
      firewall({ udp, tcp: (closed ?? []).map(port), only });
      const url = only ? 'https://localhost' : server.url;
      if (only) await assert.rejects(fetch(`${server.url}/health`, { signal: AbortSignal.timeout(2_000) }), 'the firewall lets another port through');
      const settings = relayOnly ? { 'trunkboard.iceTransportPolicy': 'relay' } : {};
      const ann = await browser.person(url, { settings });
      const ben = await browser.person(url, { settings });
      try {
        await introduce(ann, ben, 'net');
        await ann.call();
        const asked = Date.now();
        await ben.accept();
        await Promise.all([ann.phase('connected'), ben.phase('connected')]);
        await mediaFlows(ann, ben);
        const ms = Date.now() - asked;
        for (const person of [ann, ben]) {
          const pair = await person.selectedPair();
          assert.ok(wants.types.includes(pair.local), `${person.name} sends from ${JSON.stringify(pair)}`);
          assert.ok(wants.types.includes(pair.remote), `${person.name} sends to ${JSON.stringify(pair)}`);
          assert.ok(wants.legs.includes(pair.protocol), `${person.name} uses ${JSON.stringify(pair)}`);
          if (person === ann) rows.push({ name, pair, ms });
        }
        await ann.hangUp();
        await Promise.all([ann.noCall(), ben.noCall()]);
      } finally {
        firewall();
        await Promise.all([ann.close(), ben.close()]);
      }
    });
  }

  it('Chromium asks for no relay over DTLS', { timeout: 120_000 }, async () => {
    const person = await browser.person(server.url);
    try {
      await person.signUp(freshName('dtls'));
      // Without a microphone a page is shown the default route only, and here there is none.
      await person.page.evaluate(async () => (window.heard = await navigator.mediaDevices.getUserMedia({ audio: true })));
      const relayed = (url) =>
        person.page.evaluate(async (urls) => {
          const { accessToken } = JSON.parse(localStorage.getItem('trunkboard.session'));
          const answer = await fetch('/_matrix/client/v3/voip/turnServer', { headers: { authorization: `Bearer ${accessToken}` } });
          const { username, password } = await answer.json();
          const pc = new RTCPeerConnection({ iceTransportPolicy: 'relay', iceServers: [{ urls, username, credential: password }] });
          (window.probes ??= []).push(pc); // or it would be collected, and its allocation given back
          pc.createDataChannel('probe');
          const first = new Promise((resolve) => (pc.onicecandidate = ({ candidate }) => resolve(candidate)));
          await pc.setLocalDescription();
          if (!(await first)) return 'none';
          return [...(await pc.getStats()).values()].filter((s) => s.type === 'local-candidate').map((s) => `${s.candidateType} ${s.relayProtocol}`).join();
        }, url);
      const plain = port('turn.listen');
      assert.equal(await relayed(`turn:127.0.0.1:${plain}?transport=udp`), 'relay udp');
      assert.equal(await relayed(`turns:127.0.0.1:${plain}?transport=udp`), 'none'); // a port that takes both
    } finally {
      await person.close();
    }
  });
});
