// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import type { RawEvent } from './raw.ts';
import { announcement, newRoomCall, ROOM_CALL, roomCallOf } from './roomCall.ts';

const ORIGIN = 'https://chat.example';
const ME = '@ann:chat.example';

function message(content: Record<string, unknown>, change: Partial<RawEvent> = {}): RawEvent {
  return { id: '$1', type: 'm.room.message', sender: '@ben:chat.example', ts: 1, content, redacted: false, state: 'sent', ...change };
}

const told = (url: unknown, change: Partial<RawEvent> = {}) => roomCallOf(message({ msgtype: 'm.text', body: '', [ROOM_CALL]: { url, video: true } }, change), ME, ORIGIN);

it('a call comes out of its message as it went in', () => {
  for (const encrypted of [true, false]) {
    const call = newRoomCall(ORIGIN, encrypted, encrypted);
    expect(call.name).toMatch(/^[a-z2-7]{26}$/);
    expect(call.key !== undefined).toBe(encrypted);
    expect(roomCallOf(message(announcement(call)), ME, ORIGIN)).toEqual(call);
  }
  expect(newRoomCall(ORIGIN, true, true).name).not.toBe(newRoomCall(ORIGIN, true, true).name);
});

it('other clients read the link, and html that is nothing but a link', () => {
  const call = newRoomCall(ORIGIN, true, false);
  expect(announcement(call)).toMatchObject({ msgtype: 'm.text', body: `Started a voice call. Join: ${call.url}`, formatted_body: `Started a voice call. <a href="${call.url}">Join</a>` });
});

it('people reach one server under several addresses', () => {
  const call = newRoomCall('http://localhost:8008', true, true);
  expect(roomCallOf(message(announcement(call)), ME, ORIGIN)).toMatchObject({ url: `${ORIGIN}/meet/${call.name}#key=${call.key}`, here: true });
});

it('a call on another server is a link to its meeting', () => {
  const sender = '@cem:other.example';
  expect(told('https://meet.other.example/meet/abc#key=short', { sender })).toEqual({ name: 'abc', key: undefined, video: true, url: 'https://meet.other.example/meet/abc', here: false });
  for (const bad of ['http://other.example/meet/abc', 'javascript:alert(1)//meet/abc', 'https://chat.example@evil.example/meet/abc', 'data:text/html,/meet/abc']) expect(told(bad, { sender }), bad).toBeUndefined();
});

it('what is no call makes no card', () => {
  for (const bad of [undefined, 7, '', 'nonsense', '/meet/abc', `${ORIGIN}/meet/`, `${ORIGIN}/meet/a/b`, `${ORIGIN}/_matrix/x`, `${ORIGIN}/meet/%ff`, `${ORIGIN}/meet/${'a'.repeat(700)}`]) expect(told(bad), String(bad)).toBeUndefined();
  const good = `${ORIGIN}/meet/abc`;
  expect(told(good)).toBeDefined();
  expect(told(good, { redacted: true })).toBeUndefined();
  expect(told(good, { unreadable: 'UNKNOWN' })).toBeUndefined();
  expect(told(good, { type: 'm.room.encrypted' })).toBeUndefined();
  expect(roomCallOf(message({ [ROOM_CALL]: null }), ME, ORIGIN)).toBeUndefined();
});
