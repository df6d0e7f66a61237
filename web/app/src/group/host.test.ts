// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { MatrixClient, MatrixEvent } from 'matrix-js-sdk';
import type { TokenKeeper } from '../auth/tokens.ts';
import type { MediaLoader } from '../matrix/media.ts';
import { announcement, LONGEST_MS, newRoomCall, ROOM_CALL, type RoomCall } from '../matrix/roomCall.ts';
import { resetStore, useApp } from '../store.ts';
import { GroupCalls } from './host.ts';
import type { RoomCallFrame } from './roomCall.ts';

// A busy machine is slow.
vi.setConfig({ testTimeout: 60_000 });
const until = (f: () => void) => vi.waitFor(f, { timeout: 30_000, interval: 5 });

const ME = '@me:hs';
const ROOM = '!r:hs';

let events: MatrixEvent[];
/** What lies before them, oldest page last. */
let older: MatrixEvent[][];
/** How many are in the meeting of a name; others do not exist. */
let people: Record<string, number>;
let sent: Record<string, unknown>[];
let groups: GroupCalls;
let ids: number;
let handlers: Record<string, (...all: unknown[]) => void>;
let muted: boolean;

function message(content: Record<string, unknown>, ago = 0): MatrixEvent {
  const id = `$${ids++}`;
  const ts = Date.now() - ago;
  return {
    getId: () => id,
    getRoomId: () => ROOM,
    getTxnId: () => undefined,
    getType: () => 'm.room.message',
    getSender: () => '@ben:hs',
    getTs: () => ts,
    getContent: () => content,
    getStateKey: () => undefined,
    isState: () => false,
    isRedacted: () => false,
    isDecryptionFailure: () => false,
    shouldAttemptDecryption: () => false,
    status: null,
  } as unknown as MatrixEvent;
}

const chatter = (n: number, ago = 0) => Array.from({ length: n }, () => message({ msgtype: 'm.text', body: 'hi' }, ago));
const open = () => groups.current as RoomCallFrame;
const call = (): RoomCall => newRoomCall(location.origin, true, true);

/** What the page in the frame tells. */
const joins = () => (open() as unknown as { events: { onJoined: () => void } }).events.onJoined();

beforeEach(() => {
  resetStore();
  [events, older, people, sent, ids, handlers, muted] = [[], [], {}, [], 0, {}, false];
  const room = {
    roomId: ROOM,
    name: 'Planning',
    hasEncryptionStateEvent: () => true,
    getCanonicalAlias: () => null,
    getMember: () => ({ rawDisplayName: 'Me Myself' }),
    getLiveTimeline: () => ({ getEvents: () => events }),
    currentState: { getStateEvents: () => ({}), maySendEvent: () => true },
  };
  const client = {
    on: (event: string, handler: (...all: never[]) => void) => void (handlers[event] = handler as never),
    getPushActionsForEvent: () => ({ notify: !muted }),
    off: () => {},
    getRoom: () => room,
    getSafeUserId: () => ME,
    getCrypto: () => ({}),
    scrollback: async () => void (events = [...(older.shift() ?? []), ...events]),
    sendMessage: async (_room: string, content: Record<string, unknown>) => void sent.push(content),
  };
  const keeper = {
    accessToken: 't',
    fetch: async (url: string) => {
      const name = url.split('/').at(-1)!;
      return new Response(JSON.stringify({ exists: name in people, participants: people[name] ?? 0, may_create: true }));
    },
  };
  vi.stubGlobal('fetch', async () => new Response(JSON.stringify({ element_call: '' })));
  groups = new GroupCalls(client as unknown as MatrixClient, {} as MediaLoader, keeper as unknown as TokenKeeper);
});
afterEach(() => {
  groups.stop();
  vi.unstubAllGlobals();
});

it('without Element Call our own page is offered', async () => {
  expect(await groups.offered()).toBe('meeting');
});

it('whoever begins a call goes straight in, and tells the room once in', async () => {
  await groups.meet(ROOM, false);
  const url = new URL(open().url);
  expect(url.pathname).toMatch(/^\/meet\/[a-z2-7]{26}$/);
  const said = new URLSearchParams(url.hash.slice(1));
  expect(Object.fromEntries(said)).toMatchObject({
    call: 'true', display_name: 'Me Myself', 'config.subject': '"Planning"', 'config.prejoinConfig.enabled': 'false', 'config.startWithVideoMuted': 'true', key: open().call.key,
  });
  expect(useApp.getState().group).toMatchObject({ roomId: ROOM, meeting: open().call.name, joined: false });
  expect(sent).toEqual([]);
  joins();
  await until(() => expect(sent).toHaveLength(1));
  expect(sent[0]![ROOM_CALL]).toEqual({ url: open().call.url, video: false });
});

it('a second click, and a click while another call is open, begins nothing', async () => {
  await Promise.all([groups.meet(ROOM, true), groups.meet(ROOM, true)]);
  const { name } = open().call;
  await groups.meet('!other:hs', true);
  expect(open().call.name).toBe(name);
});

it('a call that runs is joined, however much has been written since', async () => {
  const running = call();
  const ended = call();
  people[running.name] = 2;
  events = [message(announcement(ended)), ...chatter(40)];
  older = [chatter(100), [message(announcement(running)), ...chatter(99)]];
  await groups.meet(ROOM, true);
  expect(open().call).toEqual(running);
  expect(new URL(open().url).hash).toContain('config.prejoinConfig.enabled=true');
  joins();
  await new Promise((go) => setTimeout(go, 20));
  expect(sent).toEqual([]);
});

it('a call of yesterday, one that nobody is in, and one on another server are none', async () => {
  const [old, empty] = [call(), call()];
  people = { [old.name]: 3, [empty.name]: 0 };
  const foreign = message(announcement({ ...call(), url: 'https://other.example/meet/abc' }));
  foreign.getSender = () => '@cem:other.example';
  older = [[message(announcement(old), LONGEST_MS + 1)]];
  events = [message(announcement(empty)), foreign];
  await groups.meet(ROOM, true);
  expect([old.name, empty.name, 'abc']).not.toContain(open().call.name);
});

it('of two who begin at once the slower one comes to the quicker one', async () => {
  await groups.meet(ROOM, true);
  const own = open().call.name;
  const theirs = call();
  people[theirs.name] = 1;
  events = [message(announcement(theirs))];
  joins();
  await until(() => expect(open()?.call.name).toBe(theirs.name));
  expect(theirs.name).not.toBe(own);
  expect(sent).toEqual([]);
});

it('who is removed from the room is out of its call', async () => {
  await groups.meet(ROOM, true);
  handlers['Room.myMembership']!({ roomId: '!other:hs' }, 'leave');
  expect(groups.current).not.toBeNull();
  handlers['Room.myMembership']!({ roomId: ROOM }, 'leave');
  await until(() => expect(groups.current).toBeNull());
  expect(useApp.getState().group).toBeNull();
});

it('a call that begins elsewhere is told of once, with the way there', async () => {
  const theirs = call();
  const event = message(announcement(theirs));
  handlers['Room.timeline']!(event);
  handlers['Event.decrypted']!(event);
  handlers['Room.timeline']!(message(announcement(call()), 120_000));
  expect(useApp.getState().toasts.map((t) => t.words)).toEqual(['Me Myself started a video call in Planning.']);
  useApp.getState().toasts[0]!.action!.do();
  expect(open().call.name).toBe(theirs.name);
  // In a call one is not called.
  handlers['Room.timeline']!(message(announcement(call())));
  expect(useApp.getState().toasts).toHaveLength(1);
});

it('a call that begins in a muted room, or in the one that is looked at, needs no other word', () => {
  muted = true;
  handlers['Room.timeline']!(message(announcement(call())));
  muted = false;
  useApp.setState({ roomId: ROOM });
  handlers['Room.timeline']!(message(announcement(call())));
  expect(useApp.getState().toasts).toEqual([]);
});
