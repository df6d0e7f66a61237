// SPDX-License-Identifier: Apache-2.0
// Calls of rooms of more than two, out of the box: without Element Call, on our own meeting page.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { caller, gather } from './group.mjs';
import { Guest, MEET_FLAGS } from './meet.mjs';
import { freshName, launch } from './pages.mjs';
import { homeserver } from './server.mjs';

const shots = process.env.TRUNKBOARD_SCREENSHOTS;
const PHONE = { width: 390, height: 760 };
const DESK = { width: 1000, height: 700 };

describe('the call of a room', () => {
  let server;
  let browser;
  let roomId;
  let [ann, ben, cem] = [];

  const shot = async ({ page }, name) => shots && page.screenshot({ path: `${shots}/room-call-${name}.png` });
  const person = async (stem) => {
    const who = await caller(browser, server.url, stem);
    await who.page.addInitScript(() => location.protocol.startsWith('http') && localStorage.setItem('trunkboard.meet.small', '1'));
    await who.client.signUp(freshName(stem));
    return who;
  };
  const inside = (who) => who.frame.locator('[data-testid="meet"][data-phase="in"]').waitFor();
  /** Waits until moving pictures of these people are in the call that somebody is in. */
  const sees = async (who, ...names) => {
    for (const name of names) await who.frame.locator(`[data-testid="tile"][data-name="${name}"][data-video="true"]`).first().waitFor();
  };
  const card = (who, state = '') => who.page.locator(`[data-testid="room-call"]${state}`);
  const gone = (who) => who.page.getByTestId('group-call').waitFor({ state: 'detached' });

  before(async () => {
    server = await homeserver();
    browser = await launch({ flags: MEET_FLAGS });
    [ann, ben, cem] = await Promise.all(['ann', 'ben', 'cem'].map(person));
    roomId = await gather([ann, ben, cem]);
  });
  after(async () => {
    if (server && process.env.VERBOSE) console.log(server.log());
    const problems = [ann, ben, cem].flatMap((who) => who?.client.problems ?? []);
    await browser?.close();
    await server?.close();
    assert.deepEqual(problems, []);
  });

  it('whoever begins it is in at once, under the own name, and the room is told', async () => {
    await shot(ann, 'header');
    await ann.page.getByTestId('room-call-video').and(ann.page.locator(':enabled')).click();
    await inside(ann);
    await sees(ann, ann.client.name);
    await ann.at('meet-encrypted').waitFor();
    assert.equal(await ann.at('meet-title').innerText(), 'Planning');
    await card(ben, '[data-people="1"]').waitFor();
    await ben.page.locator(`[data-testid="room-item"][data-room-id="${roomId}"]`).getByText('Video call').waitFor();
    await shot(ann, 'alone');
    await shot(ben, 'card');
    assert.deepEqual(await new Guest(ben.client).violations(), []);
    // The key is for those who can read the room, and the room of the meeting is nobody's to talk in.
    const told = await ann.client.serverEvents(roomId);
    assert.ok(told.some((e) => e.type === 'm.room.encrypted') && !JSON.stringify(told).includes('key='), 'the message goes encrypted');
    assert.equal(await ann.page.getByTestId('room-item').count(), 1);
  });

  it('a member joins from the card by keyboard alone, and all see each other', async () => {
    await card(ben).getByTestId('room-call-enter').press('Enter');
    await ben.at('prejoin').waitFor();
    await ben.at('meet-preview').waitFor();
    await shot(ben, 'prejoin');
    assert.equal(await ben.at('meet-name').count(), 0, 'nobody is asked for a name');
    await ben.at('meet-join').and(ben.frame.locator(':focus')).press('Enter');
    await inside(ben);
    await Promise.all([sees(ben, ann.client.name, ben.client.name), sees(ann, ben.client.name)]);
  });

  it('a call button joins the call that runs, on a telephone too', async () => {
    await cem.page.setViewportSize(PHONE);
    const join = cem.page.locator('[data-testid="room-call-join"][data-people="2"]');
    await join.waitFor();
    assert.equal(await cem.page.getByTestId('room-call-video').count(), 0);
    await shot(cem, 'phone-card');
    await join.click();
    await cem.at('meet-preview').waitFor();
    await shot(cem, 'phone-prejoin');
    await cem.at('meet-join').click();
    await inside(cem);
    await Promise.all([sees(cem, ann.client.name, ben.client.name), sees(ann, cem.client.name), card(ben, '[data-people="3"]').waitFor({ state: 'attached' })]);
    await shot(cem, 'phone');
    await shot(ann, 'three');
    assert.equal(await card(ann).count(), 1, 'there is one call');
  });

  it('one reads and writes beside it', async () => {
    await ben.page.getByTestId('group-minimise').click();
    await ben.client.send('I am reading along');
    await ben.client.sees('I am reading along');
    await sees(ben, ann.client.name);
    assert.deepEqual(await new Guest(ben.client).violations(), []);
    await shot(ben, 'small');
    await ben.at('meet-small').waitFor();
    await ben.page.getByTestId('group-return').click();
    await ben.page.locator('[data-testid="group-call"]:not(.is-small)').waitFor();
  });

  it('whoever has only the link comes as a guest', async () => {
    await ann.page.getByTestId('group-minimise').click();
    const link = await ann.page.evaluate((id) => {
      const said = window.__trunkboard.client.getRoom(id).getLiveTimeline().getEvents().map((e) => e.getContent());
      const content = said.find((c) => c['io.trunkboard.call']);
      return content.msgtype === 'm.text' && content.body.includes(content['io.trunkboard.call'].url) && content['io.trunkboard.call'].url;
    }, roomId);
    assert.match(link, /^http:\/\/localhost:\d+\/meet\/[a-z2-7]{26}#key=[\w-]{43}$/);
    const gus = await Guest.come(browser, server.url, 'Gus');
    await gus.join(new URL(link).pathname + new URL(link).hash);
    await gus.sees(ann.client.name);
    await sees(cem, 'Gus');
    await shot(gus, 'guest');
    await gus.client.close();
  });

  it('it ends with the last one, and the next one is another', async () => {
    await ann.page.getByTestId('group-leave').click();
    await gone(ann);
    await card(ann, '[data-state="on"]').waitFor();
    await ben.at('bar-leave').click();
    await cem.at('bar-leave').click();
    await Promise.all([gone(ben), gone(cem)]);
    await Promise.all([ann, ben, cem].map((who) => card(who, '[data-state="over"]').waitFor()));
    await shot(ben, 'over');
    // Ann does not look at the room when the next one begins.
    await ann.page.evaluate(() => (location.hash = '#/'));
    await ann.client.at('empty-state').waitFor();
    await cem.page.setViewportSize(DESK);
    await cem.page.getByTestId('room-call-voice').and(cem.page.locator(':enabled')).click();
    // At once: it does not stay for ever.
    await ann.page.getByTestId('toast').filter({ hasText: `${cem.client.name} started a voice call in Planning.` }).getByTestId('toast-action').click();
    await ann.at('prejoin').waitFor();
    await ann.page.getByTestId('group-leave').click();
    await gone(ann);
    await inside(cem);
    await card(ben, '[data-state="on"][data-people="1"]').waitFor();
    assert.equal(await card(ben).count(), 2);
    assert.equal(await cem.frame.locator('[data-testid="tile"][data-video="true"]').count(), 0, 'a voice call begins without a picture');
    await cem.page.getByTestId('group-minimise').click();
    await cem.page.getByTestId('group-leave').click();
    await gone(cem);
  });
});
