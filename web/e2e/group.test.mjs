// SPDX-License-Identifier: Apache-2.0
// Group calls with Element Call, unmodified from npm, against our binary as homeserver and SFU, with three people and end-to-end
// encryption with a key for each.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Caller, elementCall, PATIENCE, SLOW_CAMERA, watchConnections } from './group.mjs';
import { freshName, launch } from './pages.mjs';
import { homeserver } from './server.mjs';

const shots = process.env.TRUNKBOARD_SCREENSHOTS;

for (const mode of (process.env.TRUNKBOARD_RTC_MODES ?? 'compatibility').split(',')) {
  describe(`Element Call, ${mode}`, () => {
    let server;
    let browser;
    let other; // a browser of its own, which can be killed
    let roomId;
    let ann;
    let ben;
    let cem;

    const shot = async (caller, name) => shots && caller.page.screenshot({ path: `${shots}/${mode}-${name}.png` });
    const person = async (from, stem) => {
      const client = await from.person(server.url, { context: { viewport: { width: 1000, height: 700 } } });
      await client.page.context().addInitScript(watchConnections);
      client.page.setDefaultTimeout(PATIENCE);
      if (process.env.VERBOSE) client.page.on('console', (m) => console.log(stem, m.text().slice(0, 400)));
      await client.signUp(freshName(stem));
      return new Caller(client);
    };

    before(async () => {
      server = await homeserver({}, elementCall(mode));
      [browser, other] = await Promise.all([launch({ flags: [SLOW_CAMERA] }), launch({ flags: [SLOW_CAMERA] })]);
      ann = await person(browser, 'ann');
      ben = await person(browser, 'ben');
      cem = await person(other, 'cem');
      roomId = await ann.page.evaluate(async (invite) => {
        const { client } = window.__trunkboard;
        const { room_id: id } = await client.createRoom({
          preset: 'private_chat',
          name: 'Planning',
          invite,
          initial_state: [{ type: 'm.room.encryption', state_key: '', content: { algorithm: 'm.megolm.v1.aes-sha2' } }],
        });
        return id;
      }, [await ben.client.userId(), await cem.client.userId()]);
      await ben.client.acceptInvite(roomId);
      await cem.client.acceptInvite(roomId);
      await ann.client.openRoom(roomId);
    });
    after(async () => {
      if (server && process.env.VERBOSE) console.log(server.log());
      await Promise.all([browser?.close(), other?.close().catch(() => {})]);
      await server?.close();
    });

    it('three people see and hear each other, encrypted', async () => {
      await ann.join();
      await shot(ann, 'alone');
      await ben.page.locator('[data-testid="group-open"][data-people="1"]').waitFor();
      await shot(ben, 'join');
      await ben.join();
      await cem.join();
      await Promise.all([ann.tiles(3), ben.tiles(3), cem.tiles(3)]);
      await Promise.all([ann.sees(2), ben.sees(2), cem.sees(2)]);
      await shot(ann, 'three');
      await shot(cem, 'three-cem');
    });
  });
}
