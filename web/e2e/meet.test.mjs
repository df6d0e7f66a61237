// SPDX-License-Identifier: Apache-2.0
// Meetings as people have them: they open a link, say a name and talk. TRUNKBOARD_SCREENSHOTS=dir takes pictures.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { Guest, MEET_FLAGS } from './meet.mjs';
import { launch } from './pages.mjs';
import { homeserver } from './server.mjs';

const shots = process.env.TRUNKBOARD_SCREENSHOTS;
const shot = async (guest, name) => shots && guest.page.screenshot({ path: `${shots}/meet-${name}.png` });

describe('a meeting', () => {
  let server;
  let browser;
  let ann, ben, cem, dora, eve;
  const problems = [];
  const room = '/meet/Weekly';
  let broken = '';
  /** The steps stand on each other: after one that failed the next ones say nothing. */
  const step = (name, run) =>
    it(name, async (t) => {
      if (broken) return t.skip(`after "${broken}" failed`);
      broken = name;
      try {
        await run();
      } catch (error) {
        for (const guest of [ann, ben, cem, dora, eve]) {
          await shot(guest, `broken-${guest.name}`).catch(() => {});
          console.log(guest.name, guest.client.problems, await guest.page.evaluate(() => JSON.stringify({ phase: window.__meeting?.snapshot.phase, people: window.__meeting?.snapshot.people.map((p) => p.name) })).catch(String));
        }
        throw error;
      }
      broken = '';
    });
  const checked = async (guest, screen) => {
    const found = await guest.violations();
    assert.deepEqual(found, [], screen);
  };

  before(async () => {
    server = await homeserver();
    browser = await launch({ flags: MEET_FLAGS });
    [ann, ben, cem, dora, eve] = await Promise.all(
      ['Ann', 'Ben', 'Cem', 'Dora', 'Eve'].map((name) =>
        Guest.come(browser, server.url, name, { context: { colorScheme: name === 'Ben' ? 'dark' : 'light', ...(name === 'Cem' ? { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, locale: 'de-DE' } : { locale: 'en-GB' }) } }),
      ),
    );
    for (const guest of [ann, ben, cem, dora, eve]) problems.push(guest.client.problems);
  });
  after(async () => {
    if (server && process.env.VERBOSE) console.log(server.log());
    await browser?.close();
    await server?.close();
  });

  step('the page before the meeting needs less than 300 kB of script', async () => {
    const page = await (await fetch(server.url + room)).text();
    const scripts = [...page.matchAll(/<(?:script|link)[^>]*(?:src|href)="(\/assets\/[^"]+\.js)"/g)].map((m) => m[1]);
    let sum = 0;
    for (const script of scripts) {
      const response = await fetch(server.url + script, { headers: { 'Accept-Encoding': 'identity' } });
      sum += gzipSync(Buffer.from(await response.arrayBuffer()), { level: 9 }).length;
    }
    console.log(`script before the pre-join view: ${(sum / 1000).toFixed(0)} kB gzip in ${scripts.length} files`);
    assert.ok(scripts.length > 0 && sum < 300_000, `${sum} bytes`);
    assert.equal(scripts.some((s) => s.includes('livekit') || s.includes('matrix-sdk')), false, 'LiveKit and the Matrix SDK come later, or never');
  });

  step('without a name in the address one is suggested', async () => {
    await ann.page.goto(`${server.url}/meet/`);
    await ann.at('meet-start').waitFor();
    await checked(ann, 'start');
    const name = await ann.at('start-name').inputValue();
    await ann.at('start-go').click();
    await ann.at('meet-title').getByText(name).waitFor();
  });

  step('before it one sees oneself, and says a name', async () => {
    await ann.open(room);
    await ann.at('meet-preview').waitFor();
    await ann.page.waitForFunction(() => document.querySelector('[data-testid="meet-level"]')?.value > 0);
    await ann.at('meet-join').click();
    await ann.page.getByRole('alert').waitFor(); // a name is missing
    await checked(ann, 'pre-join');
    await shot(ann, 'prejoin');
    await ann.at('prejoin-camera').click();
    await ann.at('meet-preview').waitFor({ state: 'hidden' });
    await ann.at('prejoin-camera').click();
    await ann.at('meet-preview').waitFor();
    await ben.open(room);
    await checked(ben, 'pre-join, dark');
    await shot(ben, 'prejoin-dark');
    await cem.open(room);
    await checked(cem, 'pre-join, phone');
    await shot(cem, 'prejoin-phone');
  });

  step('five people meet by a link', async () => {
    await ann.join(room);
    await checked(ann, 'alone');
    await shot(ann, 'alone');
    const times = [];
    for (const guest of [ben, cem, dora, eve]) times.push(await guest.joinTimed(room));
    await Promise.all([ann.sees('Ben', 'Cem', 'Dora', 'Eve'), ben.sees('Ann', 'Cem', 'Dora', 'Eve'), cem.sees('Ann', 'Ben'), dora.sees('Ann', 'Ben'), eve.sees('Ann', 'Ben', 'Cem', 'Dora')]);
    // The last ones once more: with five people in.
    for (const guest of [dora, eve, dora, eve]) {
      await guest.at('bar-leave').click();
      await guest.at('meet-left').waitFor();
      times.push(await guest.joinTimed(room));
    }
    times.sort((a, b) => a - b);
    console.log(`click on Join to the first moving picture of another, 2 to 5 people: p50 ${Math.round(times[times.length >> 1])} ms of ${times.map(Math.round).join(', ')}`);
    await Promise.all([ann, ben, eve].map((g) => g.page.waitForFunction(() => window.__meeting.snapshot.people.length === 5)));
    await shot(ann, 'tiles');
    await shot(ben, 'tiles-dark');
    await shot(cem, 'tiles-phone');
  });

  step('they write to each other, to all and to one', async () => {
    await ann.say('<img src=x onerror="window.__pwned=1"> hello https://example.org/');
    await Promise.all([ben.reads('<img src=x onerror="window.__pwned=1"> hello'), eve.reads('hello https://example.org/')]);
    await ben.say('for Eve alone', 'Eve');
    await eve.reads('for Eve alone');
    await ben.say('good morning');
    await Promise.all([ann.reads('good morning'), eve.reads('good morning')]);
    assert.equal(await ann.at('meet-message').filter({ hasText: 'for Eve alone' }).count(), 0);
    assert.equal(await eve.at('meet-message').filter({ hasText: 'good morning' }).count(), 1);
    for (const guest of [ann, ben, eve]) assert.equal(await guest.page.evaluate(() => window.__pwned), undefined);
    await checked(eve, 'chat');
    await checked(ben, 'chat, dark');
    await shot(eve, 'chat');
    await eve.at('meet-chat-input').press('Escape');
    await eve.at('meet-messages').waitFor({ state: 'detached' });
    assert.equal(await eve.page.evaluate(() => document.activeElement?.getAttribute('data-testid')), 'bar-chat');
    await Promise.all([ann, ben].map((g) => g.chat(false)));
    // Nothing sticks out of a telephone's screen: neither a long word nor a long button.
    await ann.say(`${'verylongword'.repeat(12)}`);
    await ann.chat(false);
    await cem.notice('verylongword');
    await cem.at('bar-more-narrow').click();
    await cem.page.getByRole('menuitem', { name: 'Einladen' }).click();
    await cem.at('meet-qr').waitFor();
    const wide = await cem.page.evaluate(() => {
      const out = [...document.querySelectorAll('[data-testid="notice"], [data-testid="notice"] button, dialog *')].filter((e) => e.getBoundingClientRect().right > innerWidth || e.getBoundingClientRect().left < 0);
      return [...out.map((e) => e.outerHTML.slice(0, 80)), ...[...document.querySelectorAll('dialog')].filter((d) => d.scrollWidth > d.clientWidth).map((d) => `${d.scrollWidth} px in ${d.clientWidth}`)];
    });
    assert.deepEqual(wide, []);
    await cem.closeDialog();
  });

  step('hands go up, and thumbs', async () => {
    await ben.page.keyboard.press('r');
    await ann.tile('Ben').getByTestId('tile-hand').waitFor();
    await cem.notice('Ben');
    await shot(cem, 'notice-phone');
    const covered = await cem.page.evaluate(async () => {
      // It rises to its place.
      await Promise.allSettled(document.getAnimations().filter((a) => a.effect.getComputedTiming().iterations !== Infinity).map((a) => a.finished));
      const shown = (selector) => [...document.querySelectorAll(selector)].map((e) => e.getBoundingClientRect()).filter((r) => r.width > 0);
      return shown('[data-testid="notice"]').filter((n) => [...shown('[data-testid="tile"]'), ...shown('.meet-bar')].some((t) => n.bottom > t.top + 2 && n.top < t.bottom - 2)).length;
    });
    assert.equal(covered, 0, 'on a phone no word lies over a picture');
    await eve.at('bar-react').click();
    await eve.at('react').first().click();
    await ann.at('reaction').first().waitFor();
    await shot(ann, 'hand');
    await eve.page.keyboard.press('Escape');
    await ben.page.keyboard.press('r');
    await ann.tile('Ben').getByTestId('tile-hand').waitFor({ state: 'detached' });
  });

  step('the host mutes, and asks to unmute; who is asked decides', async () => {
    await ann.says('Ben', 'muted', false);
    await ann.act('Ben', 'person-mute');
    await ben.notice('Ann muted you');
    await ann.says('Ben', 'muted', true);
    await checked(ann, 'people');
    await shot(ann, 'people');
    await ann.act('Ben', 'person-ask');
    await ben.notice('Ann asks you to unmute');
    await ben.at('notice-action').click();
    await ann.says('Ben', 'muted', false);
    assert.equal(await eve.page.evaluate(() => window.__meeting.host.mute(window.__meeting.snapshot.people[0].id, 'audio').then(() => 'done', (e) => e.status)), 403, 'a guest may not');
    await ann.at('meet-mute-all').click();
    await Promise.all([ben, eve].map((g) => g.page.waitForFunction(() => window.__meeting.snapshot.me.muted.audio)));
    for (const guest of [ben, eve]) await guest.page.keyboard.press('m');
    await ann.says('Eve', 'muted', false);
  });

  step('who is made a host has their rights, and loses them again', async () => {
    await ann.act('Ben', 'person-promote');
    await ben.notice('You are a host now');
    await ben.says('Ben', 'host', true);
    await ann.act('Ben', 'person-promote');
    await ben.notice('You are no longer a host');
    await ben.at('bar-people').click();
  });

  step('a screen is shown big to everybody, then the tiles come back', async () => {
    await eve.at('bar-share').click();
    await ann.page.locator('[data-testid="stage"][data-view="speaker"] .meet-big [data-what="screen"][data-video="true"]').waitFor();
    await shot(ann, 'screen');
    await shot(cem, 'screen-phone');
    await checked(ann, 'speaker view');
    await eve.page.locator('[data-testid="bar-share"][aria-pressed="true"]').click();
    await ann.page.locator('[data-testid="stage"][data-view="tile"]').waitFor();
    await ann.page.keyboard.press('2');
    await ann.page.locator('[data-testid="stage"][data-view="speaker"]').waitFor();
    await ann.page.keyboard.press('w');
    await ann.page.locator('[data-testid="stage"][data-view="tile"]').waitFor();
  });

  step('its dialogs can be read by everybody', async () => {
    await ann.at('bar-invite').click();
    await ann.at('meet-qr').waitFor();
    assert.equal(await ann.at('meet-link').inputValue(), server.url + room);
    await checked(ann, 'invite');
    await shot(ann, 'invite');
    await ann.closeDialog();
    for (const [entry, dialog] of [['bar-security', 'meet-security'], ['bar-statistics', 'meet-statistics'], ['bar-shortcuts', 'meet-shortcuts'], ['bar-settings', 'meet-settings']]) {
      for (const guest of [ann, ben]) {
        await guest.more(entry);
        await guest.at(dialog).waitFor();
        await checked(guest, `${dialog} of ${guest.name}`);
        await shot(guest, `${dialog}-${guest.name}`);
        await guest.closeDialog();
      }
    }
    await ann.more('bar-records');
    await ann.at('meet-visit').filter({ hasText: 'Eve' }).first().waitFor();
    await checked(ann, 'records');
    await shot(ann, 'records');
    await ann.closeDialog();
    await ben.at('bar-more').click();
    await ben.at('bar-settings').waitFor();
    assert.equal(await ben.at('bar-records').count(), 0, 'for hosts only');
    await ben.page.keyboard.press('Escape');
    await ann.more('bar-statistics');
    await ann.page.waitForFunction(() => document.querySelectorAll('[data-testid="spoken"]').length === 5);
    await ann.closeDialog();
    await ann.page.keyboard.press('?');
    await ann.at('meet-shortcuts').waitFor();
    await ann.closeDialog();
    await ann.more('bar-settings');
    await ann.at('settings-language').selectOption('de');
    await ann.page.getByRole('heading', { name: 'Einstellungen' }).waitFor();
    await ann.at('settings-language').selectOption('en');
    await ann.closeDialog();
  });

  step('on a phone everything is at hand', async () => {
    await cem.at('bar-more-narrow').click();
    await checked(cem, 'phone menu');
    await shot(cem, 'phone-menu');
    await cem.page.keyboard.press('Escape');
    assert.equal(await cem.page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth), false, 'nothing is wider than the screen');
  });

  step('who reloads is back without a question, and still host', async () => {
    await ann.page.reload();
    await ann.inside();
    await ann.sees('Ben', 'Eve');
    await ann.says('Ann', 'host', true);
    await ben.sees('Ann');
    await ann.reads('good morning'); // the room kept it
    await ann.chat(false);
  });

  step('in the lobby one waits until a host opens', async () => {
    await ann.more('bar-security');
    await ann.at('security-lobby').click();
    await ann.page.locator('[data-testid="security-lobby"]:checked').waitFor();
    await ann.closeDialog();
    await eve.at('bar-leave').click();
    await eve.at('meet-left').waitFor();
    await checked(eve, 'left');
    await eve.page.evaluate(() => sessionStorage.clear());
    await eve.knock(room);
    await eve.at('meet-lobby').waitFor();
    await checked(eve, 'lobby');
    await shot(eve, 'lobby');
    await ann.at('knock-banner').waitFor();
    await checked(ann, 'a knock');
    await shot(ann, 'knock');
    await ann.at('knock-admit').click();
    await eve.inside();
    await eve.sees('Ann');
    await eve.at('bar-leave').click();
    await eve.at('meet-left').waitFor();
    await eve.page.evaluate(() => sessionStorage.clear());
    await eve.knock(room);
    await eve.at('meet-lobby').waitFor();
    await ann.people();
    await ann.at('meet-deny').click();
    await eve.at('meet-failed').waitFor();
    await ann.more('bar-security');
    await ann.at('security-lobby').click();
    await ann.page.locator('[data-testid="security-lobby"]:not(:checked)').waitFor();
  });

  step('a password is asked for, and the wrong one opens nothing', async () => {
    await ann.at('security-password').fill('open sesame');
    await ann.at('security-password-set').click();
    await ann.at('security-has-password').waitFor();
    await ann.closeDialog();
    await eve.page.evaluate(() => sessionStorage.clear());
    await eve.knock(room);
    await eve.at('meet-password-door').waitFor();
    await eve.at('meet-password').fill('sesame');
    await eve.at('meet-password-enter').click();
    await eve.at('meet-password-problem').waitFor();
    await checked(eve, 'password');
    await shot(eve, 'password');
    await eve.at('meet-password').fill('open sesame');
    await eve.at('meet-password-enter').click();
    await eve.inside();
    await ann.more('bar-security');
    await ann.at('security-password-remove').click();
    await ann.at('security-password').waitFor();
    await ann.closeDialog();
  });

  step('who is removed is out, and the others go on', async () => {
    await ann.act('Eve', 'person-kick');
    await eve.at('meet-kicked').waitFor();
    await checked(eve, 'kicked');
    await shot(eve, 'kicked');
    await ann.page.locator('[data-testid="meet-person"][data-name="Eve"]').waitFor({ state: 'detached' });
    await ann.sees('Ben');
  });

  step('it ends for everybody when the host says so', async () => {
    await ann.at('bar-leave').click();
    await ann.at('leave-end').click();
    await Promise.all([ann, ben, cem, dora].map((g) => g.at('meet-ended').waitFor()));
    await checked(ben, 'ended');
    await shot(ben, 'ended');
  });

  step('encrypted, those with the whole link see and read each other, and nobody else', async () => {
    await ann.open('/secret-talk');
    await ann.at('meet-encrypt').check();
    await ann.at('meet-name').fill('Ann');
    await ann.at('meet-join').click();
    await ann.inside();
    await ann.at('meet-encrypted').waitFor();
    await ann.at('bar-invite').click();
    const link = await ann.at('meet-link').inputValue();
    assert.match(link, /\/secret-talk#key=[\w-]{43}$/);
    await ann.closeDialog();
    await ben.join(new URL(link).pathname + new URL(link).hash);
    await Promise.all([ann.sees('Ben'), ben.sees('Ann')]);
    await ben.say('only for us');
    await ann.reads('only for us');
    await shot(ann, 'encrypted');
    await dora.knock('/secret-talk');
    await dora.at('meet-key-door').waitFor();
    await checked(dora, 'key');
    await shot(dora, 'key');
  });

  step('no page had an error, and no policy was broken', () => {
    assert.deepEqual(problems.flat(), []);
  });
});

describe('a server that restarts', () => {
  it('has everybody back by themselves', async () => {
    const data = await mkdtemp(join(tmpdir(), 'trunkboard-meet-'));
    const free = () =>
      new Promise((resolve, reject) => {
        const probe = createServer().once('error', reject);
        probe.listen(0, '127.0.0.1', () => {
          const { port } = probe.address();
          probe.close(() => resolve(port));
        });
      });
    const settings = { data_dir: join(data, 'data'), 'listen.client': `127.0.0.1:${await free()}` };
    let server = await homeserver(settings);
    const browser = await launch({ flags: MEET_FLAGS });
    try {
      const [ann, ben] = await Promise.all(['Ann', 'Ben'].map((name) => Guest.come(browser, server.url, name, { context: { locale: 'en-GB' } })));
      await ann.join('/standup');
      await ben.join('/standup');
      await Promise.all([ann.sees('Ben'), ben.sees('Ann')]);
      await server.close();
      await ann.at('meet-reconnecting').waitFor();
      await shot(ann, 'reconnecting');
      server = await homeserver(settings);
      await Promise.all([ann.inside(), ben.inside()]);
      await Promise.all([ann.sees('Ben'), ben.sees('Ann')]);
      await ann.says('Ann', 'host', true);
    } finally {
      await browser.close();
      await server.close();
      await rm(data, { recursive: true, force: true });
    }
  });
});
