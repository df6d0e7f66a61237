// SPDX-License-Identifier: Apache-2.0
// How smooth a meeting's page stays with 25 pictures on it: `node web/e2e/tiles.mjs`. 24 people send from one page that receives
// nothing; the 25th looks at them, and its page counts its own frames. Fails below 30 a second.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { it } from 'node:test';
import { Guest, MEET_FLAGS } from './meet.mjs';
import { launch } from './pages.mjs';
import { homeserver } from './server.mjs';

const require = createRequire(new URL('../app/package.json', import.meta.url));
const CLIENT = readFileSync(require.resolve('livekit-client').replace(/[^/]+$/, 'livekit-client.umd.js'), 'utf8');
const OTHERS = 24;
const SECONDS = 10;

it('25 tiles leave the page at 30 updates a second or more', { timeout: 240_000 }, async () => {
  const server = await homeserver();
  const browser = await launch({ flags: MEET_FLAGS });
  try {
    const viewer = await Guest.come(browser, server.url, 'Ann', { context: { locale: 'en-GB' } });
    await viewer.join('/meet/Big');

    const crowd = await browser.person(server.url, { context: { bypassCSP: true } });
    await crowd.page.goto(`${server.url}/doctor`);
    await crowd.page.addScriptTag({ content: CLIENT });
    await crowd.page.evaluate(async (count) => {
      const { Room, Track } = window.LivekitClient;
      const canvas = document.createElement('canvas');
      [canvas.width, canvas.height] = [320, 180];
      const paint = canvas.getContext('2d');
      let n = 0;
      setInterval(() => {
        paint.fillStyle = `hsl(${(n += 7) % 360} 60% 40%)`;
        paint.fillRect(0, 0, 320, 180);
        paint.fillStyle = '#fff';
        paint.fillRect((n * 3) % 300, 80, 20, 20);
      }, 66);
      const [track] = canvas.captureStream(15).getVideoTracks();
      window.rooms = [];
      for (let i = 0; i < count; i++) {
        const response = await fetch('/_trunkboard/meet/v1/Big/join', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ display_name: `Guest ${i + 1}` }) });
        const entry = await response.json();
        if (!response.ok) throw new Error(JSON.stringify(entry));
        const room = new Room();
        window.rooms.push(room);
        await room.connect(entry.media.url, entry.media.token, { autoSubscribe: false });
        await room.localParticipant.publishTrack(track.clone(), { source: Track.Source.Camera, simulcast: false, videoEncoding: { maxBitrate: 150_000, maxFramerate: 15 } });
      }
    }, OTHERS);

    await viewer.page.waitForFunction((count) => document.querySelectorAll('[data-testid="tile"][data-video="true"]').length === count, OTHERS + 1);
    const measured = await viewer.page.evaluate(
      (seconds) =>
        new Promise((resolve) => {
          const times = [];
          const tick = (now) => {
            times.push(now);
            if (now - times[0] < seconds * 1000) requestAnimationFrame(tick);
            else resolve({ rate: (times.length - 1) / ((now - times[0]) / 1000), longest: Math.max(...times.slice(1).map((t, i) => t - times[i])) });
          };
          requestAnimationFrame(tick);
        }),
      SECONDS,
    );
    const playing = await viewer.page.evaluate(async () => {
      const frames = () => [...document.querySelectorAll('[data-testid="tile"] video')].map((v) => v.getVideoPlaybackQuality().totalVideoFrames);
      const before = frames();
      await new Promise((resolve) => setTimeout(resolve, 3000));
      return frames().filter((n, i) => n > before[i]).length;
    });
    if (process.env.TRUNKBOARD_SCREENSHOTS) await viewer.page.screenshot({ path: `${process.env.TRUNKBOARD_SCREENSHOTS}/meet-25.png` });
    console.log(`25 tiles, ${playing} of them moving: ${measured.rate.toFixed(1)} updates a second over ${SECONDS} s, longest gap ${measured.longest.toFixed(0)} ms`);
    assert.equal(playing, OTHERS + 1);
    assert.ok(measured.rate >= 30, `${measured.rate}`);
  } finally {
    await browser.close();
    await server.close();
  }
});
