// SPDX-License-Identifier: Apache-2.0
// Programs that were written for Jitsi, against our page: Jitsi's own IFrame script and React SDK, unmodified, and our script under
// the same name. Each drives the whole of a meeting with somebody else in it, and a table says what came of it.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { officialScript, reactSdk } from './jitsi/official.mjs';
import { launch } from './pages.mjs';
import { PAGE, product } from './product.mjs';
import { homeserver } from './server.mjs';

/** Browsers with video on a busy machine are slow. */
const PATIENCE = Number(process.env.TRUNKBOARD_TEST_PATIENCE ?? 60_000);

let site; // the product
let server;
let browser;
let domain; // of the meetings
const table = [];

before(async () => {
  const [official, sdk] = await Promise.all([officialScript(), reactSdk()]);
  const pages = {
    '/official': PAGE(['/official.js']),
    '/official.js': ['text/javascript', official],
    '/sdk': PAGE(['/sdk.js']),
    '/sdk.js': ['text/javascript', sdk],
  };
  site = await product('product', pages);
  server = await homeserver({
    'tls.mode': 'self-signed',
    'listen.https': '127.0.0.1:0',
    'listen.federation': '127.0.0.1:0',
    'turn.tls_listen': '127.0.0.1:0',
    'meetings.options': `create anyone,embed ${site.url}`,
  });
  domain = `localhost:${server.addresses['listen.https'].split(':').pop()}`;
  pages['/ours'] = PAGE([`https://${domain}/libs/external_api.min.js`]);
  browser = await launch({ flags: ['--ignore-certificate-errors', '--use-fake-device-for-media-stream=fps=10'] });
});

after(async () => {
  await browser?.close();
  await server?.close();
  await site?.close();
  if (!table.length) return;
  const drivers = [...new Set(table.map((r) => r.driver))];
  const steps = [...new Set(table.map((r) => r.step))];
  console.log(`\n| | ${drivers.join(' | ')} |\n|---|${drivers.map(() => '---').join('|')}|`);
  for (const step of steps) console.log(`| ${step} | ${drivers.map((driver) => table.find((r) => r.driver === driver && r.step === step)?.ms ?? 'failed').join(' | ')} |`);
});

/** A page with a program in it: `heard` are the events that its listeners got. */
class Program {
  constructor(page) {
    this.page = page;
    this.at = {};
  }

  static async open(path, start, options) {
    const person = await browser.person(site.url, { settings: {}, context: { viewport: { width: 1000, height: 700 } } });
    const page = person.page;
    if (process.env.VERBOSE) page.on('console', (m) => console.log('product', m.text().slice(0, 300)));
    page.setDefaultTimeout(PATIENCE);
    await page.goto(site.url + path);
    await page.evaluate(start, options);
    return new Program(page);
  }

  /** Waits for the next event of a name, or one with these fields. */
  async hears(name, fields = {}) {
    const from = this.at[name] ?? 0;
    const handle = await this.page.waitForFunction(
      ([wanted, some, start]) => {
        const list = (window.heard ?? []).filter((e) => e.name === wanted);
        const at = list.findIndex((e, i) => i >= start && Object.entries(some).every(([key, value]) => JSON.stringify(e.data?.[key]) === JSON.stringify(value)));
        return at >= 0 && { at, data: list[at].data };
      },
      [name, fields, from],
    );
    const { at, data } = await handle.jsonValue();
    this.at[name] = at + 1;
    return data;
  }

  command(...args) {
    return this.page.evaluate((all) => window.api.executeCommand(...all), args);
  }

  ask(method, ...args) {
    return this.page.evaluate(([name, all]) => window.api[name](...all), [method, args]);
  }

  /** Waits until a question has this answer. */
  async answers(method, wanted) {
    await this.page.waitForFunction(async ([name, want]) => (await window.api[name]()) === want, [method, wanted]);
  }
}

/** Somebody who came by the link. */
async function guest(room, name) {
  const person = await browser.person(`https://${domain}`, { context: { viewport: { width: 900, height: 600 } } });
  person.page.setDefaultTimeout(PATIENCE);
  if (process.env.VERBOSE) person.page.on('console', (m) => console.log(name, m.text().slice(0, 300)));
  await person.page.goto(`https://${domain}/${room}#userInfo.displayName=%22${name}%22`);
  await person.page.getByTestId('meet-join').click();
  await person.page.waitForFunction(() => window.__meeting?.snapshot.phase === 'in');
  person.name = name;
  return person;
}

/** What a page's own state says. */
const state = (person, f, arg) => person.page.waitForFunction(f, arg);

function startApi({ domain, options }) {
  const api = new window.JitsiMeetExternalAPI(domain, { ...options, parentNode: document.getElementById('root'), onload: () => (window.loaded = true) });
  window.api = api;
  window.heard = [];
  for (const name of api.getSupportedEvents()) api.on(name, (data) => window.heard.push({ name, data }));
}

function startSdk({ domain, options }) {
  window.heard = [];
  window.mount({
    domain,
    ...options,
    onApiReady: (api) => {
      window.api = api;
      for (const name of api.getSupportedEvents()) api.on(name, (data) => window.heard.push({ name, data }));
    },
    onReadyToClose: () => (window.saidGoodbye = true),
  });
}

for (const [driver, path, start] of [
  ['Jitsi’s script', '/official', startApi],
  ['Jitsi’s React SDK', '/sdk', startSdk],
  ['our script', '/ours', startApi],
]) {
  describe(driver, () => {
    const room = `Weekly-${driver.replace(/\W/g, '')}`;
    let program;
    let ben;
    let benId;
    let me;

    const step = (name, f) =>
      it(name, { timeout: 4 * PATIENCE }, async () => {
        const began = Date.now();
        await f();
        table.push({ driver, step: name, ms: `${Date.now() - began} ms` });
      });

    after(async () => {
      await ben?.close();
      await program?.page.context().close();
    });

    step('joined', async () => {
      program = await Program.open(path, start, {
        domain,
        options: {
          roomName: room,
          lang: 'en',
          configOverwrite: { prejoinConfig: { enabled: false }, startWithAudioMuted: false, buttonsWithNotifyClick: ['raisehand', { key: 'chat', preventExecution: false }], apiLogLevels: ['warn', 'error'] },
          userInfo: { displayName: 'Ann <b>', email: 'ann@example.org' },
        },
      });
      await program.hears('browserSupport', { supported: true });
      const joined = await program.hears('videoConferenceJoined', { displayName: 'Ann <b>' });
      me = joined.id;
      assert.equal(joined.roomName, room.toLowerCase());
      await program.hears('participantRoleChanged', { id: me, role: 'moderator' });
    });

    step('participants', async () => {
      ben = await guest(room, 'Ben');
      benId = (await program.hears('participantJoined', { displayName: 'Ben' })).id;
      const people = await program.ask('getParticipantsInfo');
      assert.deepEqual(people.map((p) => p.displayName).sort(), ['Ann <b>', 'Ben']);
      assert.equal(await program.ask('getNumberOfParticipants'), 2);
      assert.equal(await program.ask('getDisplayName', benId), 'Ben');
    });

    step('mute by command', async () => {
      for (const [command, event, question, kind] of [['toggleAudio', 'audioMuteStatusChanged', 'isAudioMuted', 'audio'], ['toggleVideo', 'videoMuteStatusChanged', 'isVideoMuted', 'video']]) {
        await program.answers(question, false);
        for (const muted of [true, false]) {
          await program.command(command);
          await program.hears(event, { muted });
          await program.answers(question, muted);
          await state(ben, ([id, k, m]) => window.__meeting.snapshot.people.find((p) => p.id === id)?.muted[k] === m, [me, kind, muted]);
        }
      }
    });

    step('mute of others', async () => {
      await program.command('muteRemoteParticipant', benId, 'audio');
      await program.hears('participantMuted', { id: benId, isMuted: true, mediaType: 'audio' });
      await state(ben, () => window.__meeting.snapshot.me.muted.audio);
      await ben.page.evaluate(() => window.__meeting.setMuted('audio', false));
      await program.hears('participantMuted', { id: benId, isMuted: false, mediaType: 'audio' });
      await program.command('muteEveryone', 'video');
      await program.hears('participantMuted', { id: benId, isMuted: true, mediaType: 'video' });
    });

    step('display name', async () => {
      await program.command('displayName', 'Ann Lee');
      await program.hears('displayNameChange', { id: me, displayname: 'Ann Lee' });
      await state(ben, (id) => window.__meeting.snapshot.people.find((p) => p.id === id)?.name === 'Ann Lee', me);
      await ben.page.evaluate(() => window.__meeting.setName('Benjamin'));
      await program.hears('displayNameChange', { id: benId, displayname: 'Benjamin' });
    });

    step('subject', async () => {
      await program.command('subject', 'The week');
      await program.hears('subjectChange', { subject: 'The week' });
      await state(ben, () => window.__meeting.snapshot.subject === 'The week');
    });

    step('password and lobby', async () => {
      await program.command('password', 'open sesame');
      await state(ben, () => window.__meeting.snapshot.password === true);
      await program.command('password', '');
      await state(ben, () => window.__meeting.snapshot.password === false);
      await program.command('toggleLobby', true);
      await state(ben, () => window.__meeting.snapshot.lobby === true);
      const cem = await browser.person(`https://${domain}`);
      cem.page.setDefaultTimeout(PATIENCE);
      await cem.page.goto(`https://${domain}/${room}#userInfo.displayName=%22Cem%22`);
      await cem.page.getByTestId('meet-join').click();
      const { participant } = await program.hears('knockingParticipant');
      assert.equal(participant.name, 'Cem');
      await program.command('answerKnockingParticipant', participant.id, true);
      const { id } = await program.hears('participantJoined', { displayName: 'Cem' });
      await program.command('toggleLobby', false);
      await state(ben, () => window.__meeting.snapshot.lobby === false);
      await cem.page.evaluate(() => window.__meeting.hangUp());
      await program.hears('participantLeft', { id });
      await cem.close();
    });

    step('tile view', async () => {
      await program.command('setTileView', false);
      await program.hears('tileViewChanged', { enabled: false });
      await program.command('toggleTileView');
      await program.hears('tileViewChanged', { enabled: true });
    });

    step('raised hands', async () => {
      await program.command('toggleRaiseHand');
      assert.ok((await program.hears('raiseHandUpdated', { id: me })).handRaised > 0);
      await program.command('toggleRaiseHand');
      await program.hears('raiseHandUpdated', { id: me, handRaised: 0 });
    });

    step('chat', async () => {
      await program.command('sendChatMessage', 'hello <script>alert(1)</script>');
      await program.hears('outgoingMessage', { message: 'hello <script>alert(1)</script>' });
      await state(ben, () => window.__meeting.snapshot.messages.some((m) => m.text === 'hello <script>alert(1)</script>'));
      await ben.page.evaluate(() => window.__meeting.say('good morning'));
      const message = await program.hears('incomingMessage', { message: 'good morning' });
      assert.equal(message.privateMessage, false);
      await program.command('toggleChat');
      await program.hears('chatUpdated', { isOpen: true });
      await program.command('toggleChat');
      await program.hears('chatUpdated', { isOpen: false });
    });

    step('screen share', async () => {
      await program.command('toggleShareScreen');
      await program.hears('screenSharingStatusChanged', { on: true });
      await state(ben, (id) => window.__meeting.snapshot.people.find((p) => p.id === id)?.sharing, me);
      assert.deepEqual((await program.ask('getContentSharingParticipants')).sharingParticipantIds, [me]);
      await program.command('toggleShareScreen');
      await program.hears('screenSharingStatusChanged', { on: false });
    });

    step('devices and questions', async () => {
      const { audioInput, videoInput } = await program.ask('getAvailableDevices');
      assert.ok(audioInput.length > 0 && videoInput.length > 0);
      assert.equal(await program.ask('isAudioAvailable'), true);
      assert.equal(await program.ask('isSharingScreen'), false);
      assert.equal((await program.ask('getRoomsInfo')).rooms[0].participants.length, 2);
      const refused = await program.page.evaluate(() => window.api.invite([{ type: 'phone', number: '1' }]).then(() => 'resolved', () => 'rejected'));
      assert.equal(refused, 'rejected');
      await program.command('setFollowMe', true);
      await program.hears('log', { logLevel: 'warn' });
    });

    step('kick', async () => {
      await program.command('kickParticipant', benId);
      const { kicked } = await program.hears('participantKickedOut');
      assert.equal(kicked.id, benId);
      await program.hears('participantLeft', { id: benId });
      await state(ben, () => window.__meeting.snapshot.phase === 'kicked');
    });

    step('hang up', async () => {
      await program.command('hangup');
      await program.hears('videoConferenceLeft', { roomName: room.toLowerCase() });
      await program.hears('readyToClose');
      if (path === '/sdk') await program.page.waitForFunction(() => window.saidGoodbye === true);
      await program.ask('dispose');
      assert.equal(await program.page.locator('iframe').count(), 0);
    });
  });
}
