// SPDX-License-Identifier: Apache-2.0
// The entries of the list on the left: their order and their one-line preview.
import { summariseCall, tileWords, callIdOf } from './callTile.ts';
import { text, type RawEvent } from './raw.ts';
import { roomCallOf, roomCallTitle } from './roomCall.ts';

export type Presence = 'online' | 'unavailable' | 'offline' | 'unknown';

export interface RoomItem {
  id: string;
  name: string;
  kind: 'person' | 'room';
  membership: 'join' | 'invite';
  /** The other person of a one-to-one conversation. */
  peer?: string;
  presence: Presence;
  preview: string;
  /** Unix time in milliseconds of the newest thing to see. */
  ts: number;
  unread: number;
  highlight: boolean;
  members: number;
  encrypted: boolean;
  inviter?: string;
}

export interface RoomSections {
  invites: RoomItem[];
  people: RoomItem[];
  rooms: RoomItem[];
}

/** Newest first; equal times by name, so that the list does not jump. */
export function byRecency(a: RoomItem, b: RoomItem): number {
  return b.ts - a.ts || a.name.localeCompare(b.name) || (a.id < b.id ? -1 : 1);
}

/** Invitations, people, rooms: each newest first, narrowed to names that contain `query`. */
export function sections(items: RoomItem[], query: string): RoomSections {
  const wanted = query.trim().toLocaleLowerCase();
  const hits = items.filter((i) => !wanted || i.name.toLocaleLowerCase().includes(wanted) || i.peer?.toLocaleLowerCase().includes(wanted));
  hits.sort(byRecency);
  return {
    invites: hits.filter((i) => i.membership === 'invite'),
    people: hits.filter((i) => i.membership === 'join' && i.kind === 'person'),
    rooms: hits.filter((i) => i.membership === 'join' && i.kind === 'room'),
  };
}

const KINDS: Record<string, string> = { 'm.image': 'Photo', 'm.video': 'Video', 'm.audio': 'Audio', 'm.file': 'File' };

/**
 * The newest thing to say about a room in one line. Looks from the end of `events` for something a person would
 * call news; returns an empty line when there is nothing.
 */
export function previewOf(events: RawEvent[], me: string, now: number, name: (userId: string) => string): { words: string; ts: number } {
  for (let i = events.length - 1; i >= 0; i--) {
    const e = events[i]!;
    if (e.redacted || text(e.content, 'msgtype') === 'm.key.verification.request') continue;
    if (e.unreadable) return { words: 'Message that cannot be read here', ts: e.ts };
    if (e.type === 'm.room.message') {
      const type = text(e.content, 'msgtype') ?? '';
      const call = roomCallOf(e, me);
      const said = call ? roomCallTitle(call) : (KINDS[type] ?? text(e.content, 'body') ?? '');
      const line = type === 'm.emote' ? `${name(e.sender)} ${said}` : said;
      return { words: e.sender === me ? `You: ${line}` : line, ts: e.ts };
    }
    if (e.type === 'm.room.encrypted') return { words: 'Encrypted message', ts: e.ts };
    const id = e.type === 'm.call.invite' ? callIdOf(e) : undefined;
    if (id) {
      const call = summariseCall(events.filter((c) => callIdOf(c) === id), me, now);
      if (!call || call.outcome === 'replaced') continue;
      const { title, detail } = tileWords(call, me);
      return { words: detail ? `${title} · ${detail}` : title, ts: e.ts };
    }
    if (e.type === 'm.room.member' && text(e.content, 'membership') === 'join' && e.stateKey !== me && e.prevContent?.membership !== 'join') {
      return { words: `${name(e.stateKey ?? e.sender)} joined`, ts: e.ts };
    }
  }
  return { words: '', ts: events.at(-1)?.ts ?? 0 };
}
