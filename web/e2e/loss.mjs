// SPDX-License-Identifier: Apache-2.0
// Usage: node loss.mjs [SECONDS]
// Two people in Element Call, in browsers, while three of ten datagrams are lost in each direction, so that half of what nobody sends again is
// missing at the other end. The call must stay up, and no second without the other's sound or picture may pass: without a sample that came over
// the network and was not made up by the browser, without a frame. Runs in a network namespace of its own (root, nft). Prints a line of JSON for each
// case, {"case", "error"} or {"case", "note"}; loadtest/interop reads them.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { check, failed } from './cases.mjs';
import { caller, elementCall, gather, SLOW_CAMERA } from './group.mjs';
import { freshName, launch } from './pages.mjs';
import { homeserver } from './server.mjs';
import { hum } from './sound.mjs';

const seconds = Number(process.argv[2] ?? 60);
if (!Object.keys(networkInterfaces()).every((name) => name === 'lo')) {
  const inside = spawnSync('unshare', ['-n', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', process.execPath, fileURLToPath(import.meta.url), String(seconds)], { stdio: 'inherit' });
  if (inside.error) throw inside.error;
  process.exit(inside.status ?? 1);
}

/** Loses that many of a hundred datagrams that arrive anywhere here: those of clients to the server, and its to them. */
function lose(percent) {
  const rules = percent ? `table inet loss { chain in { type filter hook input priority 0; meta l4proto udp numgen random mod 100 < ${percent} counter drop; }; }` : '';
  const done = spawnSync('nft', ['-f', '-'], { encoding: 'utf8', input: `table inet loss\ndelete table inet loss\n${rules}\n` });
  if (done.status !== 0) throw new Error(`nft: ${done.stderr || done.error}`);
}

/** How many were lost so far. */
function lost() {
  const { stdout } = spawnSync('nft', ['list', 'table', 'inet', 'loss'], { encoding: 'utf8' });
  return Number(/counter packets (\d+)/.exec(stdout)?.[1] ?? 0);
}

/** Looks ten times a second at what arrives, and gives the longest times without. */
async function listen(who, ms) {
  const frame = await who.inside();
  return frame.evaluate(async (lasts) => {
    const looks = [];
    const end = performance.now() + lasts;
    while (performance.now() < end) {
      const now = { at: performance.now(), packets: 0, lost: 0, total: 0, made: 0, frames: 0 };
      for (const pc of window.__connections ?? []) {
        if (pc.connectionState === 'closed') continue;
        (await pc.getStats()).forEach((s) => {
          if (s.type !== 'inbound-rtp') return;
          if (s.kind === 'video') now.frames += s.framesDecoded ?? 0;
          if (s.kind !== 'audio') return;
          now.packets += s.packetsReceived ?? 0;
          now.lost += s.packetsLost ?? 0;
          now.total += s.totalSamplesReceived ?? 0;
          now.made += s.concealedSamples ?? 0;
        });
      }
      looks.push(now);
      await new Promise((go) => setTimeout(go, 100)); // a look, ten a second: the gaps between them are the measure
    }
    // A look with nothing new lengthens a gap. Sound: samples were played and all of them were made up. A browser that got no time
    // itself plays nothing, which is not the network's doing.
    const gap = (grew, step) => {
      let longest = 0;
      let open = 0;
      for (let i = 1; i < looks.length; i++) {
        open = grew(looks[i], looks[i - 1]) ? 0 : open + step(looks[i], looks[i - 1]);
        longest = Math.max(longest, open);
      }
      return Math.round(longest);
    };
    const [first, last] = [looks[0], looks.at(-1)];
    return {
      silence: gap((a, b) => a.total - a.made > b.total - b.made, (a, b) => (a.total - b.total) / 48),
      packets: gap((a, b) => a.packets > b.packets, (a, b) => a.at - b.at),
      pictures: gap((a, b) => a.frames > b.frames, (a, b) => a.at - b.at),
      lost: Math.round((100 * (last.lost - first.lost)) / (last.lost - first.lost + last.packets - first.packets)),
      made: Math.round((100 * (last.made - first.made)) / (last.total - first.total)),
      frames: last.frames - first.frames,
      heard: Math.round((last.total - first.total) / 48),
    };
  }, ms);
}

const home = await mkdtemp(join(tmpdir(), 'trunkboard-loss-'));
await writeFile(join(home, 'hum.wav'), hum());
const server = await homeserver({}, elementCall('compatibility'));
const browsers = await Promise.all([0, 1].map(() => launch({ flags: [SLOW_CAMERA, `--use-file-for-fake-audio-capture=${join(home, 'hum.wav')}`] })));
try {
  const [ann, ben] = await Promise.all(
    ['ann', 'ben'].map(async (stem, i) => {
      const who = await caller(browsers[i], server.url, stem);
      await who.client.signUp(freshName(stem));
      return who;
    }),
  );
  const both = (f) => Promise.all([ann, ben].map(f));
  await check('a call without losses', async () => {
    await gather([ann, ben]);
    await ann.join();
    await ben.join();
    await both((p) => p.sees(1));
    return both((p) => listen(p, 5000));
  });
  await check(`three of ten datagrams lost in each direction, for ${seconds} s`, async () => {
    lose(30);
    const found = await both((p) => listen(p, seconds * 1000));
    assert.ok(lost() > 20 * seconds, `only ${lost()} datagrams were lost`);
    for (const f of found) {
      // Half would be missing if nobody sent it again.
      assert.ok(f.lost <= 20, `${f.lost} of 100 packets of sound are missing: ${JSON.stringify(found)}`);
      assert.ok(f.silence <= 1000, `${f.silence} ms without sound: ${JSON.stringify(found)}`);
      assert.ok(f.pictures <= 1000, `${f.pictures} ms without a picture: ${JSON.stringify(found)}`);
    }
    await both((p) => p.tiles(2));
    await both((p) => p.sees(1));
    return found;
  });
  await check('somebody joins over such a line', async () => {
    await ben.leave();
    await ann.tiles(1);
    const began = Date.now();
    await ben.join();
    await both((p) => p.sees(1));
    return `pictures and sound both ways ${Date.now() - began} ms after the click`;
  });
  await check('the line is good again', async () => {
    lose(0);
    await both((p) => p.sees(1));
    return both((p) => listen(p, 5000));
  });
} finally {
  await Promise.all(browsers.map((b) => b.close()));
  await server.close();
  await rm(home, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
