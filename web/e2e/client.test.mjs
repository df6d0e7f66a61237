// SPDX-License-Identifier: Apache-2.0
// The web client against the real server, with two people in two browser windows.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { writeFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { desk } from './desk.mjs';
import { freshName, introduce, mediaFlows } from './pages.mjs';

const person = desk();

describe('accounts', () => {
  it('a session lives over a reload, and ends with sign-out', async () => {
    const ann = await person();
    const name = freshName('ann');
    await ann.signUp(name);
    await ann.at('empty-state').waitFor();
    await ann.page.reload();
    await ann.ready();
    await ann.signOut();
    await ann.page.reload();
    await ann.at('auth-submit').waitFor();
    await ann.signIn(name);
    assert.match(await ann.userId(), new RegExp(`^@${name}:`));
  });

  it('a session whose access token has ended goes on with a new one', async () => {
    const ann = await person();
    await ann.signUp(freshName('ann'));
    const stored = () => ann.page.evaluate(() => JSON.parse(localStorage.getItem('trunkboard.session')));
    const first = await stored();
    assert.ok(first.refreshToken, 'the server gives refresh tokens');
    // Once it ends soon, by the clock; once the server no longer knows it.
    await ann.page.evaluate((s) => localStorage.setItem('trunkboard.session', JSON.stringify({ ...s, expiresAt: Date.now() + 1000 })), first);
    await ann.page.reload();
    await ann.ready();
    const second = await stored();
    assert.notEqual(second.accessToken, first.accessToken);
    await ann.page.evaluate((s) => localStorage.setItem('trunkboard.session', JSON.stringify({ ...s, accessToken: 'gone' })), second);
    await ann.page.reload();
    await ann.ready();
    const third = await stored();
    assert.notEqual(third.accessToken, second.accessToken);
    assert.equal(third.deviceId, first.deviceId);
  });

  it('a session that was ended elsewhere asks to sign in again', async () => {
    const ann = await person();
    await ann.signUp(freshName('ann'));
    await ann.page.evaluate(async () => {
      const { accessToken } = JSON.parse(localStorage.getItem('trunkboard.session'));
      await fetch('/_matrix/client/v3/logout', { method: 'POST', headers: { Authorization: `Bearer ${accessToken}` } });
    });
    await ann.page.getByText('signed out by the server').waitFor();
    assert.equal(await ann.page.evaluate(() => localStorage.getItem('trunkboard.session')), null);
  });

  it('a wrong password and a taken name are explained', async () => {
    const ann = await person();
    const name = freshName('ann');
    await ann.signUp(name);
    await ann.signOut();
    await ann.fillIn(name, 'not the password');
    assert.match(await ann.at('auth-error').innerText(), /not right/);
    await ann.at('auth-tab-signup').click();
    await ann.fillIn(name, 'correct horse battery staple');
    await ann.at('auth-error').getByText('taken').waitFor();
  });

  it('nobody is invited by a name that nobody has', async () => {
    const ann = await person();
    await ann.signUp(freshName('ann'));
    await ann.at('new-chat').click();
    await ann.at('new-chat-input').fill(freshName('nobody'));
    await ann.at('new-chat-submit').click();
    await ann.at('new-chat-dialog').getByText('nobody called').waitFor();
    assert.equal(await ann.at('room-item').count(), 0);
  });
});

describe('chat', () => {
  it('messages, typing, read marks and deletion reach the other side', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    await ann.send('hello <b>ben</b> https://example.org/');
    await ben.sees('hello <b>ben</b>');
    assert.equal(await ben.at('message').getByRole('link').getAttribute('href'), 'https://example.org/');
    await ben.at('composer').pressSequentially('thinking');
    await ann.at('typing').getByText('is typing').waitFor();
    await ben.at('composer').press('Enter');
    await ann.sees('thinking');
    await ann.at('typing').getByText('is typing').waitFor({ state: 'detached' });
    // Pages in one browser take turns having the focus, which read marks need.
    await ben.page.bringToFront();
    await ann.at('readers').last().waitFor();
    await ann.page.locator('[data-testid="message"]', { hasText: 'hello' }).hover();
    await ann.page.locator('[data-testid="message"]', { hasText: 'hello' }).getByTestId('message-delete').click();
    await ben.at('message').getByText('Message deleted').waitFor();
  });

  it('people see the name and the presence of each other', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    await ben.at('user-menu').click();
    await ben.at('open-name').click();
    await ben.at('name-input').fill('Ben Okafor');
    await ben.at('name-submit').click();
    await ben.at('user-menu').getByText('Ben Okafor').waitFor();
    await ann.at('room-title').getByText('Ben Okafor').waitFor();
    await ann.page.locator('[data-testid="room-item"][data-presence="online"]').waitFor();
  });

  it('unread messages are counted until they are looked at', async () => {
    const [ann, ben] = [await person(), await person()];
    const roomId = await introduce(ann, ben);
    await ben.page.evaluate(() => (location.hash = '#/'));
    await ben.at('empty-state').waitFor();
    await ann.send('one');
    await ann.send('two');
    const row = ben.page.locator(`[data-testid="room-item"][data-room-id="${roomId}"]`);
    await row.and(ben.page.locator('[data-unread="2"]')).waitFor();
    await row.getByText('two').waitFor();
    await ben.page.bringToFront();
    await ben.openRoom(roomId);
    await row.and(ben.page.locator('[data-unread="0"]')).waitFor();
  });

  it('a message written without a connection is sent when it is back', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    // The first message of all would wait for the keys of the other side instead of failing.
    await ann.send('still above ground');
    await ben.sees('still above ground');
    await ann.page.context().setOffline(true);
    await ann.page.getByText('No connection to the server').waitFor();
    await ann.send('from the tunnel');
    await ann.page.locator('[data-testid="message"][data-state="failed"]').waitFor();
    // A telephone shows it over the list too.
    const wide = ann.page.viewportSize();
    await ann.page.setViewportSize({ width: 390, height: 844 });
    await ann.at('back').click();
    await ann.at('room-item').waitFor();
    assert.ok(await ann.at('offline').isVisible());
    await ann.page.setViewportSize(wide);
    await ann.at('room-item').click();
    await ann.page.context().setOffline(false);
    await ben.sees('from the tunnel');
    await ann.sees('from the tunnel');
    await ann.page.getByText('No connection to the server').waitFor({ state: 'detached' });
  });

  it('a picture is uploaded, shown and opened', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    const folder = await mkdtemp(join(tmpdir(), 'trunkboard-picture-'));
    const picture = join(folder, 'square.png');
    await writeFile(picture, await ann.page.screenshot({ clip: { x: 0, y: 0, width: 120, height: 80 } }));
    await ann.at('composer-file').setInputFiles(picture);
    const image = ben.at('message-image');
    await image.waitFor();
    await ben.page.waitForFunction(() => document.querySelector('[data-testid="message-image"]').naturalWidth > 0);
    await image.click();
    await ben.page.getByRole('dialog', { name: 'square.png' }).waitFor();
    await rm(folder, { recursive: true });
  });

  it('older messages come when the reader scrolls up', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    const roomId = await ann.roomId();
    await ann.page.evaluate(async (id) => {
      const { client } = window.__trunkboard;
      for (let i = 1; i <= 120; i++) await client.sendMessage(id, { msgtype: 'm.text', body: `line ${i}.` });
    }, roomId);
    await ben.sees('line 120.');
    // The history goes, the keys that read it stay.
    await ben.page.evaluate(() => indexedDB.databases().then((all) => Promise.all(all.filter((d) => !d.name.includes('crypto')).map((d) => indexedDB.deleteDatabase(d.name)))));
    await ben.page.reload();
    await ben.ready();
    await ben.sees('line 120.');
    for (let i = 0; i < 40 && !(await ben.page.getByText('line 1.', { exact: true }).count()); i++) {
      await ben.at('timeline').evaluate((el) => (el.scrollTop = 0));
      await ben.page.waitForTimeout(100);
    }
    await ben.page.getByText('line 1.', { exact: true }).waitFor();
    const order = await ben.at('message').allInnerTexts();
    const lines = order.map((t) => Number(/line (\d+)\./.exec(t)?.[1])).filter(Boolean);
    assert.deepEqual(lines, [...lines].sort((a, b) => a - b));
    assert.equal(new Set(lines).size, 120);
  });

  it('rooms are made, invitations declined, rooms left', async () => {
    const [ann, ben] = [await person(), await person()];
    await ben.signUp(freshName('ben'));
    await ann.signUp(freshName('ann'));
    await ann.at('new-room').click();
    await ann.at('new-room-name').fill('Design team');
    await ann.at('new-room-invite').fill(ben.name);
    await ann.at('new-room-submit').click();
    await ann.at('room-title').getByText('Design team').waitFor();
    await ben.at('invite').getByText('Design team').waitFor();
    await ben.at('invite-decline').click();
    await ben.at('invite').waitFor({ state: 'detached' });
    await ann.page.getByText('declined the invitation').first().waitFor();
    await ann.at('room-menu').click();
    await ann.at('leave').click();
    await ann.at('room-item').waitFor({ state: 'detached' });
  });
});

describe('a room without encryption', () => {
  it('has no lock, and the server keeps its words as they are', async () => {
    const [ann, ben] = [await person(), await person()];
    await ben.signUp(freshName('ben'));
    await ann.signUp(freshName('ann'));
    await ann.at('new-room').click();
    await ann.at('new-room-name').fill('Town square');
    await ann.at('new-room-invite').fill(ben.name);
    await ann.at('new-room-encrypted').uncheck();
    await ann.at('new-room-submit').click();
    await ann.at('room-title').getByText('Town square').waitFor();
    const roomId = await ann.roomId();
    await ben.acceptInvite(roomId);
    await ann.send('hear ye');
    await ben.sees('hear ye');
    assert.equal(await ann.at('room-lock').count(), 0);
    const events = await ann.serverEvents(roomId);
    assert.ok(events.some((e) => e.type === 'm.room.message' && e.content.body === 'hear ye'));
    assert.ok(!events.some((e) => e.type === 'm.room.encryption' || e.type === 'm.room.encrypted'));
  });
});

describe('calls', () => {
  it('a video call carries sound and pictures both ways, with all its controls', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    await ann.call({ video: true });
    await ben.accept();
    await Promise.all([ann.phase('connected'), ben.phase('connected')]);
    await mediaFlows(ann, ben);
    const pair = await ann.selectedPair();
    assert.ok(pair.local && pair.remote && pair.protocol, JSON.stringify(pair));
    await ann.page.locator('[data-testid="call-quality"][data-route]').waitFor();

    await ben.at('call-mute').click();
    await ann.page.getByText('is muted').waitFor();
    await ben.at('call-mute').click();
    await ann.page.getByText('is muted').waitFor({ state: 'detached' });

    await ben.at('call-camera').click();
    await ann.at('call-status').waitFor();
    await ben.at('call-camera').click();
    await ann.at('call-status').waitFor({ state: 'detached' });
    await ann.hears();

    await ann.at('call-share').click();
    await ben.at('call-remote-screen').waitFor();
    await ben.page.waitForFunction(() => document.querySelector('[data-testid="call-remote-screen"]').videoWidth > 0);
    await ann.at('call-share').click();
    await ben.at('call-remote-screen').waitFor({ state: 'detached' });

    await ann.at('call-minimise').click();
    await ann.send('while we talk');
    await ben.at('call-minimise').click();
    await ben.sees('while we talk');
    await ann.at('call-restore').click();

    await ann.hangUp();
    await Promise.all([ann.noCall(), ben.noCall()]);
    await Promise.all([ann.tile('ended'), ben.tile('ended')]);
  });

  it('a voice call can get a camera on both sides', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    await ben.call({ video: false });
    await ann.accept();
    await Promise.all([ann.phase('connected'), ben.phase('connected')]);
    await mediaFlows(ann, ben, { video: false });
    await ann.at('call-camera').click();
    await ben.hears();
    await ben.at('call-camera').click();
    await mediaFlows(ann, ben);
    await ben.hangUp();
    await ann.tile('ended');
  });

  it('a video call can be answered with the voice only', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    await ann.call({ video: true });
    await ben.accept({ video: false });
    await Promise.all([ann.phase('connected'), ben.phase('connected')]);
    await ben.hears();
    await ann.hears({ video: false });
    await ann.hangUp();
  });

  it('a declined call says so on both sides', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    await ann.call({ video: true });
    await ben.decline();
    await ann.phase('ended');
    await ann.at('call-status').getByText('declined').waitFor();
    await Promise.all([ann.tile('declined'), ben.tile('declined')]);
  });

  it('a call that the caller gives up is missed, and can be returned from its tile', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    await ann.call({ video: false });
    await ben.at('incoming').waitFor();
    await ann.hangUp();
    await ben.at('incoming').waitFor({ state: 'detached' });
    await ben.tile('missed');
    await ann.tile('cancelled');
    await ben.at('call-back').click();
    await ann.accept();
    await Promise.all([ann.phase('connected'), ben.phase('connected')]);
    await ann.hangUp();
  });

  it('are listed, from encrypted and from open rooms, the missed ones apart, and returned from the list', async () => {
    const [ann, ben] = [await person(), await person({ context: { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true } })];
    await introduce(ann, ben);
    await ann.call({ video: false });
    await ben.at('incoming').waitFor();
    await ann.hangUp();
    await ben.tile('missed');
    await ann.at('new-room').click();
    await ann.at('new-room-name').fill('Town square');
    await ann.at('new-room-invite').fill(ben.name);
    await ann.at('new-room-encrypted').uncheck();
    await ann.at('new-room-submit').click();
    await ann.at('room-title').getByText('Town square').waitFor();
    const open = await ann.roomId();
    await ben.at('back').tap();
    await ben.acceptInvite(open);
    await ann.call({ video: true });
    await ben.accept({ video: false });
    await Promise.all([ann.phase('connected'), ben.phase('connected')]);
    await ann.hangUp();
    await Promise.all([ann.noCall(), ben.noCall()]);

    await ben.at('back').tap();
    await ben.at('open-calls').tap();
    const rows = (outcome) => ben.page.locator(`[data-testid="calls-row"][data-outcome="${outcome}"]`);
    await Promise.all([rows('ended').waitFor(), rows('missed').waitFor()]);
    assert.deepEqual(await ben.at('calls-row').evaluateAll((all) => all.map((r) => r.dataset.outcome)), ['ended', 'missed'], 'newest first');
    assert.equal(await ben.page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth), false, 'nothing is wider than the screen');
    // One of them only this device can know.
    const recorded = await ben.page.evaluate(async () => {
      const { accessToken } = JSON.parse(localStorage.getItem('trunkboard.session'));
      return (await (await fetch('/_trunkboard/client/v1/calls', { headers: { Authorization: `Bearer ${accessToken}` } })).json()).calls.length;
    });
    assert.equal(recorded, 1);
    await ben.page.reload();
    await ben.ready();
    await rows('missed').waitFor();
    if (process.env.TRUNKBOARD_SCREENSHOTS) await ben.page.screenshot({ path: join(process.env.TRUNKBOARD_SCREENSHOTS, 'calls-phone.png') });
    await ben.at('calls-missed').tap();
    await rows('ended').waitFor({ state: 'detached' });
    await rows('missed').getByTestId('calls-back').tap();
    await ann.at('incoming').waitFor();
    await ann.decline();
    await ben.phase('ended');

    // The keyboard does it, too.
    await ann.at('open-calls').focus();
    await ann.page.keyboard.press('Enter');
    await ann.page.locator('[data-testid="calls-row"][data-outcome="declined"]').waitFor();
    if (process.env.TRUNKBOARD_SCREENSHOTS) await ann.page.screenshot({ path: join(process.env.TRUNKBOARD_SCREENSHOTS, 'calls.png') });
    const focus = () => ann.page.evaluate(() => document.activeElement?.getAttribute('data-testid'));
    await ann.at('calls-missed').focus();
    for (let i = 0; i < 6 && (await focus()) !== 'calls-back'; i++) await ann.page.keyboard.press('Tab');
    await ben.noCall();
    await ann.page.keyboard.press('Enter');
    await ben.at('incoming').waitFor();
    await ben.decline();
  });

  it('two who ring each other at once end in one call', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    await Promise.all([ann.at('call-video').click(), ben.at('call-video').click()]);
    await Promise.all([ann.phase('ringing', 'connecting', 'connected'), ben.phase('ringing', 'connecting', 'connected')]);
    // Glare ends by itself; when one invite arrived before the other was sent, it is an ordinary incoming call.
    const settle = async (client) => {
      await client.page.locator('[data-testid="incoming"], [data-testid="call-screen"][data-phase="connected"]').first().waitFor();
      if (await client.at('incoming').count()) await client.accept();
    };
    await Promise.all([settle(ann), settle(ben)]);
    await Promise.all([ann.phase('connected'), ben.phase('connected')]);
    const ids = await Promise.all([ann, ben].map((c) => c.at('call-screen').getAttribute('data-call-id')));
    assert.equal(ids[0], ids[1]);
    await mediaFlows(ann, ben);
    await ann.hangUp();
    await ben.noCall();
  });

  it('a closed window ends the call for the other side', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    await ann.call({ video: false });
    await ben.accept();
    await Promise.all([ann.phase('connected'), ben.phase('connected')]);
    await ann.page.goto('about:blank');
    await ben.noCall();
    await ben.tile('ended');
  });
});

describe('without devices', () => {
  it('a refused microphone is explained and nobody is rung', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    await ann.page.evaluate(() => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('Permission denied', 'NotAllowedError'));
    });
    await ann.at('call-video').click();
    await ann.at('toast').getByText('does not let this page use').waitFor();
    assert.equal(await ann.at('call-screen').count(), 0);
    await ann.send('no microphone here');
    await ben.sees('no microphone here');
    assert.equal(await ben.at('call-tile').count(), 0);
  });

  it('a call without a camera goes on with sound, and says so', async () => {
    const [ann, ben] = [await person(), await person()];
    await introduce(ann, ben);
    await ann.page.evaluate(() => {
      const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = (wish) => (wish.video ? Promise.reject(new DOMException('none', 'NotFoundError')) : real(wish));
    });
    await ann.call({ video: true });
    await ann.page.getByText('No usable camera').waitFor();
    await ben.accept();
    await Promise.all([ann.phase('connected'), ben.phase('connected')]);
    await mediaFlows(ann, ben, { video: false });
    await ben.hangUp();
  });
});
