// SPDX-License-Identifier: Apache-2.0
// Attacks on what runs in a browser: the web client, the meeting page, the frames and widgets. Real Chromium; whatever of an attacker's
// runs sets `window.__pwned`. Each row of the catalogue has its test, and a table at the end says so.
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { freshName, launch } from './pages.mjs';
import { Account, PAGE, product } from './product.mjs';
import { homeserver } from './server.mjs';

const PATIENCE = Number(process.env.TRUNKBOARD_TEST_PATIENCE ?? 60_000);

const CATALOGUE = {
  W01: 'messages from another window or origin',
  W02: 'messages to whoever listens',
  W03: 'a widget takes more than it was given',
  W04: 'a widget speaks under the id of another',
  W05: 'a request is said again',
  W06: 'the page in a frame of a stranger',
  W07: 'HTML as a display name',
  W08: 'HTML as the name of a room or meeting',
  W09: 'HTML as a topic or subject',
  W10: 'an avatar that breaks out',
  W11: 'HTML as the name of a device',
  W12: 'HTML that mutates in formatted_body',
  W13: 'links that run',
  W14: 'tokens in addresses, histories and referrers',
  W15: 'open redirect after signing in',
  W16: 'a policy without unsafe-inline and eval',
  W17: 'a script inside an SVG',
  W18: 'prototype pollution from events and links',
  W19: 'rooms that are each other’s successors',
  W20: 'an upgrade that is none',
  W21: 'a server named by a link',
  W22: 'service workers',
  W23: 'the camera without having been asked',
  W24: 'names that turn around in the ring',
};
const tested = new Map();
const row = (id, f) => {
  tested.set(id, 'failed');
  it(`${id} ${CATALOGUE[id]}`, { timeout: 4 * PATIENCE }, async () => {
    await f();
    tested.set(id, 'held');
  });
};

const PWN = 'window.__pwned=1';
const HTML = `"'><img src=x onerror="${PWN}"><svg onload="${PWN}"></svg><script>${PWN}</script>`;

let trusted; // may frame meetings
let evil; // may not
let server;
let browser;
let victim; // at the web client
let victimId;
let mallory;
let roomId; // victim and mallory are in it
const asked = []; // addresses that the victim's browser asked for
const visits = []; // headers of requests that evil got

before(async () => {
  const frames = (more = '') => `<!doctype html><title>frames</title><div id="root"></div><script>
    window.heard = []; addEventListener('message', (e) => heard.push({ origin: e.origin, data: e.data }));
    window.put = (src, allow = '') => { const f = document.createElement('iframe'); f.allow = allow; f.style.cssText = 'width:800px;height:600px'; document.getElementById('root').append(f); f.src = src; };
  </script>${more}`;
  trusted = await product('trusted', { '/': frames() });
  evil = await product('evil', { '/': frames() });
  server = await homeserver({ 'meetings.options': `create anyone,embed ${trusted.url}` }, async (data) => {
    // Where Element Call would be, a widget that tries what it can.
    await mkdir(join(data, 'element-call'));
    await writeFile(join(data, 'element-call', 'index.html'), '<!doctype html><title>widget</title><script src="widget.js"></script>');
    await writeFile(join(data, 'element-call', 'widget.js'), `(${hostileWidget})();`);
  });
  browser = await launch({ flags: ['--use-fake-device-for-media-stream=fps=10'] });
  victim = await browser.person(server.url);
  victim.page.setDefaultTimeout(PATIENCE);
  victim.page.context().on('request', (r) => asked.push(r.url()));
  await victim.page.addInitScript(() => {
    window.__asked = 0;
    const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = (c) => (window.__asked++, real(c));
  });
  await victim.signUp(freshName('victim'));
  victimId = await victim.userId();
  mallory = await Account.register(server.url, freshName('mallory'));
  roomId = await roomWithVictim({ name: HTML, topic: HTML });
  await victim.openRoom(roomId);
});

after(async () => {
  await browser?.close();
  await server?.close();
  await Promise.all([trusted?.close(), evil?.close()]);
  console.log('\n| row | attack | |\n|---|---|---|');
  for (const [id, words] of Object.entries(CATALOGUE)) console.log(`| ${id} | ${words} | ${tested.get(id) ?? 'not tested'} |`);
});

/** A room of mallory's that the victim is in. */
async function roomWithVictim(more, direct = false) {
  const { room_id: id } = await mallory.api('POST', '/_matrix/client/v3/createRoom', { preset: 'private_chat', invite: [victimId], is_direct: direct, ...more });
  await victim.page.evaluate((room) => window.__trunkboard.client.joinRoom(room), id);
  return id;
}

/** Nothing of an attacker's ran in a page, and nothing of it stands there as more than text. */
async function clean(page) {
  for (const frame of page.frames()) {
    const found = await frame.evaluate(() => ({
      pwned: window.__pwned,
      polluted: {}.polluted,
      elements: [...document.querySelectorAll('[onerror],[onload],[onclick],[onmouseover],[srcdoc],img[src="x"],a[href^="javascript:" i],a[href^="data:" i],a[href^="vbscript:" i],math,base,object,embed')].map((e) => e.outerHTML.slice(0, 100)),
    }));
    assert.deepEqual(found, { pwned: undefined, polluted: undefined, elements: [] }, frame.url());
  }
}

const meetingUrl = (name, who, more = '') => `${server.url}/meet/${name}#config.prejoinConfig.enabled=false&userInfo.displayName=${encodeURIComponent(JSON.stringify(who))}${more}`;

/** Somebody in a meeting, by link. */
async function inMeeting(name, who, { more = '', init } = {}) {
  const person = await browser.person(server.url, { context: { viewport: { width: 900, height: 600 } } });
  person.page.setDefaultTimeout(PATIENCE);
  if (init) await person.page.addInitScript(init);
  await person.page.goto(meetingUrl(name, who, more));
  await person.page.getByTestId('meet-join').click(); // a plain link joins nobody by itself
  await person.page.waitForFunction(() => window.__meeting?.snapshot.phase === 'in');
  return person;
}

/** A page of trusted's or evil's with our page in a frame. */
async function framed(site, src, allow) {
  const { page } = await browser.person(site.url);
  page.setDefaultTimeout(PATIENCE);
  await page.goto(site.url);
  const answered = page.waitForEvent('framenavigated', { predicate: (f) => f.parentFrame() !== null && f.url() !== 'about:blank' });
  await page.evaluate(([s, a]) => window.put(s, a), [src, allow]);
  await answered;
  return page;
}

row('W01', async () => {
  const api = 'jitsi_meet_external_api_id=0';
  const page = await framed(trusted, meetingUrl('w01', 'Ann', `&${api}`), 'camera; microphone');
  const frame = page.frames().find((f) => f.url().startsWith(server.url));
  await frame.waitForFunction(() => window.__meeting?.snapshot.phase === 'in');
  // A second frame, of evil's, shoots at the first one under every scope, as program and as client.
  await page.evaluate((src) => window.put(src), evil.url);
  const shooter = await page.waitForSelector('iframe >> nth=1').then((e) => e.contentFrame());
  await shooter.waitForFunction(() => window.put);
  await shooter.evaluate(() => {
    const scope = 'jitsi_meet_external_api_0';
    const target = parent.frames[0];
    target.postMessage(JSON.stringify({ postis: true, scope, method: '__ready__', params: 'x' }), '*');
    target.postMessage(JSON.stringify({ postis: true, scope, method: 'message', params: { type: 'event', data: { name: 'video-hangup', data: [] } } }), '*');
    target.postMessage({ api: 'toWidget', requestId: 'r', widgetId: 'w', action: 'im.vector.hangup', data: {} }, '*');
  });
  // The page around is heard, after what evil said.
  await page.evaluate(() => frames[0].postMessage(JSON.stringify({ postis: true, scope: 'jitsi_meet_external_api_0', method: '__ready__', params: 'mine' }), '*'));
  await page.waitForFunction(() => window.heard.some((m) => typeof m.data === 'string' && m.data.includes('"mine"')));
  assert.equal(await frame.evaluate(() => window.__meeting.snapshot.phase), 'in');
  assert.deepEqual(await shooter.evaluate(() => window.heard), []);
  await page.context().close();
});

row('W02', async () => {
  // A page that says nothing hears nothing, and who poses as a client of another origin neither.
  const silent = await framed(trusted, meetingUrl('w02', 'Ann', '&jitsi_meet_external_api_id=0'), 'camera; microphone');
  await silent.frames().find((f) => f.url().startsWith(server.url)).waitForFunction(() => window.__meeting?.snapshot.phase === 'in');
  const posing = await framed(trusted, `${server.url}/meet/w02?widgetId=w&parentUrl=${encodeURIComponent('https://element.example/')}`, 'camera; microphone');
  await posing.frames().find((f) => f.url().startsWith(server.url)).waitForFunction(() => window.__meeting?.snapshot.options.embedded);
  for (const page of [silent, posing]) {
    assert.deepEqual(await page.evaluate(() => window.heard), []);
    await page.context().close();
  }
});

/** What runs where Element Call would: raw messages to the client around it, answers in `answers`. */
function hostileWidget() {
  const widgetId = new URLSearchParams(location.search).get('widgetId') ?? new URLSearchParams(location.hash.split('?')[1]).get('widgetId');
  window.answers = [];
  let n = 0;
  window.say = (action, data = {}, more = {}) => {
    const request = { api: 'fromWidget', requestId: `h${n++}`, widgetId, action, data, ...more };
    parent.postMessage(request, '*');
    return request.requestId;
  };
  addEventListener('message', ({ data }) => {
    if (data.api === 'fromWidget' && data.response) return window.answers.push(data);
    if (data.api !== 'toWidget') return;
    let response = {};
    if (data.action === 'supported_api_versions') response = { supported_versions: ['0.0.1', '0.0.2', 'org.matrix.msc2762', 'org.matrix.msc2871'] };
    if (data.action === 'capabilities') response = { capabilities: ['org.matrix.msc2762.timeline:*', 'org.matrix.msc2762.send.event:m.room.message', 'org.matrix.msc2762.receive.event:m.room.message', 'org.matrix.msc2762.send.state_event:m.room.power_levels', 'org.matrix.msc2931.navigate', 'org.matrix.msc3819.send.to_device:m.room_key', 'm.always_on_screen'] };
    if (data.action === 'notify_capabilities') window.approved = data.data.approved;
    parent.postMessage({ ...data, response }, '*');
  });
  addEventListener('load', () => window.say('content_loaded'));
}

let widget; // the frame of that widget in the victim's client
async function inWidget() {
  if (widget) return widget;
  await victim.at('group-open').and(victim.page.locator(':enabled')).click();
  widget = await victim.page.waitForSelector('[data-testid="group-frame"]').then((e) => e.contentFrame());
  await widget.waitForFunction(() => window.approved);
  return widget;
}

row('W03', async () => {
  const frame = await inWidget();
  assert.deepEqual(await frame.evaluate(() => window.approved), ['m.always_on_screen']);
  for (const [action, data] of [
    ['send_event', { type: 'm.room.message', content: { msgtype: 'm.text', body: 'forged' } }],
    ['send_event', { type: 'm.room.power_levels', state_key: '', content: {} }],
    ['org.matrix.msc2876.read_events', { type: 'm.room.message', limit: 10 }],
    ['org.matrix.msc2931.navigate', { uri: 'https://matrix.to/#/!x:y' }],
    ['send_to_device', { type: 'm.room_key', encrypted: false, messages: {} }],
  ]) {
    const answer = await frame.evaluate(async ([a, d]) => {
      const id = window.say(a, d);
      while (!window.answers.some((x) => x.requestId === id)) await new Promise((go) => setTimeout(go, 20));
      return window.answers.find((x) => x.requestId === id).response;
    }, [action, data]);
    assert.ok(answer.error, `${action}: ${JSON.stringify(answer)}`);
  }
  assert.ok(!(await victim.serverEvents(roomId)).some((e) => e.content.body === 'forged'));
});

row('W04', async () => {
  const frame = await inWidget();
  const seen = await frame.evaluate(async () => {
    const foreign = window.say('set_always_on_screen', { value: true }, { widgetId: 'another-widget' });
    const own = window.say('set_always_on_screen', { value: true });
    while (!window.answers.some((x) => x.requestId === own)) await new Promise((go) => setTimeout(go, 20));
    return window.answers.some((x) => x.requestId === foreign);
  });
  assert.equal(seen, false);
});

row('W05', async () => {
  const frame = await inWidget();
  const answers = await frame.evaluate(async () => {
    for (let i = 0; i < 3; i++) window.say('set_always_on_screen', { value: true }, { requestId: 'again' });
    const last = window.say('set_always_on_screen', { value: true });
    while (!window.answers.some((x) => x.requestId === last)) await new Promise((go) => setTimeout(go, 20));
    return window.answers.filter((x) => x.requestId === 'again').length;
  });
  assert.equal(answers, 1);
  await victim.page.getByTestId('group-leave').click();
  await victim.page.getByTestId('group-call').waitFor({ state: 'detached' });
});

row('W06', async () => {
  for (const [site, path, shown] of [[evil, '/', false], [evil, '/meet/x', false], [evil, '/doctor', false], [trusted, '/', false], [trusted, '/meet/x', true]]) {
    const page = await framed(site, server.url + path);
    const frame = page.frames().find((f) => f.parentFrame());
    assert.equal(frame.url().startsWith('chrome-error:'), !shown, `${path} in ${site.url}: ${frame.url()}`);
    await page.context().close();
  }
});

let meetingVictim; // sits in a meeting that mallory's guests come to
const meeting = async () => (meetingVictim ??= await inMeeting('hostile', 'Victim'));

row('W07', async () => {
  await mallory.api('PUT', `/_matrix/client/v3/profile/${encodeURIComponent(mallory.userId)}/displayname`, { displayname: HTML });
  await mallory.send(roomId, 'm.room.message', { msgtype: 'm.emote', body: 'greets' });
  await victim.sees('greets');
  await clean(victim.page);
  const sits = await meeting();
  const guest = await inMeeting('hostile', HTML);
  await sits.page.waitForFunction(() => window.__meeting.snapshot.people.length === 2);
  await sits.page.locator('[data-testid="tile"]').nth(1).waitFor();
  await guest.page.evaluate(() => window.__meeting.raiseHand(true));
  await sits.page.waitForFunction(() => window.__meeting.snapshot.people.some((p) => p.hand));
  await clean(sits.page);
  await clean(guest.page);
  await guest.close();
});

row('W08', async () => {
  assert.ok((await victim.at('room-title').innerText()).includes('<img'));
  await clean(victim.page);
  const { page } = await browser.person(server.url);
  await page.goto(`${server.url}/meet/${encodeURIComponent(HTML.replaceAll('/', ''))}`);
  await page.getByTestId('prejoin').waitFor();
  await clean(page);
  await page.context().close();
});

row('W09', async () => {
  const sits = await meeting();
  await sits.page.evaluate((text) => window.__meeting.setSubject(text), HTML);
  await sits.page.waitForFunction(() => window.__meeting.snapshot.subject.includes('<img'));
  await sits.page.getByText('<img src=x').first().waitFor();
  await clean(sits.page);
  await clean(victim.page); // the room's topic
});

row('W10', async () => {
  await mallory.api('PUT', `/_matrix/client/v3/profile/${encodeURIComponent(mallory.userId)}/avatar_url`, { avatar_url: `mxc://x/"onerror="${PWN}` }).catch((e) => assert.equal(e.status, 400));
  await mallory.state(roomId, 'm.room.avatar', '', { url: `javascript:${PWN}` });
  await mallory.send(roomId, 'm.room.message', { msgtype: 'm.image', body: HTML, url: `javascript:${PWN}//` });
  await mallory.send(roomId, 'm.room.message', { msgtype: 'm.text', body: 'avatar done' });
  await victim.sees('avatar done');
  await clean(victim.page);
  const sits = await meeting();
  for (const url of [`javascript:${PWN}`, `data:text/html,<script>${PWN}</script>`, `https://x/"onerror="${PWN}`, `mxc://x/"onerror="${PWN}`, `mxc://x/../../../../evil`]) {
    const guest = await inMeeting('hostile', 'Avatar', { more: `&userInfo.avatarURL=${encodeURIComponent(JSON.stringify(url))}` });
    await guest.page.evaluate((u) => window.__meeting.setAvatar(u).catch(() => {}), url);
    await sits.page.waitForFunction(() => window.__meeting.snapshot.people.some((p) => p.name === 'Avatar'));
    await clean(sits.page);
    await guest.page.evaluate(() => window.__meeting.hangUp());
    await sits.page.waitForFunction(() => !window.__meeting.snapshot.people.some((p) => p.name === 'Avatar'));
    await guest.close();
  }
});

row('W11', async () => {
  const init = `{ const html = ${JSON.stringify(HTML)}; const real = MediaDevices.prototype.enumerateDevices; MediaDevices.prototype.enumerateDevices = async function () { return (await real.call(this)).map((d) => ({ deviceId: d.deviceId, groupId: d.groupId, kind: d.kind, label: html, toJSON() { return this; } })); }; }`;
  const { page } = await browser.person(server.url);
  page.setDefaultTimeout(PATIENCE);
  await page.addInitScript(init);
  await page.goto(`${server.url}/meet/devices`);
  await page.getByTestId('prejoin').waitFor();
  await page.waitForFunction(() => document.body.textContent.includes('<img src=x'));
  await clean(page);
  await page.goto(`${server.url}/doctor`);
  await page.waitForFunction(() => document.body.textContent.includes('<img src=x') || document.querySelector('[data-testid="doctor-again"]:enabled'));
  await clean(page);
  await page.context().close();
});

row('W12', async () => {
  const corpus = [
    HTML,
    `<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=x onerror=${PWN}&gt;">`,
    `<svg></p><style><a id="</style><img src=x onerror=${PWN}>">`,
    `<form><math><mtext></form><form><mglyph><style></math><img src=x onerror=${PWN}>`,
    `<noscript><p title="</noscript><img src=x onerror=${PWN}>">`,
    `<iframe srcdoc="<script>parent.${PWN}</script>"></iframe><object data="javascript:${PWN}"></object><embed src="javascript:${PWN}">`,
    `<a href="java\nscript:${PWN}">x</a><a href="&#106;avascript:${PWN}">y</a><base href="//evil.example/">`,
    `<img src="x" onerror="${PWN}" style="position:fixed"><input autofocus onfocus="${PWN}"><details open ontoggle="${PWN}">`,
    `<template><script>${PWN}</script></template><svg><animate onbegin="${PWN}" attributeName=x dur=1s><use href="data:image/svg+xml,<svg id=x onload=${PWN}>#x">`,
  ];
  for (const html of corpus) await mallory.send(roomId, 'm.room.message', { msgtype: 'm.text', body: html, format: 'org.matrix.custom.html', formatted_body: html });
  await mallory.send(roomId, 'm.room.message', { msgtype: 'm.text', body: 'corpus done' });
  await victim.sees('corpus done');
  await clean(victim.page);
});

row('W13', async () => {
  const links = [`javascript:${PWN}`, `JaVaScRiPt:${PWN}`, `data:text/html,<script>${PWN}</script>`, `vbscript:x`, `https://ok.example/"onmouseover="${PWN}`, `https://javascript:${PWN}@evil.example/`];
  await mallory.send(roomId, 'm.room.message', { msgtype: 'm.text', body: links.join(' \n') });
  await mallory.send(roomId, 'm.room.message', { msgtype: 'm.text', body: 'links done' });
  await victim.sees('links done');
  await clean(victim.page);
  const sits = await meeting();
  const guest = await inMeeting('hostile', 'Links');
  await sits.page.evaluate(() => window.__meeting.openChat(true));
  await guest.page.evaluate((text) => window.__meeting.say(text), links.join(' \n'));
  await sits.page.locator('[data-testid="meet-messages"]', { hasText: 'vbscript:x' }).waitFor();
  await clean(sits.page);
  for (const page of [sits.page, victim.page]) {
    const schemes = await page.evaluate(() => [...document.querySelectorAll('a[href]')].map((a) => a.protocol));
    assert.ok(schemes.every((s) => s === 'https:' || s === 'http:'), schemes.join());
  }
  await guest.close();
});

row('W14', async () => {
  const token = await victim.page.evaluate(() => JSON.parse(localStorage.getItem('trunkboard.session')).accessToken);
  assert.ok(token.length > 20 && asked.length > 10);
  assert.deepEqual(asked.filter((url) => url.includes(token) || /access_token=(?!eyJ)/.test(url)), []);
  assert.ok(!(await victim.page.evaluate(() => location.href)).includes(token));
  // A token in a meeting's link is taken out of the address, and is in no entry of the history.
  const { page } = await browser.person(server.url);
  page.setDefaultTimeout(PATIENCE);
  for (const link of ['query?jwt=aaa.bbb.ccc', 'fragment#jwt=%22aaa.bbb.ccc%22&config.subject=%22S%22']) {
    await page.goto(`${server.url}/meet/tokens-${link}`);
    await page.getByTestId('prejoin').waitFor();
    assert.ok(!page.url().includes('aaa'), page.url());
    assert.equal(await page.evaluate(() => window.__meeting.snapshot.options.jwt), 'aaa.bbb.ccc');
    const session = await page.context().newCDPSession(page);
    const { entries } = await session.send('Page.getNavigationHistory');
    assert.ok(entries.every((e) => !e.url.includes('aaa.bbb')), JSON.stringify(entries.map((e) => e.url)));
  }
  await page.context().close();
  // A link in a message leads to a page that does not learn from where.
  await mallory.send(roomId, 'm.room.message', { msgtype: 'm.text', body: `see ${evil.url}/?landing` });
  await victim.sees('?landing');
  const popup = victim.page.context().waitForEvent('page');
  await victim.page.getByRole('link', { name: '?landing' }).last().click();
  const landed = await popup;
  await landed.waitForLoadState();
  assert.deepEqual(await landed.evaluate(() => [document.referrer, window.opener]), ['', null]);
  await landed.close();
});

row('W15', async () => {
  const other = await browser.person(server.url);
  other.page.setDefaultTimeout(PATIENCE);
  const went = [];
  other.page.on('framenavigated', (f) => went.push(f.url()));
  const to = encodeURIComponent(evil.url);
  const name = freshName('redirect');
  await Account.register(server.url, name);
  await other.page.goto(`${server.url}/?redirect=${to}&redirectUrl=${to}&returnTo=//evil.localhost&next=${to}&url=javascript:alert(1)&loginToken=x#/redirect/${to}`);
  await other.fillIn(name, 'correct horse battery staple');
  await other.ready();
  assert.ok(went.every((url) => url.startsWith(server.url) || url === 'about:blank'), went.join());
  await other.close();
});

row('W16', async () => {
  const sits = await meeting();
  for (const page of [victim.page, sits.page]) {
    const policy = (await page.request.get(page.url())).headers()['content-security-policy'];
    const scripts = /script-src ([^;]*)/.exec(policy)[1];
    assert.equal(scripts, "'self' 'wasm-unsafe-eval'");
    assert.ok(!/unsafe-inline|'unsafe-eval'|https?:|\*/.test(policy.replace(/frame-ancestors [^;]*/, '').replaceAll(/(http|ws):\/\/localhost:\d+/g, '')), policy);
    const ran = await page.evaluate(() => {
      const script = document.createElement('script');
      script.textContent = 'window.__inline = 1';
      document.body.append(script);
      const image = document.createElement('img');
      image.setAttribute('onerror', 'window.__inline = 2');
      image.src = '/no-such-file.png';
      document.body.append(image);
      image.dispatchEvent(new Event('error'));
      const style = document.createElement('div');
      style.innerHTML = '<p style="color: rgb(1, 2, 3)">x</p>';
      document.body.append(style);
      const styled = getComputedStyle(style.firstChild).color === 'rgb(1, 2, 3)';
      [script, image, style].forEach((e) => e.remove());
      let evaluated = true;
      try {
        new Function('return 1')();
      } catch {
        evaluated = false;
      }
      return { inline: window.__inline, evaluated, styled };
    });
    // Playwright evaluates over the debugger, where eval may be allowed; the page's own attempt is the script element.
    assert.equal(ran.inline, undefined);
    assert.equal(ran.styled, false);
  }
});

row('W17', async () => {
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" onload="${PWN}"><script>${PWN}</script><circle r="9"/></svg>`;
  const { content_uri: uri } = await mallory.api('POST', '/_matrix/media/v3/upload?filename=a.svg', svg, { 'Content-Type': 'image/svg+xml' });
  await mallory.api('PUT', `/_matrix/client/v3/profile/${encodeURIComponent(mallory.userId)}/avatar_url`, { avatar_url: uri });
  await mallory.send(roomId, 'm.room.message', { msgtype: 'm.image', body: 'vector', url: uri, info: { mimetype: 'image/svg+xml' } });
  await mallory.send(roomId, 'm.room.message', { msgtype: 'm.text', body: 'svg done' });
  await victim.sees('svg done');
  await clean(victim.page);
  // Opened by itself it is a file in a sandbox.
  const { page } = await browser.person(server.url);
  await page.setExtraHTTPHeaders({ Authorization: `Bearer ${mallory.token}` });
  const path = `/_matrix/client/v1/media/download/${uri.slice('mxc://'.length)}`;
  const answer = await page.request.get(server.url + path, { headers: { Authorization: `Bearer ${mallory.token}` } });
  assert.equal(answer.status(), 200);
  assert.match(answer.headers()['content-security-policy'], /^sandbox;.*script-src 'none'/);
  assert.match(answer.headers()['content-disposition'], /^attachment/);
  await page.goto(server.url + path).catch(() => {}); // becomes a download
  await clean(page);
  await page.context().close();
});

row('W18', async () => {
  await mallory.send(roomId, 'm.room.message', `{"msgtype":"m.text","body":"proto","__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"m.relates_to":{"__proto__":{"polluted":1}}}`);
  await mallory.state(roomId, 'org.example.proto', '__proto__', `{"__proto__":{"polluted":1}}`);
  await victim.sees('proto');
  await clean(victim.page);
  const guest = await inMeeting('hostile', 'Proto', { more: `&__proto__.polluted=1&config.__proto__.polluted=1&constructor.prototype.polluted=1&config=${encodeURIComponent('{"__proto__":{"polluted":1}}')}` });
  const sits = await meeting();
  await sits.page.waitForFunction(() => window.__meeting.snapshot.people.some((p) => p.name === 'Proto'));
  await clean(guest.page);
  await clean(sits.page);
  await guest.close();
});

row('W19', async () => {
  const a = await roomWithVictim({ name: 'loop a' });
  const b = await roomWithVictim({ name: 'loop b', creation_content: { predecessor: { room_id: a, event_id: '$x' } } });
  await mallory.state(a, 'm.room.tombstone', '', { body: 'moved', replacement_room: b });
  await mallory.state(b, 'm.room.tombstone', '', { body: 'moved', replacement_room: a });
  const self = await roomWithVictim({ name: 'loop self' });
  await mallory.state(self, 'm.room.tombstone', '', { body: 'moved', replacement_room: self });
  await victim.openRoom(self);
  await victim.openRoom(roomId);
  await victim.send('still alive');
  await victim.sees('still alive');
});

row('W20', async () => {
  const mine = await victim.page.evaluate(async () => (await window.__trunkboard.client.createRoom({ preset: 'private_chat', name: 'Ours' })).room_id);
  await victim.page.evaluate(([room, user]) => window.__trunkboard.client.invite(room, user), [mine, mallory.userId]);
  await mallory.join(mine);
  const fake = await roomWithVictim({ name: 'Ours', creation_content: { predecessor: { room_id: mine, event_id: '$x' } } });
  await assert.rejects(mallory.state(mine, 'm.room.tombstone', '', { body: 'moved', replacement_room: fake }), (e) => e.status === 403);
  for (const room of [fake, mine]) await victim.openRoom(room);
  await victim.openRoom(roomId);
});

row('W21', async () => {
  const other = await browser.person(server.url);
  const urls = [];
  other.page.context().on('request', (r) => urls.push(r.url()));
  const to = encodeURIComponent(evil.url);
  await other.page.goto(`${server.url}/?hs=${to}&hs_url=${to}&homeserver=${to}&baseUrl=${to}&server=${to}#/login?hs_url=${to}`);
  const answered = other.page.waitForResponse((r) => r.url().includes('/login') && r.request().method() === 'POST', { timeout: PATIENCE });
  await other.fillIn(freshName('nobody'), 'wrong');
  await answered;
  await other.page.goto(`${server.url}/meet/x?hs=${to}&url=${to}&service=${to}#config.hosts.domain=${to}&config.bosh=%22${to}%22&config.serviceUrl=%22${to}%22`);
  await other.page.getByTestId('prejoin').waitFor();
  const foreign = urls.filter((u) => !u.startsWith(server.url) && !u.startsWith(server.url.replace('http', 'ws')) && !/^(blob|data):/.test(u));
  assert.deepEqual(foreign, []);
  await other.close();
});

row('W22', async () => {
  const { content_uri: uri } = await mallory.api('POST', '/_matrix/media/v3/upload?filename=sw.js', `self.addEventListener('fetch', () => {});`, { 'Content-Type': 'text/javascript' });
  const media = uri.slice('mxc://'.length);
  const sits = await meeting();
  for (const page of [victim.page, sits.page]) {
    assert.equal(await page.evaluate(async () => (await navigator.serviceWorker.getRegistrations()).length), 0);
    for (const path of [`/_matrix/media/v3/download/${media}`, `/_matrix/client/v1/media/download/${media}`]) {
      assert.equal(await page.evaluate((p) => navigator.serviceWorker.register(p, { scope: '/' }).then(() => 'registered', () => 'refused'), path), 'refused');
    }
  }
});

row('W23', async () => {
  assert.equal(await victim.page.evaluate(() => window.__asked), 0, 'the client asked for a camera before any call');
  const headers = (await victim.page.request.get(server.url)).headers();
  assert.match(headers['permissions-policy'], /camera=\(self\), microphone=\(self\), display-capture=\(self\), geolocation=\(\)/);
  // A frame that was not lent the camera has none, and meets all the same.
  const page = await framed(trusted, meetingUrl('w23', 'Ann'));
  const frame = page.frames().find((f) => f.url().startsWith(server.url));
  await frame.waitForFunction(() => window.__meeting?.snapshot.phase === 'in');
  assert.equal(await frame.evaluate(() => navigator.mediaDevices.getUserMedia({ audio: true }).then(() => 'given', (e) => e.name)), 'NotAllowedError');
  await page.context().close();
});

row('W24', async () => {
  const room = await roomWithVictim({}, true);
  await mallory.api('PUT', `/_matrix/client/v3/profile/${encodeURIComponent(mallory.userId)}/displayname`, { displayname: '\u202enimdA\u202c \u200bYour\u2066 bank' });
  const { page } = await browser.person(trusted.url);
  await page.goto(trusted.url);
  const sdp = await page.evaluate(async () => {
    const pc = new RTCPeerConnection();
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    pc.addTrack(stream.getTracks()[0], stream);
    return (await pc.createOffer()).sdp;
  });
  await page.context().close();
  await mallory.send(room, 'm.call.invite', { call_id: 'ring', party_id: 'p', version: '1', lifetime: 60000, offer: { type: 'offer', sdp } });
  await victim.at('incoming').waitFor();
  const shown = await victim.page.locator('#incoming-name').innerText();
  assert.equal(shown, 'nimdA Your bank');
  assert.equal(await victim.at('incoming-id').innerText(), mallory.userId);
  await clean(victim.page);
  await victim.decline();
});

it('every answer has its headers, byte for byte', async () => {
  const client = {
    'content-security-policy':
      "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self' blob:; img-src 'self' blob: data:; media-src 'self' blob: mediastream:; font-src 'self'; worker-src 'self' blob:; manifest-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'self'; object-src 'none'",
    'cross-origin-opener-policy': 'same-origin',
    'permissions-policy': 'camera=(self), microphone=(self), display-capture=(self), geolocation=(), payment=(), usb=()',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  };
  const policy = client['content-security-policy'].replace("connect-src 'self' blob:", `connect-src 'self' blob: ${server.url} ${server.url.replace('http', 'ws')}`);
  const page = { ...client, 'content-security-policy': policy.replace("frame-src 'self'; frame-ancestors 'self'", `frame-src 'none'; frame-ancestors 'self' ${trusted.url}`) };
  const html = { 'cache-control': 'no-cache', 'content-type': 'text/html; charset=utf-8', vary: 'Accept-Encoding' };
  const script = { 'access-control-allow-origin': '*', 'cache-control': 'no-cache', 'content-type': 'text/javascript; charset=utf-8', 'cross-origin-resource-policy': 'cross-origin', vary: 'Accept-Encoding' };
  const cases = { '/': { ...client, ...html }, '/doctor': { ...client, ...html }, '/meet/x': { ...page, ...html }, '/Weekly': { ...page, ...html }, '/external_api.js': { ...client, ...script }, '/libs/external_api.min.js': { ...client, ...script } };
  const ordinary = ['date', 'transfer-encoding', 'etag', 'content-length', 'content-encoding', 'accept-ranges', 'connection', 'keep-alive', 'last-modified'];
  for (const [path, wanted] of Object.entries(cases)) {
    const headers = Object.fromEntries(Object.entries(Object.fromEntries((await fetch(server.url + path)).headers)).filter(([name]) => !ordinary.includes(name)));
    if (!('vary' in headers)) delete wanted.vary; // a page too small to be worth compressing
    assert.deepEqual(headers, wanted, path);
  }
});

it('every row of the catalogue has a test', () => {
  assert.deepEqual([...tested.keys()].sort(), Object.keys(CATALOGUE));
});
