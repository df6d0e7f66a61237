// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Meeting, person } from '../jitsi/meeting.fixture.ts';
import { keepEarly } from './early.ts';
import { attach } from './widget.ts';

vi.setConfig({ testTimeout: 60_000 });

const CLIENT = 'https://element.example';

interface Message {
  api: string;
  requestId: string;
  action: string;
  widgetId: string;
  data: Record<string, unknown>;
  response?: Record<string, unknown>;
}

let sent: { message: Message; target: string }[];
let parent: Window;
let meeting: Meeting;
let detach: () => void;
let ids = 0;

const until = (f: () => unknown) => vi.waitFor(() => expect(f()).toBeTruthy(), { timeout: 30_000, interval: 5 });
const said = (action: string) => sent.filter(({ message }) => message.api === 'fromWidget' && message.action === action && !message.response).map(({ message }) => message);

function post(data: unknown, { origin = CLIENT, source = parent as Window | null } = {}) {
  window.dispatchEvent(new MessageEvent('message', { data, origin, source }));
}

/** Asks the widget as a client does and waits for its answer. */
async function ask(action: string, data: object = {}): Promise<unknown> {
  const requestId = `r${ids++}`;
  post({ api: 'toWidget', requestId, widgetId: 'w1', action, data });
  await until(() => sent.some(({ message }) => message.requestId === requestId && message.response));
  return sent.find(({ message }) => message.requestId === requestId)!.message.response;
}

/** Answers what the widget asks. */
function answer(request: Message, response: object) {
  post({ ...request, response });
}

beforeEach(() => {
  sent = [];
  parent = {
    postMessage(message: Message, target: string) {
      sent.push({ message, target });
      if (message.response || message.action === 'get_openid') return;
      const response = message.action === 'supported_api_versions' ? { supported_versions: ['0.0.1', '0.0.2', 'org.matrix.msc2871'] } : {};
      queueMicrotask(() => answer(message, response));
    },
  } as unknown as Window;
  vi.spyOn(window, 'parent', 'get').mockReturnValue(parent);
  vi.spyOn(console, 'log').mockImplementation(() => {});
  history.replaceState(null, '', `/meet/daily?widgetId=w1&parentUrl=${encodeURIComponent(CLIENT)}#room_id=${encodeURIComponent('!r:hs')}&display_name=Ann`);
  meeting = new Meeting();
  detach = attach(meeting);
});

afterEach(() => {
  detach();
  vi.restoreAllMocks();
});

it('asks for one capability', async () => {
  expect(await ask('capabilities')).toEqual({ capabilities: ['m.always_on_screen'] });
});

it('hands an OpenID token over when the client has one to give', async () => {
  expect(meeting.options).toMatchObject({ embedded: true, roomId: '!r:hs', displayName: 'Ann' });
  const token = meeting.options.openid!();
  await until(() => said('get_openid').length);
  answer(said('get_openid')[0]!, { state: 'allowed', access_token: 't', matrix_server_name: 'hs', token_type: 'Bearer', expires_in: 60 });
  expect(await token).toEqual({ access_token: 't', matrix_server_name: 'hs', token_type: 'Bearer', expires_in: 60 });

  const refused = meeting.options.openid!();
  await until(() => said('get_openid').length === 2);
  answer(said('get_openid')[1]!, { state: 'blocked' });
  await expect(refused).rejects.toThrow('declined');
});

it('joins, mutes, changes its view and hangs up as the client says, and tells what happens', async () => {
  meeting.snapshot.people = [person('ben', { name: 'Ben', userId: '@ben:hs' })];
  await ask('io.element.join', { audioInput: null, videoInput: 'Back' });
  expect(meeting.calls).toEqual([
    ['setMuted', 'audio', true],
    ['useDevice', 'videoinput', 'back'],
  ]);
  await until(() => said('io.element.participants').length);
  expect(said('io.element.participants')[0]!.data.participants).toEqual([
    { participantId: 'me', displayName: 'Ann', userId: undefined },
    { participantId: 'ben', displayName: 'Ben', userId: '@ben:hs' },
  ]);
  expect(said('set_always_on_screen').map((m) => m.data.value)).toEqual([true]);
  expect(said('io.element.join')).toHaveLength(1);

  expect(await ask('io.element.device_mute', { video_enabled: false })).toEqual({ audio_enabled: true, video_enabled: false });
  expect(await ask('io.element.device_mute', {})).toEqual({ audio_enabled: true, video_enabled: false });
  expect(said('io.element.device_mute').at(-1)!.data).toEqual({ audio_enabled: true, video_enabled: false });
  await ask('io.element.spotlight_layout');
  expect(meeting.snapshot.view).toBe('speaker');
  await ask('io.element.tile_layout');
  expect(meeting.snapshot.view).toBe('tile');

  await ask('im.vector.hangup');
  await until(() => said('io.element.close').length);
  expect(said('im.vector.hangup')).toHaveLength(1);
  expect(said('set_always_on_screen').map((m) => m.data.value)).toEqual([true, false]);
  meeting.refusal = 'No.';
  expect(await ask('im.vector.hangup')).toMatchObject({ error: { message: 'No.' } });
});

it('hears nobody but its client, each request once, and under its own id only', async () => {
  const hangup = (more: object = {}) => ({ api: 'toWidget', requestId: `r${ids++}`, widgetId: 'w1', action: 'im.vector.hangup', data: {}, ...more });
  post(hangup(), { origin: 'https://evil.example' });
  post(hangup(), { source: { postMessage() {} } as unknown as Window });
  post(hangup(), { source: null });
  post(hangup({ widgetId: 'w2' }));
  post(hangup({ requestId: 7 }));
  const openid = meeting.options.openid!();
  await until(() => said('get_openid').length);
  post({ ...said('get_openid')[0]!, response: { state: 'allowed', access_token: 'forged', matrix_server_name: 'evil' } }, { origin: 'https://evil.example' });
  answer(said('get_openid')[0]!, { state: 'allowed', access_token: 't', matrix_server_name: 'hs' });
  expect((await openid).access_token).toBe('t');
  expect(meeting.calls).toEqual([]);

  const once = hangup();
  post(once);
  post(once);
  post({ ...once });
  await until(() => meeting.calls.length);
  await ask('io.element.tile_layout');
  expect(meeting.calls).toEqual([['hangUp']]);
});

it('hears what its client said before its code was there', async () => {
  detach();
  keepEarly();
  post({ api: 'toWidget', requestId: 'early', widgetId: 'w1', action: 'io.element.spotlight_layout', data: {} });
  post({ api: 'toWidget', requestId: 'evil', widgetId: 'w1', action: 'im.vector.hangup', data: {} }, { origin: 'https://evil.example' });
  detach = attach(meeting);
  await until(() => sent.some(({ message }) => message.requestId === 'early' && message.response));
  expect(meeting.snapshot.view).toBe('speaker');
  expect(meeting.calls).toEqual([]);
});

it('speaks to nobody but its client', async () => {
  await ask('io.element.join', {});
  expect(new Set(sent.map(({ target }) => target))).toEqual(new Set([CLIENT]));
});

it('to the call of a room one comes as who is signed in here', () => {
  detach();
  history.replaceState(null, '', `/meet/abc?widgetId=w1&parentUrl=${encodeURIComponent(CLIENT)}#key=k&call=true&display_name=Ann`);
  meeting = new Meeting();
  detach = attach(meeting);
  expect(meeting.options).toMatchObject({ embedded: true, call: true, displayName: 'Ann' });
  expect(meeting.options.openid).toBeUndefined();
  expect(location.hash).toBe('#key=k&call=true&display_name=Ann');
});
