// SPDX-License-Identifier: Apache-2.0
// The page that says whether calls work from this browser, on a healthy server and on ones that are not.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { after, before, it } from 'node:test';
import { PATIENCE, freshName, launch } from './pages.mjs';
import { homeserver } from './server.mjs';

let server;
let browser;
before(async () => {
  server = await homeserver({ 'turn.relay.addresses': '127.0.0.1', 'tls.mode': 'self-signed', 'listen.https': '127.0.0.1:0', 'listen.federation': '', 'turn.tls_listen': '127.0.0.1:0', 'turn.public_host': '127.0.0.1' });
  // The local authority is nobody's whom a browser trusts; turns: obeys this flag as https: does.
  browser = await launch({ flags: ['--ignore-certificate-errors'] });
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** Opens the page and waits until it has looked at everything: check -> verdict, and what it says on the whole. */
async function visit({ page }, url = server.url) {
  await page.goto(`${url}/doctor`);
  await page.getByTestId('doctor-again').and(page.locator(':enabled')).waitFor({ timeout: PATIENCE + 15_000 });
  const verdicts = await page.getByTestId('finding').evaluateAll((list) => list.map((e) => [e.dataset.check, e.dataset.verdict]));
  return { verdicts: Object.fromEntries(verdicts), summary: await page.getByTestId('doctor-summary').innerText() };
}

async function picture({ page }, name) {
  if (!process.env.TRUNKBOARD_SCREENS) return;
  mkdirSync(process.env.TRUNKBOARD_SCREENS, { recursive: true });
  await page.screenshot({ path: `${process.env.TRUNKBOARD_SCREENS}/${name}.png`, fullPage: true });
}

it('finds every way to the relay open, for a signed-in person, and opens microphone and camera', async () => {
  const ann = await browser.person(server.url);
  await ann.signUp(freshName('ann'));
  const { verdicts, summary } = await visit(ann);
  assert.equal(summary, 'Calls work from here.', JSON.stringify(verdicts));
  const ways = Object.keys(verdicts).filter((check) => check.startsWith('relay '));
  for (const kind of [/turn:.*udp/, /turn:.*tcp/, /turns:.*tcp/]) assert.ok(ways.some((w) => kind.test(w)), `no ${kind} among ${ways}`);
  assert.deepEqual(new Set(Object.values(verdicts)), new Set(['good']));
  await ann.at('doctor-devices').click();
  const level = ann.at('doctor-level');
  await level.waitFor();
  await ann.page.waitForFunction((meter) => meter.value > 0.01, await level.elementHandle());
  await picture(ann, 'doctor');
  assert.deepEqual(ann.problems, []);
});

it('tells a stranger nothing of the relay, and how to go on', async () => {
  const guest = await browser.person(server.url);
  const { verdicts, summary } = await visit(guest);
  assert.equal(verdicts.relay, 'skipped');
  assert.match(summary, /nothing stands in the way/);
  assert.match(await guest.page.getByRole('list', { name: 'Findings' }).innerText(), /Sign in first/);
});

it('names what is broken: closed ways, a wrong password, a server that is away', async () => {
  const ben = await browser.person(server.url, { context: { viewport: { width: 390, height: 844 } } });
  await ben.signUp(freshName('ben'));
  const relay = async (change) => {
    await ben.page.unroute('**/voip/turnServer');
    await ben.page.route('**/voip/turnServer', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: change(await response.json()) });
    });
  };
  await relay((r) => ({ ...r, uris: ['turn:127.0.0.1:9?transport=udp', 'turn:127.0.0.1:9?transport=tcp'] }));
  let found = await visit(ben);
  assert.equal(found.verdicts['relay turn:127.0.0.1:9?transport=tcp'], 'broken');
  assert.equal(found.verdicts['relay turn:127.0.0.1:9?transport=udp'], 'warning');
  assert.equal(found.summary, 'Calls will not work from here.');
  await picture(ben, 'doctor-broken-phone');

  await relay((r) => ({ ...r, uris: r.uris.filter((u) => /^turn:.*tcp/.test(u)), password: 'wrong' }));
  found = await visit(ben);
  const way = Object.keys(found.verdicts).find((check) => check.startsWith('relay '));
  assert.equal(found.verdicts[way], 'broken');

  await ben.page.route('**/_matrix/client/versions', (route) => route.abort());
  found = await visit(ben);
  assert.equal(found.verdicts.server, 'broken');
  assert.equal(found.summary, 'Calls will not work from here.');
});

it('is reached from the sign-in page, as meetings are', async () => {
  const ann = await browser.person(server.url);
  await ann.page.goto(server.url);
  for (const [link, page] of [['Do calls work here?', 'doctor-again'], ['Meet by a link', 'meet-start']]) {
    await ann.page.getByRole('link', { name: link }).click();
    await ann.at(page).waitFor({ timeout: PATIENCE });
    await ann.page.goBack();
  }
  const licences = await (await fetch(`${server.url}/licences.txt`)).text();
  for (const part of ['matrix-js-sdk', 'livekit-client', 'github.com/pion/', 'modernc.org/sqlite']) assert.ok(licences.includes(part), part);
});
