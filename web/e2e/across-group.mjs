// SPDX-License-Identifier: Apache-2.0
// Usage: node across-group.mjs URL URL
//        node across-group.mjs prepare FOLDER…
// Two people on one homeserver and two on another meet in Element Call: everybody sends to the SFU of their own server and listens at both, with
// end-to-end encryption. "prepare" puts Element Call into servers' data folders. Prints a line of JSON for each case: {"case", "error"} or
// {"case", "note"}. loadtest/interop starts the servers and reads them.
import assert from 'node:assert/strict';
import { check, failed } from './cases.mjs';
import { caller, CALLS_FOR_ALL, elementCall, gather, SLOW_CAMERA } from './group.mjs';
import { freshName, launch } from './pages.mjs';

if (process.argv[2] === 'prepare') {
  for (const data of process.argv.slice(3)) await elementCall('compatibility')(data);
  process.exit(0);
}

const servers = process.argv.slice(2, 4);

const browser = await launch({ flags: [SLOW_CAMERA] });
const people = [];
for (const [i, stem] of ['ann', 'ben', 'cem', 'dee'].entries()) people.push(await caller(browser, servers[i >> 1], stem));
const [ann, ben, cem, dee] = people;
const all = (f) => Promise.all(people.map(f));

/** Which servers' SFUs a page has a WebSocket to, from what it asked for. */
async function sfus(who) {
  const frame = await who.inside();
  return frame.evaluate(() => [...new Set(performance.getEntriesByType('resource').map((e) => new URL(e.name)).filter((u) => u.pathname.includes('/livekit/')).map((u) => u.host))].sort());
}

try {
  (await check('accounts', async () => {
    for (const p of people) await p.client.signUp(freshName(p.stem));
  })) &&
    (await check('an encrypted room across servers', async () => {
      await gather(people, CALLS_FOR_ALL);
    })) &&
    (await check('four people on two servers see and hear each other', async () => {
      for (const p of people) await p.join();
      await all((p) => p.tiles(4));
      await all((p) => p.sees(3));
      if (process.env.TRUNKBOARD_SCREENSHOTS) await ann.page.screenshot({ path: `${process.env.TRUNKBOARD_SCREENSHOTS}/across-ann.png` });
      if (process.env.TRUNKBOARD_SCREENSHOTS) await dee.page.screenshot({ path: `${process.env.TRUNKBOARD_SCREENSHOTS}/across-dee.png` });
      const hosts = await Promise.all([sfus(ann), sfus(dee)]);
      const both = servers.map((s) => new URL(s).host).sort();
      assert.deepEqual(hosts, [both, both]);
      return `everybody has asked ${both.join(' and ')}`;
    })) &&
    (await check('who mutes is shown muted on the other server', async () => {
      await dee.at('incall_mute').click();
      await ann.microphone(dee, false);
      await dee.at('incall_mute').click();
      await ann.microphone(dee, true);
    })) &&
    (await check('who hangs up is gone for the others', async () => {
      await cem.leave();
      await Promise.all([ann, ben, dee].map((p) => p.tiles(3)));
      await Promise.all([ann, ben, dee].map((p) => p.sees(2)));
    }));
} finally {
  await browser.close();
}
process.exit(failed ? 1 : 0);
