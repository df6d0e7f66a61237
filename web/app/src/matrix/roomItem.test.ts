// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import type { RawEvent } from './raw.ts';
import { previewOf, sections, type RoomItem } from './roomItem.ts';

const item = (id: string, change: Partial<RoomItem> = {}): RoomItem => ({
  id,
  name: id,
  kind: 'room',
  membership: 'join',
  presence: 'unknown',
  preview: '',
  ts: 0,
  unread: 0,
  highlight: false,
  members: 2,
  encrypted: false,
  ...change,
});
const ids = (items: RoomItem[]) => items.map((i) => i.id);

describe('sections', () => {
  it('puts invitations, people and rooms apart, newest first, equal times by name', () => {
    const s = sections([item('a', { ts: 1 }), item('b', { ts: 9 }), item('p', { kind: 'person', ts: 2 }), item('q', { kind: 'person', ts: 5 }), item('i', { membership: 'invite', kind: 'person' }), item('c', { ts: 1 })], '');
    expect(ids(s.invites)).toEqual(['i']);
    expect(ids(s.people)).toEqual(['q', 'p']);
    expect(ids(s.rooms)).toEqual(['b', 'a', 'c']);
  });

  it('finds by name or user id, without regard to case and blanks around', () => {
    const all = [item('x', { name: 'Design Team' }), item('y', { name: 'Ben', kind: 'person', peer: '@benedict:x' })];
    expect(ids(sections(all, ' desIGN').rooms)).toEqual(['x']);
    expect(ids(sections(all, 'benedict').people)).toEqual(['y']);
    expect(ids(sections(all, 'nobody').people)).toEqual([]);
  });
});

describe('previewOf', () => {
  let n = 0;
  const event = (type: string, sender: string, content: Record<string, unknown>, more: Partial<RawEvent> = {}): RawEvent => ({ id: `$${n++}`, type, sender, ts: 1000 + n, content, redacted: false, state: 'sent', ...more });
  const words = (events: RawEvent[]) => previewOf(events, '@me:x', 10_000_000, (id) => id.slice(1, 4)).words;

  it('says who spoke only when it was me', () => {
    expect(words([event('m.room.message', '@ann:x', { msgtype: 'm.text', body: 'hello' })])).toBe('hello');
    expect(words([event('m.room.message', '@me:x', { msgtype: 'm.text', body: 'hello' })])).toBe('You: hello');
    expect(words([event('m.room.message', '@me:x', { msgtype: 'm.image', body: 'cat.png' })])).toBe('You: Photo');
    expect(words([event('m.room.message', '@ann:x', { msgtype: 'm.emote', body: 'waves' })])).toBe('ann waves');
  });

  it('passes over deleted messages and things nobody calls news', () => {
    expect(words([event('m.room.message', '@ann:x', { msgtype: 'm.text', body: 'old' }), event('m.room.message', '@ann:x', {}, { redacted: true }), event('m.room.topic', '@ann:x', { topic: 't' }, { stateKey: '' })])).toBe('old');
  });

  it('tells a missed call', () => {
    expect(words([event('m.call.invite', '@ann:x', { call_id: 'c', lifetime: 1000 }), event('m.call.hangup', '@ann:x', { call_id: 'c' })])).toBe('Missed voice call');
  });
});
