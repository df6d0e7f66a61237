// SPDX-License-Identifier: Apache-2.0
// Every screen, light and dark, against the rules of axe-core (WCAG 2 A and AA), and the calls by keyboard alone.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, it } from 'node:test';
import { compareEmojis, introduce, launch } from './pages.mjs';
import { homeserver } from './server.mjs';

const require = createRequire(new URL('../app/package.json', import.meta.url));
const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

let server;
let browser;
before(async () => {
  server = await homeserver();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** What axe finds wrong on the page as it stands, one line each. */
async function violations({ page }) {
  // Colours fade in; contrast counts when they are there. An element that goes away takes its animation along: that is no error.
  await page.evaluate(() => Promise.allSettled(document.getAnimations().filter((a) => a.effect.getComputedTiming().iterations !== Infinity).map((a) => a.finished)));
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { violations: found } = await window.axe.run();
    return found.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target.join(' ')}`));
  });
}

for (const colorScheme of ['light', 'dark']) {
  it(`no screen breaks the accessibility rules, ${colorScheme}`, async () => {
    const context = { colorScheme };
    const [ann, ben] = [await browser.person(server.url, { context }), await browser.person(server.url, { context })];
    const found = {};
    const check = async (screen, client) => {
      const list = await violations(client);
      if (list.length) found[screen] = list;
    };
    await ann.page.goto(server.url);
    await ann.at('auth-submit').waitFor();
    await check('sign in', ann);
    await ann.at('auth-forgot').click();
    await ann.at('auth-email').waitFor();
    await check('forgotten password', ann);
    await ann.page.goto(`${server.url}/doctor`);
    await ann.page.getByTestId('doctor-again').and(ann.page.locator(':enabled')).waitFor();
    await check('doctor', ann);
    await ann.page.goto(server.url);
    await introduce(ann, ben);
    await ann.send('hello');
    await ben.sees('hello');
    await check('chat', ann);
    await ann.at('user-menu').click();
    await ann.at('open-devices').click();
    await check('devices', ann);
    await ann.page.keyboard.press('Escape');
    await ann.at('new-chat').click();
    await check('new chat', ann);
    await ann.page.keyboard.press('Escape');
    await ann.at('room-lock').click();
    await check('person', ann);
    await ann.page.keyboard.press('Escape');
    await ann.askToVerify();
    await ben.at('verification-asked').waitFor();
    await check('asked to verify', ben);
    await ben.at('verification-accept').click();
    await ann.emojis();
    await check('emojis', ann);
    await compareEmojis(ann, ben);
    await ann.at('user-menu').click();
    await ann.at('open-security').click();
    await ann.at('device').waitFor();
    await check('encryption and devices', ann);
    await ann.at('recovery-renew').click();
    await ann.at('recovery-key').waitFor();
    await check('recovery key', ann);
    await ann.at('recovery-later').click();
    await check('a key that is not saved', ann);
    const phone = await browser.person(server.url, { context });
    await phone.signIn(ann.name, undefined, { unlock: null });
    await check('confirm a device', phone);
    await phone.at('confirm-key').click();
    await check('enter the recovery key', phone);
    await phone.close();
    await ann.call({ video: true });
    await check('ringing', ann);
    await ben.at('incoming').waitFor();
    await check('incoming', ben);
    await ben.accept({ video: false });
    await Promise.all([ann.phase('connected'), ben.phase('connected')]);
    await ann.at('call-devices').click();
    await check('call with voice', ann);
    await ben.at('call-quality').click();
    await check('call with picture', ben);
    await ben.hangUp();
    await ann.noCall();
    await ann.tile('ended');
    await check('call tile', ann);
    await ann.at('open-calls').click();
    await ann.page.locator('[data-testid="calls"][data-state="ready"]').waitFor();
    await ann.at('calls-row').waitFor();
    await check('calls', ann);
    await Promise.all([ann.close(), ben.close()]);
    assert.deepEqual(found, {});
  });
}

it('a call is answered, muted and ended with the keyboard', async () => {
  const [ann, ben] = [await browser.person(server.url), await browser.person(server.url)];
  await introduce(ann, ben);
  await ben.at('composer').pressSequentially('half a sent');
  await ann.call({ video: true });
  await ben.at('incoming').waitFor();
  // The keys of somebody who was typing do nothing to the call.
  for (const key of ['e', 'n', 'c', 'e', ' ', 'Enter', 'Escape']) await ben.page.keyboard.press(key);
  assert.equal(await ben.at('incoming').count(), 1);
  const focus = () => ben.page.evaluate(() => document.activeElement?.getAttribute('data-testid'));
  for (let i = 0; i < 5 && (await focus()) !== 'incoming-accept'; i++) await ben.page.keyboard.press('Tab');
  assert.equal(await focus(), 'incoming-accept');
  await ben.page.keyboard.press('Enter');
  await Promise.all([ann.phase('connected'), ben.phase('connected')]);
  await ben.page.keyboard.press('m');
  await ann.page.getByText('is muted').waitFor();
  for (let i = 0; i < 12 && (await focus()) !== 'call-hangup'; i++) await ben.page.keyboard.press('Tab');
  await ben.page.keyboard.press('Enter');
  await Promise.all([ann.noCall(), ben.noCall()]);
  assert.equal(await ben.at('composer').inputValue(), 'half a sent');
  await Promise.all([ann.close(), ben.close()]);
});
