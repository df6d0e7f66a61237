// SPDX-License-Identifier: Apache-2.0
// A room's meeting as a widget: given to the room in our web client, shown by a client that is built on matrix-widget-api, and by Element
// Web's way through Jitsi's script with an OpenID token inside a JWT.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { bundle } from './bundle.mjs';
import { officialScript } from './jitsi/official.mjs';
import { freshName, launch } from './pages.mjs';
import { Account, PAGE, product } from './product.mjs';
import { homeserver } from './server.mjs';

const PATIENCE = Number(process.env.TRUNKBOARD_TEST_PATIENCE ?? 60_000);
const it_ = (name, f) => it(name, { timeout: 4 * PATIENCE }, f);

let site;
let server;
let browser;
let domain;
let ann;
let ben;
let eve;
let roomId;
let definitions; // the room's widgets, as the web client wrote them

before(async () => {
  const host = await bundle(fileURLToPath(new URL('./widget-host.mjs', import.meta.url)), fileURLToPath(new URL('../app/package.json', import.meta.url)));
  site = await product('client', {
    '/widget': PAGE(['/widget.js']),
    '/widget.js': ['text/javascript', host],
    '/element': PAGE(['/official.js']),
    '/official.js': ['text/javascript', await officialScript()],
  });
  server = await homeserver({
    'tls.mode': 'self-signed',
    'listen.https': '127.0.0.1:0',
    'listen.federation': '127.0.0.1:0',
    'turn.tls_listen': '127.0.0.1:0',
    'meetings.options': `embed ${site.url}`,
  });
  domain = `localhost:${server.addresses['listen.https'].split(':').pop()}`;
  browser = await launch({ flags: ['--ignore-certificate-errors', '--use-fake-device-for-media-stream=fps=10'] });
  [ann, ben, eve] = await Promise.all(['ann', 'ben', 'eve'].map((name) => Account.register(server.url, freshName(name))));
  ({ room_id: roomId } = await ann.api('POST', '/_matrix/client/v3/createRoom', { name: 'Planning', preset: 'private_chat', invite: [ben.userId] }));
  await ben.join(roomId);
});

after(async () => {
  await browser?.close();
  await server?.close();
  await site?.close();
});

/** A client with the room's widget in it. */
async function show(who, definition, more = {}) {
  const { page } = await browser.person(site.url, { context: { viewport: { width: 1000, height: 700 } } });
  page.setDefaultTimeout(PATIENCE);
  if (process.env.VERBOSE) page.on('console', (m) => console.log(who.name, m.text().slice(0, 300)));
  await page.goto(`${site.url}/widget`);
  await page.evaluate(([d, w]) => window.show(d, w), [definition, { roomId, userId: who.userId, displayName: who.name, token: await who.openid(), ...more }]);
  await page.waitForFunction(() => window.ready);
  return {
    page,
    ask: (action, data = {}) => page.evaluate(([a, d]) => window.api.transport.send(a, d), [action, data]),
    /** Waits until the newest message of that name has these data. */
    says: (name, test) => page.waitForFunction(([n, t]) => window.heard.filter((h) => h.name === n).some((h) => new Function('data', `return ${t}`)(h.data)), [name, test ?? 'true']),
    frame: () => page.frames().find((f) => f.url().startsWith(`https://${domain}`)),
    close: () => page.context().close(),
  };
}

it_('a room is given its widgets in the web client, by who may', async () => {
  const base = `https://${domain}`;
  const boss = await browser.person(base);
  boss.page.setDefaultTimeout(PATIENCE);
  await boss.signIn(ann.name, undefined, { unlock: null });
  await boss.at('recovery-saved').click();
  await boss.openRoom(roomId);
  await boss.at('room-menu').click();
  await boss.at('widget-open').click();
  for (const kind of ['custom', 'jitsi']) {
    await boss.at(`widget-${kind}`).click();
    await boss.page.waitForFunction((k) => document.querySelector(`[data-testid="widget-${k}"]:enabled:checked`), kind);
  }
  const state = await ben.api('GET', `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/state`);
  definitions = Object.fromEntries(state.filter((e) => e.type === 'im.vector.modular.widgets').map((e) => [e.content.type, { ...e.content, id: e.state_key }]));
  assert.deepEqual(Object.keys(definitions).sort(), ['m.custom', 'm.jitsi']);
  assert.equal(definitions['m.jitsi'].data.domain, domain);
  await boss.close();
});

it_('two members meet in the widget; it asks for one capability, obeys its client and tells it what happens', async () => {
  const a = await show(ann, definitions['m.custom']);
  assert.deepEqual(await a.page.evaluate(() => window.requested), ['m.always_on_screen']);
  await a.ask('io.element.join', { audioInput: null, videoInput: null });
  await a.says('io.element.join');
  await a.says('set_always_on_screen', 'data.value === true');
  // Who is granted nothing can meet all the same.
  const b = await show(ben, definitions['m.custom'], { grant: false });
  await b.ask('io.element.join');
  await a.says('io.element.participants', 'data.participants.length === 2');
  await b.says('io.element.participants', 'data.participants.length === 2');
  const people = await a.page.evaluate(() => window.heard.findLast((h) => h.name === 'io.element.participants').data.participants.map((p) => p.userId).sort());
  assert.deepEqual(people, [ann.userId, ben.userId].sort());

  assert.deepEqual(await a.ask('io.element.device_mute', { audio_enabled: true }), { audio_enabled: true, video_enabled: false });
  await a.says('io.element.device_mute', 'data.audio_enabled && !data.video_enabled');
  await a.ask('io.element.device_mute', { audio_enabled: false });
  await a.says('io.element.device_mute', '!data.audio_enabled && !data.video_enabled');
  await a.ask('io.element.spotlight_layout');
  await a.says('io.element.spotlight_layout');
  await a.ask('io.element.tile_layout');
  await a.says('io.element.tile_layout');
  await b.ask('im.vector.hangup');
  await b.says('im.vector.hangup');
  await b.says('io.element.close');
  await a.says('io.element.participants', 'data.participants.length === 1');
  await Promise.all([a.close(), b.close()]);
});

it_('who is not in the room, or does not say who it is, stays out', async () => {
  for (const [who, more] of [[eve, {}], [ben, { token: null }]]) {
    const stranger = await show(who, definitions['m.custom'], more);
    await stranger.ask('io.element.join').catch(() => {});
    await stranger.frame().getByTestId('meet-failed').waitFor();
    assert.equal(await stranger.page.evaluate(() => window.heard.filter((h) => h.name === 'io.element.join').length), 0);
    await stranger.close();
  }
});

it_('Element Web’s way: Jitsi’s script, an OpenID token in a JWT that anybody can sign', async () => {
  const discovery = await fetch(`${server.url}/.well-known/element/jitsi`);
  assert.deepEqual(await discovery.json(), { auth: 'openidtoken-jwt' });
  assert.equal(discovery.headers.get('access-control-allow-origin'), '*');

  assert.ok((await ann.api('GET', '/.well-known/matrix/client'))['io.element.jitsi']?.preferredDomain);

  const { data } = definitions['m.jitsi'];
  const jwt = async (who) => {
    const { access_token, matrix_server_name } = await who.openid();
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const body = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({
      iss: data.domain, sub: data.domain, aud: `https://${data.domain}`, room: '*',
      context: { matrix: { token: access_token, room_id: roomId, server_name: matrix_server_name }, user: { avatar: '', name: who.name } },
    })}`;
    return `${body}.${createHmac('sha256', 'notused').update(body).digest('base64url')}`;
  };
  const enter = async (who) => {
    const { page } = await browser.person(site.url);
    page.setDefaultTimeout(PATIENCE);
    await page.goto(`${site.url}/element`);
    await page.evaluate(([d, token]) => {
      window.heard = [];
      window.api = new window.JitsiMeetExternalAPI(d.domain, { roomName: d.conferenceId, jwt: token, parentNode: document.getElementById('root'), configOverwrite: { prejoinConfig: { enabled: false }, startWithAudioMuted: true } });
      for (const name of ['videoConferenceJoined', 'errorOccurred', 'participantJoined']) window.api.on(name, (more) => window.heard.push({ name, data: more }));
    }, [data, await jwt(who)]);
    return page;
  };
  const page = await enter(ann);
  await page.waitForFunction(() => window.heard.some((h) => h.name === 'videoConferenceJoined'));
  // Two kinds of widget, one meeting.
  const b = await show(ben, definitions['m.custom']);
  await b.ask('io.element.join');
  await page.waitForFunction(() => window.heard.some((h) => h.name === 'participantJoined'));
  const refused = await enter(eve);
  await refused.waitForFunction(() => window.heard.some((h) => h.name === 'errorOccurred' && h.data.error.isFatal));
  assert.equal(await refused.evaluate(() => window.heard.filter((h) => h.name === 'videoConferenceJoined').length), 0);
  await Promise.all([page.context().close(), refused.context().close(), b.close()]);
});
