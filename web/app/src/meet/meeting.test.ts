// SPDX-License-Identifier: Apache-2.0
// The phases of a meeting against a server and a media session of the test's own.
import { describe, expect, it, vi } from 'vitest';
import { type Admission, type Entry, type JoinRequest, MeetApi, Refusal } from './api.ts';
import type { MeetingEvent, Options, Person } from './control.ts';
import type { Listener, Media, Start } from './media.ts';
import { Meeting } from './meeting.ts';
import { wordsFor } from './words.ts';

const options: Options = { name: 'weekly', displayName: 'Ann', prejoin: true, startMuted: { audio: true, video: true }, audioOnly: false, embedded: false };
const entry: Entry = { session: 'secret', room_id: '!r:x', user_id: '@guest-1:x', display_name: 'Ann', identity: 'me', host: true, subject: '', e2ee: false, media: { url: 'ws://x', token: 't' } };
const metadata = (change = {}) => JSON.stringify({ v: 1, subject: '', hosts: ['me'], lobby: false, password: false, knocking: 0, e2ee: false, may_unmute: { audio: true, video: true }, ...change });
const me: Person = { id: 'me', name: 'Ann', local: true, host: true, muted: { audio: true, video: true }, sharing: false, speaking: false, quality: 'good' };

/** A session that does as the test says. */
class Session {
  static all: Session[] = [];
  crowd: Person[] = [me];
  closed = false;
  metadata = metadata();
  me = 'me';
  constructor(
    readonly listener: Listener,
    readonly start: Start,
  ) {
    Session.all.push(this);
  }
  async connect() {}
  async publish() {}
  async close() {
    this.closed = true;
  }
  people(hosts: Set<string>) {
    return this.crowd.map((p) => ({ ...p, host: hosts.has(p.id) }));
  }
  pictures() {
    return {};
  }
  setMuted = vi.fn(async (kind: 'audio' | 'video', muted: boolean) => {
    this.crowd = this.crowd.map((p) => (p.local ? { ...p, muted: { ...p.muted, [kind]: muted } } : p));
  });
  share = vi.fn(async () => {});
}

function make(answers: (Admission | Refusal)[], change: Partial<Options> = {}) {
  Session.all = [];
  const asked: JoinRequest[] = [];
  const memory = new Map<string, string>();
  const api = Object.assign(new MeetApi('weekly'), {
    info: async () => ({}),
    join: async (request: JoinRequest) => {
      asked.push(request);
      const answer = answers.length > 1 ? answers.shift()! : answers[0]!;
      if (answer instanceof Refusal) throw answer;
      return answer;
    },
    leave: vi.fn(async () => ({})),
    host: vi.fn(async () => ({})),
  });
  const build = () =>
    new Meeting({ ...options, ...change }, {
      api: () => api,
      media: async () => ({ Media: Session as unknown as new (listener: Listener, start: Start) => Media }),
      words: () => wordsFor('en'),
      memory: { getItem: (k) => memory.get(k) ?? null, setItem: (k, v) => void memory.set(k, v), removeItem: (k) => void memory.delete(k) },
      key: { get: () => undefined, set: () => {} },
      relayOnly: false,
      small: true,
    });
  const meeting = build();
  const events: MeetingEvent[] = [];
  meeting.subscribe((e) => events.push(e));
  return { meeting, events, asked, api, memory, build };
}

const phases = (events: MeetingEvent[]) => events.flatMap((e) => (e.type === 'phase' ? [e.phase] : []));

describe('joining', () => {
  it('leads in, and tells so', async () => {
    const { meeting, events, asked } = make([{ entry }]);
    await meeting.join();
    expect(phases(events)).toEqual(['joining', 'in']);
    expect(events).toContainEqual({ type: 'joined', person: me });
    expect(asked[0]).toEqual({ display_name: 'Ann', session: undefined });
    expect(meeting.snapshot.me?.host).toBe(true);
  });
  it('asks for a password, as often as it is wrong', async () => {
    const wrong = new Refusal(401, 'IO_TRUNKBOARD_PASSWORD', 'no');
    const { meeting, events, asked } = make([wrong, wrong, { entry }]);
    await meeting.join();
    expect(meeting.snapshot.problem).toBeUndefined();
    await meeting.givePassword('sesame');
    expect(meeting.snapshot.problem?.text).toMatch(/not right/);
    await meeting.givePassword('open sesame');
    expect(phases(events)).toEqual(['joining', 'password', 'joining', 'password', 'joining', 'in']);
    expect(asked.map((a) => a.password)).toEqual([undefined, 'sesame', 'open sesame']);
  });
  it('waits in the lobby until somebody opens, also over a server that is away', async () => {
    const { meeting, events, api } = make([{ waiting: true, session: 'secret' }]);
    const waits = [new Refusal(0, 'UNREACHABLE', ''), { waiting: true as const, session: 'secret' }, { entry }];
    Object.assign(api, {
      wait: async () => {
        const next = waits.shift()!;
        if (next instanceof Refusal) throw next;
        return next;
      },
    });
    await meeting.join();
    expect(phases(events)).toEqual(['joining', 'lobby', 'in']);
  });
  it.each([
    ['IO_TRUNKBOARD_SIGN_IN', 403, /account/],
    ['IO_TRUNKBOARD_JWT', 403, /invitation/],
    ['M_FORBIDDEN', 403, /may not/],
    ['UNREACHABLE', 0, /reached/],
    ['MEDIA', 0, /no way for sound/],
    ['IO_TRUNKBOARD_FULL', 403, /full/],
    ['M_NOT_FOUND', 404, /no such meeting/],
    ['M_LIMIT_EXCEEDED', 429, /too often/],
    ['M_UNKNOWN', 503, /has a problem/],
  ])('that fails with %s says why', async (code, status, text) => {
    const { meeting, events, memory } = make([new Refusal(status, code, 'x')]);
    await meeting.join();
    expect(meeting.snapshot.phase).toBe('failed');
    expect(meeting.snapshot.problem?.text).toMatch(text);
    expect(events.some((e) => e.type === 'error' && e.fatal)).toBe(true);
    expect(memory.size).toBe(0);
  });
});

describe('in a meeting', () => {
  it('its session survives a reload of the tab, and nothing of it a hang-up', async () => {
    const { meeting, memory, build, asked, events, api } = make([{ entry }]);
    await meeting.join();
    const next = build();
    expect(next.wasIn).toBe(true);
    await next.resume();
    expect(asked[1]!.session).toBe('secret');
    await meeting.hangUp();
    expect(memory.size).toBe(0);
    expect(build().wasIn).toBe(false);
    expect(api.leave).toHaveBeenCalledWith('secret');
    expect(events.slice(-3).map((e) => e.type)).toEqual(['phase', 'left', 'closed']);
    expect(Session.all[0]!.closed).toBe(true);
  });
  it('a lost line is found again with the session, as muted as before', async () => {
    const { meeting, events, asked } = make([{ entry }, new Refusal(0, 'UNREACHABLE', ''), new Refusal(503, 'M_UNKNOWN', ''), { entry }]);
    await meeting.join();
    await meeting.setMuted('audio', false);
    Session.all[0]!.listener.gone('lost');
    await vi.waitFor(() => expect(meeting.snapshot.phase).toBe('in'), { timeout: 20_000 });
    expect(phases(events)).toEqual(['joining', 'in', 'reconnecting', 'in']);
    expect(asked.slice(1).every((a) => a.session === 'secret')).toBe(true);
    expect(Session.all[1]!.start.muted).toEqual({ audio: false, video: true });
    expect(events.filter((e) => e.type === 'joined')).toHaveLength(1);
  });
  it('while the line is down nobody goes, and tracks that are not sent mute nobody', async () => {
    const { meeting, events } = make([{ entry }], { startMuted: { audio: false, video: false } });
    const on = { ...me, muted: { audio: false, video: false } };
    await meeting.join();
    const [first] = Session.all;
    first!.crowd = [on, { ...on, id: 'h', name: 'Hanna', local: false }];
    first!.listener.changed();
    await Promise.resolve();
    const before = events.length;
    first!.listener.connection('reconnecting');
    first!.crowd = [me, { ...me, id: 'h', name: 'Hanna', local: false }];
    first!.listener.changed();
    await Promise.resolve();
    first!.crowd = [];
    first!.listener.changed();
    await Promise.resolve();
    expect(events.slice(before)).toEqual([{ type: 'phase', phase: 'reconnecting', error: undefined }]);
    first!.listener.gone('lost');
    await vi.waitFor(() => expect(meeting.snapshot.phase).toBe('in'), { timeout: 20_000 });
    expect(Session.all[1]!.start.muted).toEqual({ audio: false, video: false });
  });
  it('whom a host has muted stays muted over a lost line', async () => {
    const { meeting } = make([{ entry }], { startMuted: { audio: false, video: false } });
    await meeting.join();
    Session.all[0]!.listener.packet('tb.control', new TextEncoder().encode('{"type":"muted","kind":"audio","by":"h"}'), '');
    Session.all[0]!.listener.gone('lost');
    await vi.waitFor(() => expect(meeting.snapshot.phase).toBe('in'), { timeout: 20_000 });
    expect(Session.all[1]!.start.muted).toEqual({ audio: true, video: false });
  });
  it('who is removed is told by whom, and is not brought back', async () => {
    const { meeting, events, asked } = make([{ entry }]);
    await meeting.join();
    const [session] = Session.all;
    session!.crowd = [me, { ...me, id: 'h', name: 'Hanna', local: false }];
    session!.listener.changed();
    await Promise.resolve();
    session!.listener.packet('tb.control', new TextEncoder().encode('{"type":"kicked","by":"h"}'), '');
    session!.listener.gone('removed');
    expect(meeting.snapshot).toMatchObject({ phase: 'kicked', problem: { text: 'Hanna removed you.' }, people: [] });
    expect(events).toContainEqual({ type: 'kicked', id: 'me', by: 'h' });
    expect(asked).toHaveLength(1);
  });
  it('a participant cannot speak for the server', async () => {
    const { meeting } = make([{ entry }]);
    await meeting.join();
    Session.all[0]!.listener.packet('tb.control', new TextEncoder().encode('{"type":"muted","kind":"screen","by":"me"}'), 'stranger');
    expect(Session.all[0]!.share).not.toHaveBeenCalled();
    expect(meeting.snapshot.notices).toEqual([]);
  });
  it('nobody unmutes who may not, but a host', async () => {
    const { meeting } = make([{ entry }]);
    await meeting.join();
    const [session] = Session.all;
    session!.listener.metadata(metadata({ hosts: [], may_unmute: { audio: false, video: true } }));
    await meeting.setMuted('audio', false);
    expect(session!.setMuted).not.toHaveBeenCalled();
    session!.listener.metadata(metadata({ may_unmute: { audio: false, video: true } }));
    await meeting.setMuted('audio', false);
    expect(session!.setMuted).toHaveBeenCalledWith('audio', false);
  });
  it('a host who comes in hears who knocked before', async () => {
    const { meeting, events, api } = make([{ entry }]);
    Object.assign(api, { knocks: vi.fn(async () => [{ user_id: '@k:x', display_name: 'Kim', since: 1 }]) });
    const connect = vi.spyOn(Session.prototype, 'connect').mockImplementation(async function (this: Session) {
      this.metadata = metadata({ knocking: 1 });
    });
    await meeting.join();
    connect.mockRestore();
    await vi.waitFor(() => expect(meeting.snapshot.knocks).toEqual([{ userId: '@k:x', name: 'Kim' }]));
    expect(events).toContainEqual({ type: 'knock', userId: '@k:x', name: 'Kim' });
    await meeting.hangUp();
  });
  it('a screen turns the view, and the tiles come back after it', async () => {
    const { meeting } = make([{ entry }]);
    await meeting.join();
    const [session] = Session.all;
    const other = { ...me, id: 'h', name: 'Hanna', local: false };
    const look = async (sharing: boolean) => {
      session!.crowd = [me, { ...other, sharing }];
      session!.listener.changed();
      await Promise.resolve();
    };
    await look(false);
    await look(true);
    expect(meeting.snapshot.view).toBe('speaker');
    await look(false);
    expect(meeting.snapshot.view).toBe('tile');
  });
  it('private messages and those of everybody are read by whom they are for', async () => {
    const { meeting, events } = make([{ entry }]);
    await meeting.join();
    const [session] = Session.all;
    session!.crowd = [me, { ...me, id: 'h', name: 'Hanna', local: false }];
    session!.listener.changed();
    await Promise.resolve();
    const say = (from: string, text: string, change = {}) => session!.listener.text(from, text, { id: text, at: 1, private: false, ...change });
    say('h', 'hello');
    say('h', 'hello');
    say('h', 'psst', { private: true });
    say('nobody', 'boo');
    expect(meeting.snapshot.messages.map((m) => [m.text, m.private])).toEqual([['hello', false], ['psst', true]]);
    expect(meeting.snapshot.unread).toBe(2);
    meeting.openChat(true);
    expect(meeting.snapshot.unread).toBe(0);
    expect(events.filter((e) => e.type === 'message')).toHaveLength(2);
  });
});

describe('an embedder', () => {
  it('hears of buttons, and takes the place of those it wants to', () => {
    const { meeting, events } = make([{ entry }], { notifyClick: [{ key: 'hangup', preventExecution: true }, { key: 'chat', preventExecution: false }] });
    const done: string[] = [];
    for (const key of ['hangup', 'chat', 'camera']) meeting.button(key, () => done.push(key));
    expect(done).toEqual(['chat', 'camera']);
    expect(events).toEqual([{ type: 'button', key: 'hangup', prevented: true }, { type: 'button', key: 'chat', prevented: false }]);
  });
});
