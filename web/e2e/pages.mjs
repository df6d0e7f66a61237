// SPDX-License-Identifier: Apache-2.0
// What a test does with the web client: one Client per browser context, with the words a person would use.
import { createRequire } from 'node:module';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// The packages of the web client serve its tests too.
const require = createRequire(new URL('../app/package.json', import.meta.url));
const { chromium } = require('playwright-core');

export const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** Fake camera and microphone, no questions, no traffic of the browser itself. */
export const FLAGS = [
  '--no-sandbox',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  '--allow-loopback-in-peer-connection',
  '--disable-features=WebRtcHideLocalIpsWithMdns,LocalNetworkAccessChecks',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-quic',
  '--no-first-run',
];

/** How long a step may take on a busy machine, in milliseconds. */
export const PATIENCE = Number(process.env.TRUNKBOARD_TEST_PATIENCE ?? 20_000);

/**
 * Starts one browser with a fresh profile. `flags` are added to FLAGS. Call `close` on what it returns.
 * One browser process holds many people: each `person` is a context of its own.
 */
export async function launch({ flags = [] } = {}) {
  const home = await mkdtemp(join(tmpdir(), 'trunkboard-e2e-'));
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: [...FLAGS, ...flags],
    env: { ...process.env, HOME: home },
  });
  return {
    browser,
    /**
     * A person with a browser window of their own. `settings` go into localStorage before the first page:
     * e.g. `{ 'trunkboard.iceTransportPolicy': 'relay' }` allows relayed connections only.
     */
    async person(url, { settings = {}, context = {} } = {}) {
      const ctx = await browser.newContext({ viewport: { width: 1280, height: 800 }, ignoreHTTPSErrors: true, ...context });
      await ctx.addInitScript((entries) => {
        // about:blank has no storage.
        if (!location.protocol.startsWith('http')) return;
        for (const [key, value] of Object.entries(entries)) localStorage.setItem(key, value);
      }, { 'trunkboard.test': '1', ...settings });
      const page = await ctx.newPage();
      page.setDefaultTimeout(PATIENCE);
      return new Client(page, url);
    },
    async close() {
      await browser.close();
      await rm(home, { recursive: true, force: true });
    },
  };
}

let counter = 0;
/** A user name that no other test has, so that tests can share a server. */
export function freshName(stem) {
  return `${stem}-${process.pid.toString(36)}${Date.now().toString(36)}${(counter++).toString(36)}`;
}

export class Client {
  /** @param {import('playwright-core').Page} page @param {string} url address of the homeserver */
  constructor(page, url) {
    this.page = page;
    this.url = url.replace(/\/+$/, '');
    this.name = '';
    this.recoveryKey = '';
    this.problems = [];
    page.on('pageerror', (error) => this.problems.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error' && /Content Security Policy|Uncaught/.test(message.text())) this.problems.push(message.text());
    });
  }

  at(testid) {
    return this.page.getByTestId(testid);
  }

  /** Makes an account, waits until the client is in sync, and saves the recovery key as `recoveryKey`. */
  async signUp(name, password = 'correct horse battery staple', { token } = {}) {
    await this.page.goto(this.url + '/');
    await this.at('auth-tab-signup').click();
    await this.fillIn(name, password);
    if (token) {
      await this.at('auth-token').waitFor();
      await this.at('auth-token').fill(token);
      await this.at('auth-submit').click();
    }
    await this.ready();
    if ((await this.encryption()) === 'off') return;
    this.recoveryKey = (await this.at('recovery-key').innerText()).replace(/\s+/g, ' ').trim();
    await this.at('recovery-saved').click();
  }

  /** Signs in on a new device; `unlock` confirms it with that recovery key, else the question is skipped. */
  async signIn(name, password = 'correct horse battery staple', { unlock } = {}) {
    await this.page.goto(this.url + '/');
    await this.fillIn(name, password);
    await this.ready();
    if ((await this.encryption()) !== 'locked') return;
    await this.at('confirm-dialog').waitFor();
    if (unlock) await this.unlock(unlock);
    else if (unlock !== null) await this.at('confirm-skip').click();
  }

  /** Confirms this device with a recovery key in the open dialog. */
  async unlock(key) {
    await this.at('confirm-key').click();
    await this.at('unlock-key').fill(key);
    await this.at('confirm-submit').click();
    await this.at('confirm-form').waitFor({ state: 'detached' });
  }

  /** Waits until the client knows where its encryption stands: `ready`, `locked`, `unset`, or `off`. */
  async encryption() {
    const phase = () => this.page.evaluate(() => window.__trunkboard.store.getState().encryption.phase);
    await this.page.waitForFunction(() => !['starting', 'working'].includes(window.__trunkboard.store.getState().encryption.phase));
    return phase();
  }

  /** Waits until the backup holds a key: the SDK uploads them after up to ten seconds. */
  async backedUp() {
    const end = Date.now() + PATIENCE;
    // The SDK's own answer is an old one: it asks the server only when something changes.
    const count = () =>
      this.page.evaluate(async () => {
        const { accessToken } = JSON.parse(localStorage.getItem('trunkboard.session'));
        const answer = await fetch('/_matrix/client/v3/room_keys/version', { headers: { Authorization: `Bearer ${accessToken}` } });
        return (await answer.json()).count ?? 0;
      });
    while ((await count()) === 0) {
      if (Date.now() > end) throw new Error(`no key of ${this.name} reaches the backup`);
      await this.page.waitForTimeout(200);
    }
  }

  /** Asks the person of the open chat to compare emojis. */
  async askToVerify() {
    await this.at('room-lock').click();
    await this.at('verify-person').and(this.page.locator(':enabled')).click();
  }

  /** The emojis on the screen, with their names. */
  async emojis() {
    await this.at('emojis').waitFor();
    return this.at('emojis').locator('li').allInnerTexts();
  }

  /** Waits until a verification has come to an end and takes it off the screen. */
  async verified() {
    await this.page.locator('[data-testid="verification-step"][data-step="done"]').waitFor();
    await this.at('verification-close').click();
  }

  /** The newest events of a room as the server keeps them. */
  serverEvents(roomId) {
    return this.page.evaluate(async (id) => {
      const { accessToken } = JSON.parse(localStorage.getItem('trunkboard.session'));
      const answer = await fetch(`/_matrix/client/v3/rooms/${encodeURIComponent(id)}/messages?dir=b&limit=100`, { headers: { Authorization: `Bearer ${accessToken}` } });
      return (await answer.json()).chunk;
    }, roomId);
  }

  async fillIn(name, password) {
    this.name = name;
    await this.at('auth-username').fill(name);
    await this.at('auth-password').fill(password);
    await this.at('auth-submit').click();
  }

  /** Waits for the first complete sync. */
  async ready() {
    await this.at('workspace').waitFor();
    await this.page.waitForFunction(() => window.__trunkboard?.store.getState().sync === 'ready');
  }

  async signOut() {
    await this.at('user-menu').click();
    await this.at('sign-out').click();
    await this.at('auth-submit').waitFor();
  }

  userId() {
    return this.page.evaluate(() => window.__trunkboard.client.getUserId());
  }

  /** Opens a chat with a person; the other side sees an invitation. Returns the room's id. */
  async startChat(user) {
    await this.at('new-chat').click();
    await this.at('new-chat-input').fill(user);
    await this.at('new-chat-submit').click();
    await this.at('new-chat-dialog').waitFor({ state: 'detached' });
    await this.at('composer').waitFor();
    return this.roomId();
  }

  roomId() {
    return this.page.evaluate(() => window.__trunkboard.store.getState().roomId);
  }

  /** Accepts the invitation to a room (or the first one) and opens it. */
  async acceptInvite(roomId) {
    const invite = roomId ? this.page.locator(`[data-testid="invite"][data-room-id="${roomId}"]`) : this.at('invite').first();
    await invite.getByTestId('invite-accept').click();
    await this.at('composer').waitFor();
  }

  async openRoom(roomId) {
    await this.page.locator(`[data-testid="room-item"][data-room-id="${roomId}"]`).click();
    await this.at('composer').waitFor();
  }

  async send(words) {
    await this.at('composer').fill(words);
    await this.at('composer').press('Enter');
  }

  /** Waits until a message with these words is on the screen, and sent. */
  async sees(words) {
    await this.page.locator('[data-testid="message"][data-state="sent"]', { hasText: words }).last().waitFor();
  }

  /** Rings the other person of the open chat and waits until the invite is out. */
  async call({ video = true } = {}) {
    const button = this.at(video ? 'call-video' : 'call-voice');
    await button.and(this.page.locator(':enabled')).waitFor();
    await button.click();
    await this.phase('ringing', 'connecting', 'connected');
  }

  /** Waits for the ringing and accepts; `video: false` answers a video call without the camera. */
  async accept({ video } = {}) {
    await this.at('incoming').waitFor();
    const offered = (await this.at('incoming').getAttribute('data-video')) === 'true';
    await this.at(offered && video === false ? 'incoming-accept-audio' : 'incoming-accept').click();
  }

  async decline() {
    await this.at('incoming-decline').click();
  }

  async hangUp() {
    await this.page.mouse.move(600, 400);
    await this.at('call-hangup').click();
  }

  /** Waits until the call screen shows one of these phases. */
  async phase(...phases) {
    await this.page.waitForFunction(
      (wanted) => wanted.includes(document.querySelector('[data-testid="call-screen"]')?.dataset.phase),
      phases,
    );
  }

  /** Waits until no call is on the screen. */
  async noCall() {
    await this.at('call-screen').waitFor({ state: 'detached' });
  }

  /** Waits for a call tile with this outcome: `ended`, `missed`, `declined`, … */
  async tile(outcome) {
    await this.page.locator(`[data-testid="call-tile"][data-outcome="${outcome}"]`).last().waitFor();
  }

  /** Frames decoded, audio energy received and bytes both ways, summed over the call's streams. */
  counters() {
    return this.page.evaluate(readCounters);
  }

  /**
   * Waits until the other side's media really arrives: decoded video frames grow by 10 (when `video`) and the
   * energy of the received sound grows. Throws with the counters when it does not happen in time.
   */
  async hears({ video = true, timeout = PATIENCE } = {}) {
    const start = await this.counters();
    const end = Date.now() + timeout;
    let now = start;
    while (Date.now() < end) {
      now = await this.counters();
      if ((!video || now.frames >= start.frames + 10) && now.energy > start.energy) return now;
      await this.page.waitForTimeout(200);
    }
    throw new Error(`no media arrives at ${this.name}: ${JSON.stringify({ start, now })}`);
  }

  /**
   * The pair of candidates that carries the call:
   * `{ local, remote, protocol }` with types host, srflx, prflx, relay; `protocol` is udp, tcp or tls: for a relayed
   * local candidate the leg to the relay.
   */
  async selectedPair() {
    await this.page.waitForFunction(() => window.__trunkboard?.pc?.iceConnectionState.match(/connected|completed/));
    return this.page.evaluate(readPair);
  }

  async close() {
    await this.page.context().close();
  }
}

/** Two screens show the same emojis; both sides say so. */
export async function compareEmojis(a, b) {
  const [one, two] = await Promise.all([a.emojis(), b.emojis()]);
  if (one.length !== 7 || one.join() !== two.join()) throw new Error(`different emojis: ${one} and ${two}`);
  await a.at('emojis-match').click();
  await b.at('emojis-match').click();
  await Promise.all([a.verified(), b.verified()]);
}

/** Media flows in both directions of a call. */
export async function mediaFlows(a, b, options = {}) {
  const [one, two] = await Promise.all([a.hears(options), b.hears(options)]);
  return [one, two];
}

/** Signs up two people and opens a chat that both have joined. Returns the room's id. */
export async function introduce(a, b, stem = 'e2e') {
  await Promise.all([a.signUp(freshName(`${stem}-ann`)), b.signUp(freshName(`${stem}-ben`))]);
  const roomId = await a.startChat(b.name);
  await b.acceptInvite(roomId);
  await a.at('call-voice').and(a.page.locator(':enabled')).waitFor();
  return roomId;
}

// The following two run inside the page.

async function readCounters() {
  const pc = window.__trunkboard?.pc;
  const sum = { frames: 0, energy: 0, bytesIn: 0, bytesOut: 0 };
  if (!pc) return sum;
  (await pc.getStats()).forEach((s) => {
    if (s.type === 'inbound-rtp') {
      sum.bytesIn += s.bytesReceived ?? 0;
      if (s.kind === 'video') sum.frames += s.framesDecoded ?? 0;
      if (s.kind === 'audio') sum.energy += s.totalAudioEnergy ?? 0;
    }
    if (s.type === 'outbound-rtp') sum.bytesOut += s.bytesSent ?? 0;
  });
  return sum;
}

async function readPair() {
  const stats = await window.__trunkboard.pc.getStats();
  let pair;
  stats.forEach((s) => {
    if (s.type === 'transport' && s.selectedCandidatePairId) pair = stats.get(s.selectedCandidatePairId);
  });
  if (!pair) return null;
  const local = stats.get(pair.localCandidateId);
  const remote = stats.get(pair.remoteCandidateId);
  return {
    local: local.candidateType,
    remote: remote.candidateType,
    protocol: local.relayProtocol ?? local.protocol,
    localAddress: `${local.address}:${local.port}`,
    remoteAddress: `${remote.address}:${remote.port}`,
    rttMs: pair.currentRoundTripTime === undefined ? undefined : pair.currentRoundTripTime * 1000,
  };
}
