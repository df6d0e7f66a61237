// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { arrange, perPage } from './arrange.ts';
import { messageOf } from './chat.ts';
import type { Person } from './control.ts';
import { differences } from './differences.ts';
import { keyOf, nameOf, newKey } from './options.ts';
import { control, reaction, roomState } from './roomState.ts';
import { isTalkKey, shortcutOf } from './shortcuts.ts';
import { byRank, keepAll } from './state.ts';
import { Spotlight, TalkClock } from './talk.ts';
import { languageOf, wordsFor } from './words.ts';

const person = (id: string, change: Partial<Person> = {}): Person => ({ id, name: id, local: false, host: false, muted: { audio: false, video: false }, sharing: false, speaking: false, quality: 'good', ...change });
const bytes = (value: unknown) => new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value));

describe('the address of a meeting', () => {
  it('names it, with and without the prefix, with a tenant, in any letters', () => {
    expect([nameOf('/meet/weekly'), nameOf('/weekly'), nameOf('/weekly/'), nameOf('/meet/acme/weekly'), nameOf('/meet/%C3%9Cbung%20eins'), nameOf('/meeting')]).toEqual(['weekly', 'weekly', 'weekly', 'acme/weekly', 'Übung eins', 'meeting']);
    expect([nameOf('/'), nameOf('/meet'), nameOf('/meet/')]).toEqual(['', '', '']);
  });
  it('may be undecodable', () => expect(nameOf('/meet/100%')).toBe('100%'));
  it('carries the key of an encrypted meeting behind the #, and nothing that only looks like one', () => {
    const key = newKey();
    expect(key).toMatch(/^[\w-]{43}$/);
    expect(newKey()).not.toBe(key);
    expect(keyOf(`#key=${key}`)).toBe(key);
    expect(keyOf(`#config.x=1&key=${key}`)).toBe(key);
    expect(keyOf(`#key=${key}A`)).toBeUndefined();
    expect(keyOf('#key=short')).toBeUndefined();
    expect(keyOf(`#monkey=${key}`)).toBeUndefined();
  });
});

describe('what the server says of a meeting', () => {
  it('is read in full', () => {
    expect(roomState('{"v":1,"subject":"Plans","hosts":["a"],"lobby":true,"password":false,"knocking":2,"e2ee":false,"started":5,"may_unmute":{"audio":false,"video":true}}')).toEqual({
      subject: 'Plans', hosts: new Set(['a']), lobby: true, password: false, knocking: 2, e2ee: false, started: 5, mayUnmute: { audio: false, video: true },
    });
  });
  it.each(['', 'null', '[]', '7', '{"v":2}', '{"v":', '"x"'])('is not read into %s', (text) => expect(roomState(text)).toBeNull());
  it('has a default for everything', () => expect(roomState('{"v":1,"hosts":[1,"a",null],"may_unmute":null}')).toMatchObject({ hosts: new Set(['a']), mayUnmute: { audio: true, video: true }, subject: '' }));
});

describe('packets', () => {
  it('of control come from the server only', () => {
    const muted = bytes({ type: 'muted', kind: 'audio', by: 'h' });
    expect(control(muted, '')).toEqual({ type: 'muted', kind: 'audio', by: 'h' });
    expect(control(muted, 'somebody')).toBeNull();
  });
  it.each(['', '[]', 'null', '{"type":"muted"}', '{"type":"muted","kind":"__proto__"}', '{"type":"format"}', '{'])('of control that make no sense do nothing: %s', (text) => expect(control(bytes(text), '')).toBeNull());
  it('of reactions show only what is in the menu', () => {
    expect(reaction(bytes({ emoji: '👍' }))).toBe('👍');
    for (const bad of [{ emoji: '<b>' }, { emoji: 'buy this' }, { emoji: 7 }, [], null, 'x'.repeat(1000)]) expect(reaction(bytes(bad))).toBeNull();
  });
});

describe('differences between two looks', () => {
  it('tell who came, went, and what changed', () => {
    const before = [person('me', { local: true }), person('a'), person('b')];
    const after = [before[0]!, person('a', { name: 'Ann', muted: { audio: true, video: false }, host: true, hand: 5, sharing: true }), person('c')];
    expect(differences(before, after)).toEqual([
      { type: 'went', person: before[2] },
      { type: 'name', id: 'a', name: 'Ann' },
      { type: 'muted', kind: 'audio', muted: true, id: 'a' },
      { type: 'sharing', on: true, id: 'a' },
      { type: 'hand', id: 'a', raised: 5 },
      { type: 'role', id: 'a', host: true },
      { type: 'came', person: after[2] },
    ]);
  });
  it('are none at the first look', () => expect(differences([], [person('a'), person('me', { local: true })])).toEqual([]));
});

describe('objects that have not changed', () => {
  it('stay the same ones', () => {
    const old = [person('a'), person('b')];
    expect(keepAll(old, [person('a'), person('b')], (p) => p.id)).toBe(old);
    const fresh = keepAll(old, [person('a'), person('b', { speaking: true })], (p) => p.id);
    expect(fresh).not.toBe(old);
    expect(fresh[0]).toBe(old[0]);
    expect(fresh[1]).not.toBe(old[1]);
  });
  it('oneself is first, then hands in the order they went up', () => {
    const all = [person('a'), person('late', { hand: 9 }), person('early', { hand: 3 }), person('me', { local: true })];
    expect(all.sort(byRank).map((p) => p.id)).toEqual(['me', 'early', 'late', 'a']);
  });
});

describe('who speaks', () => {
  it('is added up, the current sentence included', () => {
    const clock = new TalkClock();
    clock.speak(['a', 'b'], 1000);
    clock.speak(['a'], 3000);
    clock.speak([], 4000);
    clock.speak(['a'], 9000);
    expect([clock.of('a', 9500), clock.of('b', 9500), clock.of('c', 9500)]).toEqual([3500, 2000, 0]);
  });
  it('is shown big after a while, not at a cough, and stays through a silence', () => {
    const light = new Spotlight();
    expect(light.hear('a', 0)).toBe('a');
    expect(light.hear('b', 100)).toBe('a');
    expect(light.hear('a', 300)).toBe('a');
    expect(light.hear('b', 400)).toBe('a');
    expect(light.due).toBeGreaterThan(0);
    expect(light.hear('b', 1400)).toBe('b');
    expect(light.hear(undefined, 9000)).toBe('b');
    light.forget('b');
    expect(light.current).toBeUndefined();
  });
});

describe('tiles', () => {
  it('fill the space and never leave it', () => {
    for (const [w, h] of [[1200, 700], [390, 600], [300, 200]] as const) {
      for (let n = 1; n <= 25; n++) {
        const a = arrange(n, w, h, 10);
        expect(a.columns * a.rows).toBeGreaterThanOrEqual(n);
        expect(a.columns * a.width + (a.columns - 1) * 10).toBeLessThanOrEqual(w);
        expect(a.rows * a.height + (a.rows - 1) * 10).toBeLessThanOrEqual(h);
      }
    }
  });
  it('stand beside each other where it is wide, below each other where it is high', () => {
    expect(arrange(2, 1200, 500, 10).columns).toBe(2);
    expect(arrange(2, 390, 700, 10).columns).toBe(1);
  });
  it('are no more on a page than can be seen', () => {
    expect(perPage(1600, 900, 10)).toBe(25);
    expect(perPage(390, 600, 10)).toBeLessThan(12);
    expect(perPage(0, 0, 10)).toBe(2);
  });
});

describe('messages of the room', () => {
  const names = new Map([['@ann:x', 'Ann']]);
  const event = (content: Record<string, unknown>, change = {}) => ({ type: 'm.room.message', event_id: '$1', sender: '@ann:x', origin_server_ts: 7, content, ...change });
  it('are plain text, whatever else they bring', () => {
    expect(messageOf(event({ msgtype: 'm.text', body: '<b>hi</b>', formatted_body: '<script>' }), names)).toMatchObject({ text: '<b>hi</b>', name: 'Ann', at: 7, eventId: '$1' });
    expect(messageOf(event({ msgtype: 'm.text', body: 'hi' }, { sender: '@cem:x' }), names)?.name).toBe('cem');
  });
  it('that are none are left out', () => {
    for (const bad of [event({}), event({ msgtype: 'm.image', body: 'x.png' }), event({ msgtype: 'm.text', body: 7 }), event({ msgtype: 'm.text', body: '' }), { type: 'm.room.member' }, event({ msgtype: 'm.text', body: 'x' }, { sender: undefined })]) expect(messageOf(bad as never, names)).toBeNull();
  });
  it('are cut where they are endless', () => expect(messageOf(event({ msgtype: 'm.text', body: 'x'.repeat(70_000) }), names)!.text.length).toBe(8000));
});

describe('keys', () => {
  const press = (key: string, change = {}) => ({ key, ctrlKey: false, metaKey: false, altKey: false, repeat: false, target: document.body as EventTarget, ...change });
  it('do what people of Jitsi expect', () => expect(['m', 'V', 'd', 'c', 'r', 'w', 't', 's', '?'].map((k) => shortcutOf(press(k)))).toEqual(['mic', 'camera', 'screen', 'chat', 'hand', 'view', 'statistics', 'fullscreen', 'help']));
  it('pin by number', () => expect(shortcutOf(press('3'))).toEqual({ pin: 3 }));
  it('do nothing while one types, holds a modifier, or the key', () => {
    const input = document.createElement('input');
    for (const p of [press('m', { target: input }), press('m', { ctrlKey: true }), press('m', { metaKey: true }), press('m', { repeat: true }), press('x')]) expect(shortcutOf(p)).toBeNull();
  });
  it('a held space lets one speak, but presses a button where one is focused', () => {
    expect(isTalkKey(press(' '))).toBe(true);
    expect(isTalkKey(press(' ', { target: document.createElement('button') }))).toBe(false);
  });
});

describe('words', () => {
  it('are those of the first language that there is', () => {
    expect(languageOf('fr-FR', 'de-AT', 'en')).toBe('de');
    expect(languageOf(undefined, 'fr')).toBe('en');
  });
  it('are never empty, and differ where they should', () => {
    const [en, de] = [wordsFor('en'), wordsFor('de')];
    for (const words of [en, de]) for (const [key, word] of Object.entries(words)) if (typeof word === 'string') expect(word, key).not.toBe('');
    expect(de.join).not.toBe(en.join);
    expect([en.peopleThere(1), en.peopleThere(3), de.peopleThere(1)]).toEqual(['One person is here', '3 people are here', 'Eine Person ist da']);
  });
});
