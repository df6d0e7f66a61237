// SPDX-License-Identifier: Apache-2.0
// Group calls as a person sees them: Element Call, unmodified from npm, in the frame of the web client.
import { existsSync } from 'node:fs';
import { cp, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The embedded build, a dependency of these tests alone: it is not ours to pass on. */
const BUNDLE = fileURLToPath(new URL('./element-call/node_modules/@element-hq/element-call-embedded/dist/', import.meta.url));

/** Three browsers with video on a busy machine are slow. */
export const PATIENCE = Number(process.env.TRUNKBOARD_TEST_PATIENCE ?? 60_000);

/** Element Call's settings: small pictures, for a machine that encodes, encrypts and decodes all of them by itself. */
const config = (mode) => ({
  matrix_rtc_mode: mode,
  matrix_rtc_session: { wait_for_key_rotation_ms: 1000 },
  media_quality: {
    video: { max_resolution: 180, max_bitrate: 120_000, max_framerate: 10, simulcast_layers: [{ height: 90, bitrate: 40_000 }] },
    screen_share: { max_resolution: 360, max_bitrate: 200_000, max_framerate: 5, simulcast_layers: [] },
  },
});

/** The browser's fake camera need not be faster than that. */
export const SLOW_CAMERA = '--use-fake-device-for-media-stream=fps=10';

/** Puts Element Call into a server's data folder, as an operator does, with a mode of MatrixRTC. */
export function elementCall(mode) {
  if (!existsSync(join(BUNDLE, 'index.html'))) throw new Error('Element Call is missing: run "npm ci" in web/e2e/element-call');
  return async (data) => {
    const folder = join(data, 'element-call');
    await mkdir(folder);
    await cp(join(BUNDLE, 'index.html'), join(folder, 'index.html'));
    await symlink(join(BUNDLE, 'assets'), join(folder, 'assets'));
    await writeFile(join(folder, 'config.json'), JSON.stringify(config(mode)));
  };
}

/** Runs in every page and frame before its scripts: keeps the connections, to count what arrives. */
export function watchConnections() {
  const Original = window.RTCPeerConnection;
  const made = [];
  window.__connections = made;
  window.RTCPeerConnection = class extends Original {
    constructor(...all) {
      super(...all);
      made.push(this);
    }
  };
}

/** What a person does in a group call. */
export class Caller {
  /** @param {import('./pages.mjs').Client} client */
  constructor(client) {
    this.client = client;
    this.page = client.page;
  }

  get frame() {
    return this.page.frameLocator('[data-testid="group-frame"]');
  }

  at(testid) {
    return this.frame.getByTestId(testid);
  }

  /** The frame itself, for looking into it. */
  async inside() {
    const element = await this.page.getByTestId('group-frame').elementHandle();
    return element.contentFrame();
  }

  /** Opens the call of the open room and passes the lobby. */
  async join() {
    const open = this.page.getByTestId('group-open');
    await open.and(this.page.locator(':enabled')).click();
    await this.at('lobby_joinCall').click({ timeout: PATIENCE });
    await this.at('incall_leave').waitFor({ timeout: PATIENCE });
  }

  async leave() {
    await this.at('incall_leave').click();
    await this.page.getByTestId('group-call').waitFor({ state: 'detached', timeout: PATIENCE });
  }

  /** Pictures and sound that arrive, over all connections: frames decoded by track, and the energy of the sound. */
  async counters() {
    const frame = await this.inside();
    return frame.evaluate(async () => {
      const sum = { frames: {}, energy: 0, sent: 0, keys: 0 };
      for (const pc of window.__connections ?? []) {
        if (pc.connectionState === 'closed') continue;
        (await pc.getStats()).forEach((s) => {
          if (s.type === 'inbound-rtp' && s.kind === 'video') sum.frames[s.trackIdentifier] = s.framesDecoded ?? 0;
          if (s.type === 'inbound-rtp' && s.kind === 'audio') sum.energy += s.totalAudioEnergy ?? 0;
          if (s.type === 'outbound-rtp') sum.sent += s.bytesSent ?? 0;
        });
      }
      return sum;
    });
  }

  /** Waits until moving pictures of that many others arrive and, unless `sound` is false, their sound. */
  async sees(others, { sound = true, timeout = PATIENCE } = {}) {
    const start = await this.counters();
    const end = Date.now() + timeout;
    let now = start;
    while (Date.now() < end) {
      now = await this.counters();
      const moving = Object.entries(now.frames).filter(([track, n]) => n > (start.frames[track] ?? 0) + 5).length;
      if (moving >= others && (!sound || now.energy > start.energy)) return now;
      await this.page.waitForTimeout(250);
    }
    throw new Error(`${this.client.name} does not see ${others} others: ${JSON.stringify({ start, now })}`);
  }

  /** Waits until the tile of somebody says that the microphone is off, or on. */
  async microphone(other, on) {
    await this.at('videoTile').filter({ hasText: other.client.name }).getByLabel(on ? 'Microphone on' : 'Microphone off').waitFor({ timeout: PATIENCE });
  }

  /** The memberships of the room's call as the server keeps them: the users with content. */
  members(roomId) {
    return this.page.evaluate(async (id) => {
      const { accessToken } = JSON.parse(localStorage.getItem('trunkboard.session'));
      const answer = await fetch(`/_matrix/client/v3/rooms/${encodeURIComponent(id)}/state`, { headers: { Authorization: `Bearer ${accessToken}` } });
      return (await answer.json()).filter((e) => e.type === 'org.matrix.msc3401.call.member' && Object.keys(e.content).length > 0).map((e) => e.sender);
    }, roomId);
  }

  /** Waits until that many pictures are on the screen, tiles of people and of screens. */
  async shows(n, timeout = PATIENCE) {
    const end = Date.now() + timeout;
    let count;
    while (Date.now() < end) {
      count = await this.at('video').count();
      if (count === n) return;
      await this.page.waitForTimeout(200);
    }
    throw new Error(`${this.client.name} is shown ${count} pictures, not ${n}`);
  }

  /** Waits until that many tiles are on the screen. */
  async tiles(n, timeout = PATIENCE) {
    const end = Date.now() + timeout;
    let count;
    while (Date.now() < end) {
      count = await this.at('videoTile').count();
      if (count === n) return;
      await this.page.waitForTimeout(200);
    }
    throw new Error(`${this.client.name} has ${count} tiles, not ${n}`);
  }
}

/** Somebody with a window for group calls in a browser of `launch`, on the server at `url`; no account yet. With VERBOSE the console is shown. */
export async function caller(browser, url, stem) {
  const client = await browser.person(url, { context: { viewport: { width: 1000, height: 700 } } });
  await client.page.context().addInitScript(watchConnections);
  client.page.setDefaultTimeout(PATIENCE);
  if (process.env.VERBOSE) client.page.on('console', (m) => console.log(stem, m.text().slice(0, 400)));
  return Object.assign(new Caller(client), { stem });
}

/**
 * An encrypted room that these callers, who have accounts, are in; the first makes it, and all have it open. `more` goes
 * into the request that makes it. Returns its id.
 */
export async function gather([host, ...others], more = {}) {
  const invite = await Promise.all(others.map((p) => p.client.userId()));
  const id = await host.page.evaluate(
    async (asked) => (await window.__trunkboard.client.createRoom(asked)).room_id,
    {
      preset: 'private_chat',
      name: 'Planning',
      invite,
      initial_state: [{ type: 'm.room.encryption', state_key: '', content: { algorithm: 'm.megolm.v1.aes-sha2' } }],
      ...more,
    },
  );
  for (const p of others) await p.client.acceptInvite(id);
  await host.client.openRoom(id);
  return id;
}

/** What lets every member of a room begin its calls on a homeserver whose own power levels do not: Element and our client make rooms with it. */
export const CALLS_FOR_ALL = { power_level_content_override: { events: { 'org.matrix.msc3401.call.member': 0 } } };
