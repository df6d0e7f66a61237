// SPDX-License-Identifier: Apache-2.0
// Pictures of a meeting that are not just the camera's: faces that people chose, the small window over all others, a blurred background.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { join } from 'node:path';
import { freshName, launch } from './pages.mjs';
import { Guest, MEET_FLAGS, PATIENCE } from './meet.mjs';
import { homeserver } from './server.mjs';

let server;
let browser;
const problems = [];

before(async () => {
  server = await homeserver();
  browser = await launch({ flags: [...MEET_FLAGS, '--enable-unsafe-swiftshader'] });
});
after(async () => {
  await browser?.close();
  await server?.close();
});

async function guest(name, options) {
  const one = await Guest.come(browser, server.url, name, { context: { locale: 'en-GB' }, ...options });
  problems.push(one.client.problems);
  return one;
}

async function shot({ page }, name) {
  if (process.env.TRUNKBOARD_SCREENSHOTS) await page.screenshot({ path: join(process.env.TRUNKBOARD_SCREENSHOTS, `pictures-${name}.png`) });
}

/** How much neighbouring pixels of a person's moving picture differ, 0 to 255, and a number for the picture itself. */
function lookAt(name) {
  const video = document.querySelector(`[data-testid="tile"][data-name="${name}"] video`);
  const canvas = new OffscreenCanvas(160, 90);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(video, 0, 0, 160, 90);
  const { data } = context.getImageData(0, 0, 160, 90);
  let edges = 0;
  let sum = 0;
  for (let i = 1; i < data.length; i += 4) {
    sum = (sum * 31 + data[i]) >>> 0;
    if (i % 640 > 4) edges += Math.abs(data[i] - data[i - 4]);
  }
  return { edges: edges / (160 * 90), picture: sum };
}

describe('pictures in a meeting', { concurrency: false }, () => {
  it('the face that a person chose is shown to all while the camera is off', async () => {
    const [ann, ben] = [await guest('Ann'), await guest('Ben')];
    await ann.client.signUp(freshName('ann'));
    await ann.page.evaluate(async () => {
      const { accessToken, userId } = JSON.parse(localStorage.getItem('trunkboard.session'));
      const canvas = new OffscreenCanvas(900, 700);
      const context = canvas.getContext('2d');
      context.fillStyle = '#c2185b';
      context.fillRect(0, 0, 900, 700);
      const headers = { Authorization: `Bearer ${accessToken}` };
      const body = await canvas.convertToBlob({ type: 'image/png' });
      const { content_uri: uri } = await (await fetch('/_matrix/media/v3/upload', { method: 'POST', headers: { ...headers, 'Content-Type': 'image/png' }, body })).json();
      const answer = await fetch(`/_matrix/client/v3/profile/${encodeURIComponent(userId)}/avatar_url`, { method: 'PUT', headers, body: JSON.stringify({ avatar_url: uri }) });
      if (!answer.ok) throw new Error(await answer.text());
    });
    await ann.open('/faces');
    await ann.at('meet-name').fill('Ann');
    await ann.at('prejoin-camera').click();
    await ann.at('meet-join').click();
    await ann.inside();
    await ben.join('/faces');
    for (const one of [ann, ben]) {
      const face = one.tile('Ann').getByTestId('face');
      await face.waitFor();
      await one.page.waitForFunction(() => document.querySelector('[data-testid="tile"][data-name="Ann"] [data-testid="face"]')?.naturalWidth > 0);
      assert.match(await face.getAttribute('src'), /^blob:/);
      // A thumbnail, not the whole of what was uploaded.
      assert.ok((await face.evaluate((img) => img.naturalWidth)) < 400);
    }
    assert.equal(await ann.tile('Ben').getByTestId('face').count(), 0);
    await ben.people();
    await ben.page.locator('[data-testid="meet-person"][data-name="Ann"]').getByTestId('face').waitFor();
    await shot(ben, 'faces');
    await Promise.all([ann, ben].map((g) => g.page.context().close()));
  });

  it('the small window over all others shows the meeting, mutes, and gives it back', async () => {
    const [ann, ben] = [await guest('Ann'), await guest('Ben')];
    await ann.join('/small');
    await ben.join('/small');
    await ann.sees('Ben');
    const [small] = await Promise.all([ann.page.context().waitForEvent('page'), ann.more('bar-pip')]);
    await small.locator('.meet-small [data-testid="tile"][data-name="Ben"][data-video="true"]').waitFor();
    await shot({ page: small }, 'small');
    // Styles come from a sheet of the page: without them nothing would have its place.
    assert.equal(await small.locator('.meet-small').evaluate((e) => getComputedStyle(e).display !== 'block' || getComputedStyle(e).position !== 'static'), true);
    await small.getByRole('button', { name: 'Mute microphone', exact: true }).click();
    await ben.says('Ann', 'muted', true);
    await small.getByRole('button', { name: 'Unmute microphone' }).click();
    await ben.says('Ann', 'muted', false);
    await Promise.all([small.waitForEvent('close'), small.getByRole('button', { name: 'Back into the page' }).click()]);
    await ann.sees('Ben');
    await Promise.all([ann, ben].map((g) => g.page.context().close()));
  });

  it('a blurred background is blurred for the others too, moves, and gets sharp again', async () => {
    const [ann, ben] = [await guest('Ann'), await guest('Ben')];
    await ann.join('/blur');
    await ben.join('/blur');
    await Promise.all([ann.sees('Ben'), ben.sees('Ann')]);
    const sharp = (await ben.page.evaluate(lookAt, 'Ann')).edges;
    assert.ok(sharp > 2, `the fake camera's picture has edges: ${sharp}`);
    await ann.more('bar-blur');
    await ann.page.waitForFunction(() => window.__meeting.snapshot.blur === 'on');
    // The page's policy lets no text become code, so what is looked for is decided here.
    const until = async (what, wanted) => {
      for (const end = Date.now() + PATIENCE; ; ) {
        const seen = await ben.page.evaluate(lookAt, 'Ann');
        if (wanted(seen)) return seen;
        assert.ok(Date.now() < end, `never ${what}: ${JSON.stringify(seen)}, sharp is ${sharp}`);
        await ben.page.waitForTimeout(200);
      }
    };
    const { picture } = await until('blurred', (seen) => seen.edges < 0.6 * sharp);
    await shot(ben, 'blur');
    await until('moving', (seen) => seen.picture !== picture && seen.edges < 0.6 * sharp);
    await ann.more('bar-blur');
    await ann.page.waitForFunction(() => window.__meeting.snapshot.blur === 'off');
    await until('sharp again', (seen) => seen.edges > 0.85 * sharp);
    await Promise.all([ann, ben].map((g) => g.page.context().close()));
  });

  it('no page had an error, and no policy was broken', () => {
    assert.deepEqual(problems.flat(), []);
  });
});
