// SPDX-License-Identifier: Apache-2.0
// Turns the events of a room into the rows of its timeline.
import { callIdOf, summariseCall, type CallSummary } from './callTile.ts';
import { text, type RawEvent } from './raw.ts';

export type TimelineRow =
  | { kind: 'day'; key: string; ts: number }
  | { kind: 'message'; key: string; event: RawEvent; mine: boolean; first: boolean }
  | { kind: 'notice'; key: string; event: RawEvent; words: string }
  | { kind: 'call'; key: string; event: RawEvent; call: CallSummary };

/** Messages of one person closer together than this share a header. */
const GROUP_MS = 5 * 60_000;

function sameDay(a: number, b: number): boolean {
  return new Date(a).toDateString() === new Date(b).toDateString();
}

/** What a membership change says, or undefined when it says nothing worth a line. */
function membershipWords(event: RawEvent, name: (userId: string) => string): string | undefined {
  const target = event.stateKey ?? '';
  const now = text(event.content, 'membership');
  const before = event.prevContent ? text(event.prevContent, 'membership') : undefined;
  const who = name(target);
  const by = name(event.sender);
  if (now === before) return undefined;
  if (now === 'join') return `${who} joined`;
  if (now === 'invite') return `${by} invited ${who}`;
  if (now === 'ban') return `${by} banned ${who}`;
  if (now === 'leave') {
    if (target !== event.sender) return before === 'invite' ? `${by} withdrew the invitation of ${who}` : `${by} removed ${who}`;
    return before === 'invite' ? `${who} declined the invitation` : `${who} left`;
  }
  return undefined;
}

/** The line for a state event that people care about, or undefined. */
export function noticeWords(event: RawEvent, name: (userId: string) => string): string | undefined {
  switch (event.type) {
    case 'm.room.create':
      return `${name(event.sender)} started this conversation`;
    case 'm.room.member':
      return membershipWords(event, name);
    case 'm.room.name': {
      const title = text(event.content, 'name');
      return title ? `${name(event.sender)} named the room “${title}”` : undefined;
    }
    case 'm.room.topic': {
      const topic = text(event.content, 'topic');
      return topic ? `${name(event.sender)} set the topic: ${topic}` : undefined;
    }
    case 'm.room.encryption':
      return `${name(event.sender)} turned on end-to-end encryption`;
    default:
      return undefined;
  }
}

/** Groups the call events of a timeline by call id. */
function callsById(events: RawEvent[]): Map<string, RawEvent[]> {
  const calls = new Map<string, RawEvent[]>();
  for (const event of events) {
    const id = callIdOf(event);
    if (!id) continue;
    const list = calls.get(id);
    if (list) list.push(event);
    else calls.set(id, [event]);
  }
  return calls;
}

/** The rows of a room's timeline, oldest first, as `me` sees them at time `now`. */
export function timelineRows(events: RawEvent[], me: string, now: number, name: (userId: string) => string): TimelineRow[] {
  const calls = callsById(events);
  const rows: TimelineRow[] = [];
  let day: number | undefined;
  let last: RawEvent | undefined;
  let creator: string | undefined;

  const push = (row: TimelineRow, ts: number) => {
    if (day === undefined || !sameDay(day, ts)) {
      rows.push({ kind: 'day', key: `day-${row.key}`, ts });
      last = undefined;
    }
    day = ts;
    rows.push(row);
  };

  for (const event of events) {
    if (event.type === 'm.room.message' && text(event.content, 'msgtype') === 'm.key.verification.request') {
      if (event.redacted) continue;
      push({ kind: 'notice', key: event.id, event, words: `${name(event.sender)} asked to compare emojis` }, event.ts);
      last = undefined;
    } else if (event.type === 'm.room.message' || event.type === 'm.room.encrypted' || event.type === 'm.sticker') {
      const newDay = day === undefined || !sameDay(day, event.ts);
      const first = newDay || last === undefined || last.sender !== event.sender || event.ts - last.ts > GROUP_MS;
      push({ kind: 'message', key: event.id, event, mine: event.sender === me, first }, event.ts);
      last = event;
    } else if (event.type === 'm.call.invite') {
      const call = summariseCall(calls.get(callIdOf(event) ?? '') ?? [], me, now);
      if (!call || call.outcome === 'replaced') continue;
      push({ kind: 'call', key: event.id, event, call }, event.ts);
      last = undefined;
    } else if (event.stateKey !== undefined) {
      if (event.type === 'm.room.create') creator = event.sender;
      // Whoever starts a conversation is in it: only a second joining is news.
      if (event.type === 'm.room.member' && event.stateKey === creator && event.content.membership === 'join') {
        creator = undefined;
        continue;
      }
      const words = noticeWords(event, name);
      if (!words) continue;
      push({ kind: 'notice', key: event.id, event, words }, event.ts);
      last = undefined;
    }
  }
  return rows;
}
