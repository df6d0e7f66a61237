// SPDX-License-Identifier: Apache-2.0
// Usage: node across.mjs URL URL
// A person on one homeserver calls a person on the other, in the web client that both URLs serve, over their relays only; then back.
// Prints a line of JSON for each case: {"case", "error"} or {"case", "note"}. loadtest/interop starts the servers and reads them.
import assert from 'node:assert/strict';
import { check, failed } from './cases.mjs';
import { freshName, launch, mediaFlows } from './pages.mjs';

const [here, there] = process.argv.slice(2);

const browser = await launch();
const settings = { 'trunkboard.iceTransportPolicy': 'relay' };
const ann = await browser.person(here, { settings });
const ben = await browser.person(there, { settings });

/** One call; returns what it took and which way it went. */
async function call(from, to, video) {
  const rung = Date.now();
  await from.call({ video });
  await to.at('incoming').waitFor();
  const rings = Date.now() - rung;
  const answered = Date.now();
  await to.accept();
  await Promise.all([from.phase('connected'), to.phase('connected')]);
  await mediaFlows(from, to, { video });
  const media = Date.now() - answered;
  const pairs = await Promise.all([from.selectedPair(), to.selectedPair()]);
  for (const pair of pairs) {
    assert.equal(pair.local, 'relay', JSON.stringify(pair));
    // A check that arrives before its candidate was told makes a peer-reflexive one of the same address.
    assert.match(pair.remote, /^(relay|prflx)$/, JSON.stringify(pair));
  }
  await to.hangUp();
  await Promise.all([from.noCall(), to.noCall()]);
  await Promise.all([from.tile('ended'), to.tile('ended')]);
  const [one, two] = pairs;
  return `rings after ${rings} ms; from the answer to media both ways ${media} ms; ${one.localAddress} (${one.protocol}) - ${two.localAddress} (${two.protocol})`;
}

try {
  let room;
  (await check('accounts', async () => {
    await Promise.all([ann.signUp(freshName('ann')), ben.signUp(freshName('ben'))]);
  })) &&
    (await check('an encrypted chat across servers', async () => {
      room = await ann.startChat(await ben.userId());
      await ben.acceptInvite(room);
      await ann.send('hello over there');
      await ben.sees('hello over there');
      await ben.send('hello back');
      await ann.sees('hello back');
      const [events, annId] = await Promise.all([ben.serverEvents(room), ann.userId()]);
      assert.ok(events.some((e) => e.type === 'm.room.encrypted' && e.sender === annId), 'the words went over in the clear');
    })) &&
    (await check('a video call there', () => call(ann, ben, true))) &&
    (await check('a voice call back', () => call(ben, ann, false))) &&
    (await check('a declined call', async () => {
      await ann.call({ video: false });
      await ben.decline();
      await ann.phase('ended');
      await Promise.all([ann.tile('declined'), ben.tile('declined')]);
      await ann.noCall();
    })) &&
    (await check('a call that is given up', async () => {
      await ben.call({ video: false });
      await ann.at('incoming').waitFor();
      await ben.hangUp();
      await ann.at('incoming').waitFor({ state: 'detached' });
      await ann.tile('missed');
    }));
  await check('nothing went wrong in the pages', () => assert.deepEqual([...ann.problems, ...ben.problems], []));
} finally {
  await browser.close();
}
process.exit(failed ? 1 : 0);
