// SPDX-License-Identifier: Apache-2.0
// Usage: node beside-group.mjs URL SFU
//        node beside-group.mjs prepare FOLDER
// Three people on a homeserver of somebody else, whose group calls run on our SFU beside it, in Element Call with end-to-end encryption. SFU is
// the host and port at which everybody's media must be. "prepare" puts Element Call into a folder. Prints a line of JSON for each case:
// {"case", "error"} or {"case", "note"}. loadtest/interop starts the servers and reads them.
import assert from 'node:assert/strict';
import { check, failed } from './cases.mjs';
import { caller, CALLS_FOR_ALL, elementCall, gather, SLOW_CAMERA } from './group.mjs';
import { freshName, launch } from './pages.mjs';

if (process.argv[2] === 'prepare') {
  await elementCall('compatibility')(process.argv[3]);
  process.exit(0);
}

const [url, sfu] = process.argv.slice(2);

const [browser, other] = await Promise.all([launch({ flags: [SLOW_CAMERA] }), launch({ flags: [SLOW_CAMERA] })]);

try {
  const [ann, ben, cem] = [await caller(browser, url, 'ann'), await caller(browser, url, 'ben'), await caller(other, url, 'cem')];
  let roomId;
  await check('accounts and an encrypted room', async () => {
    for (const p of [ann, ben, cem]) await p.client.signUp(freshName(p.stem));
    roomId = await gather([ann, ben, cem], CALLS_FOR_ALL);
  });
  await check('three people see and hear each other', async () => {
    for (const p of [ann, ben, cem]) await p.join();
    await Promise.all([ann, ben, cem].map((p) => p.tiles(3)));
    await Promise.all([ann, ben, cem].map((p) => p.sees(2)));
    const frame = await ann.inside();
    const asked = await frame.evaluate(() => [...new Set(performance.getEntriesByType('resource').map((e) => new URL(e.name)).filter((u) => u.pathname.includes('/livekit/')).map((u) => u.host))]);
    assert.deepEqual(asked, [sfu]);
  });
  await check('who mutes is shown muted', async () => {
    await ben.at('incall_mute').click();
    await ann.microphone(ben, false);
    await ben.at('incall_mute').click();
    await ann.microphone(ben, true);
  });
  await check('whose browser dies is gone for the others within 20 seconds', async () => {
    const session = await other.browser.newBrowserCDPSession();
    const began = Date.now();
    session.send('Browser.crash').catch(() => {});
    await ann.tiles(2, 25_000);
    assert.ok(Date.now() - began < 20_000, `gone after ${Date.now() - began} ms`);
    assert.equal((await ann.members(roomId)).length, 2);
  });
  await check('who hangs up is gone, and the room has no call any more', async () => {
    await ben.leave();
    await ann.tiles(1);
    await ann.leave();
    await ben.page.locator('[data-testid="group-open"][data-people="0"]').waitFor();
    assert.deepEqual(await ann.members(roomId), []);
  });
} finally {
  await Promise.all([browser.close(), other.close().catch(() => {})]);
}
process.exit(failed ? 1 : 0);
