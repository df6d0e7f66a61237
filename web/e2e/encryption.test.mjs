// SPDX-License-Identifier: Apache-2.0
// End-to-end encryption with the SDK's Rust crypto: what people see, and what the server gets to see.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { desk } from './desk.mjs';
import { compareEmojis, freshName, introduce, mediaFlows } from './pages.mjs';

const person = desk();

/** What the server keeps of what was said in a room: no state, and no verification, whose messages the SDK sends open (they hold public values only). */
async function said(client, roomId) {
  const events = await client.serverEvents(roomId);
  assert.ok(events.some((e) => e.type === 'm.room.encryption'));
  const verification = (e) => e.type.startsWith('m.key.verification.') || e.content.msgtype === 'm.key.verification.request';
  return events.filter((e) => e.state_key === undefined && !verification(e));
}

it('two people verify each other by emoji, and chat and call encrypted', async () => {
  const [ann, ben] = [await person(), await person()];
  const roomId = await introduce(ann, ben);
  assert.equal(await ann.at('room-lock').getAttribute('data-trust'), 'unverified');
  await ann.askToVerify();
  await ben.at('verification-accept').click();
  await compareEmojis(ann, ben);
  await Promise.all([ann, ben].map((c) => c.page.locator('[data-testid="room-lock"][data-trust="verified"]').waitFor()));

  await ann.send('for your eyes only');
  await ben.sees('for your eyes only');
  await ben.send('read and burned');
  await ann.sees('read and burned');

  await ann.call({ video: true });
  await ben.accept();
  await Promise.all([ann.phase('connected'), ben.phase('connected')]);
  await mediaFlows(ann, ben);
  await ann.hangUp();
  await Promise.all([ann.noCall(), ben.noCall()]);
  await Promise.all([ann.tile('ended'), ben.tile('ended')]);

  const events = await said(ann, roomId);
  assert.deepEqual([...new Set(events.map((e) => e.type))], ['m.room.encrypted']);
  assert.ok(events.length >= 6, `${events.length} events`);
  assert.ok(!JSON.stringify(events).includes('eyes only'));
});

it('a verification whose emojis differ warns both sides and trusts nobody', async () => {
  const [ann, ben] = [await person(), await person()];
  await introduce(ann, ben);
  await ben.askToVerify();
  await ann.at('verification-accept').click();
  await Promise.all([ann.emojis(), ben.emojis()]);
  await ann.at('emojis-differ').click();
  await Promise.all([ann, ben].map((c) => c.at('verification').getByText('not the same').waitFor()));
  await Promise.all([ann, ben].map((c) => c.at('verification-close').click()));
  assert.equal(await ben.at('room-lock').getAttribute('data-trust'), 'unverified');
});

it('a new device reads old messages with the recovery key, and not without', async () => {
  const [ann, ben] = [await person(), await person()];
  const roomId = await introduce(ann, ben);
  await ann.send('before you had this phone');
  await ben.sees('before you had this phone');
  await ben.backedUp();

  const phone = await person();
  await phone.signIn(ben.name);
  await phone.openRoom(roomId);
  await phone.at('message-unreadable').waitFor();
  assert.match(await phone.at('message-unreadable').innerText(), /Confirm this device/);
  await phone.at('encryption-act').click();
  await phone.at('confirm-key').click();
  await phone.at('unlock-key').fill('EsTc 1234');
  await phone.at('confirm-submit').click();
  await phone.at('confirm-error').getByText('not a whole recovery key').waitFor();
  await phone.at('unlock-key').fill(ann.recoveryKey);
  await phone.at('confirm-submit').click();
  await phone.at('confirm-error').getByText('not the current recovery key').waitFor();
  await phone.at('unlock-key').fill(ben.recoveryKey);
  await phone.at('confirm-submit').click();
  await phone.sees('before you had this phone');
  assert.equal(await phone.at('message-unreadable').count(), 0);
  assert.equal(await phone.encryption(), 'ready');

  // The others see it as confirmed, and it goes on after a reload with the keys it stored.
  await ben.at('user-menu').click();
  await ben.at('open-security').click();
  await ben.page.locator('[data-testid="device"][data-state="verified"]').nth(1).waitFor();
  await ben.page.keyboard.press('Escape');
  await phone.page.reload();
  await phone.ready();
  assert.equal(await phone.encryption(), 'ready');
  await phone.sees('before you had this phone');
  await ann.send('and after');
  await Promise.all([phone.sees('and after'), ben.sees('and after')]);
});

it('a new device is confirmed by comparing emojis with an old one, which passes it the old messages', async () => {
  const [ann, ben] = [await person(), await person()];
  const roomId = await introduce(ann, ben);
  await ann.send('an old story');
  await ben.sees('an old story');
  await ben.backedUp();
  const phone = await person();
  await phone.signIn(ben.name, undefined, { unlock: null });
  await phone.at('confirm-other').click();
  await ben.at('verification-accept').click();
  await compareEmojis(phone, ben);
  await phone.page.waitForFunction(() => window.__trunkboard.store.getState().encryption.phase === 'ready');
  await phone.openRoom(roomId);
  await phone.sees('an old story');
});

it('who has lost key and devices starts over, and the others are told', async () => {
  const [ann, ben] = [await person(), await person()];
  await introduce(ann, ben);
  await ann.askToVerify();
  await ben.at('verification-accept').click();
  await compareEmojis(ann, ben);
  const phone = await person();
  await phone.signIn(ben.name, undefined, { unlock: null });
  await phone.at('confirm-over').click();
  await phone.at('over-password').fill('wrong');
  await phone.at('confirm-submit').click();
  await phone.at('confirm-error').getByText('not right').waitFor();
  await phone.at('over-password').fill('correct horse battery staple');
  await phone.at('confirm-submit').click();
  await phone.at('recovery-key').waitFor();
  assert.notEqual((await phone.at('recovery-key').innerText()).replace(/\s+/g, ' ').trim(), ben.recoveryKey);
  await phone.at('recovery-saved').click();
  assert.equal(await phone.encryption(), 'ready');
  await ann.page.locator('[data-testid="room-lock"][data-trust="changed"]').waitFor();
});

it('a picture in an encrypted room lies encrypted on the server', async () => {
  const [ann, ben] = [await person(), await person()];
  await introduce(ann, ben);
  const folder = await mkdtemp(join(tmpdir(), 'trunkboard-picture-'));
  const picture = join(folder, 'square.png');
  await writeFile(picture, await ann.page.screenshot({ clip: { x: 0, y: 0, width: 120, height: 80 } }));
  await ann.at('composer-file').setInputFiles(picture);
  await ben.at('message-image').waitFor();
  await ben.page.waitForFunction(() => document.querySelector('[data-testid="message-image"]').naturalWidth === 120);
  const stored = await ben.page.evaluate(async () => {
    const { client, store } = window.__trunkboard;
    const event = client.getRoom(store.getState().roomId).getLiveTimeline().getEvents().at(-1);
    const { url, file } = event.getContent();
    const { accessToken } = JSON.parse(localStorage.getItem('trunkboard.session'));
    const answer = await fetch(`/_matrix/client/v1/media/download/${file.url.slice(6)}`, { headers: { Authorization: `Bearer ${accessToken}` } });
    return { plain: url, type: answer.headers.get('content-type'), name: answer.headers.get('content-disposition'), start: [...new Uint8Array(await answer.arrayBuffer()).slice(1, 4)] };
  });
  assert.equal(stored.plain, undefined);
  assert.equal(stored.type, 'application/octet-stream');
  assert.doesNotMatch(String(stored.name), /square/);
  assert.notDeepEqual(stored.start, [...Buffer.from('PNG')]);
  await rm(folder, { recursive: true });
});

it('a recovery key that is not saved keeps reminding, and nobody signs out without it', async () => {
  const ann = await person();
  await ann.signUp(freshName('ann'));
  await ann.at('user-menu').click();
  await ann.at('open-security').click();
  await ann.at('recovery-renew').click();
  const key = (await ann.at('recovery-key').innerText()).replace(/\s+/g, ' ').trim();
  assert.notEqual(key, ann.recoveryKey);
  await ann.at('recovery-later').click();
  await ann.at('encryption-banner').waitFor();
  await ann.at('user-menu').click();
  await ann.at('sign-out').click();
  await ann.at('recovery-saved').click();
  await ann.at('encryption-banner').waitFor({ state: 'detached' });
  await ann.page.keyboard.press('Escape');
  const { name } = ann;
  await ann.signOut();
  await ann.signIn(name, undefined, { unlock: key });
  assert.equal(await ann.encryption(), 'ready');
});

it('a second tab does not share the keys: it asks, and takes the session over', async () => {
  const ann = await person();
  await ann.signUp(freshName('ann'));
  const tab = await ann.page.context().newPage();
  await tab.goto(ann.url);
  await tab.getByTestId('elsewhere-take').click();
  await tab.getByTestId('workspace').waitFor();
  await ann.at('elsewhere').waitFor();
});
