// SPDX-License-Identifier: Apache-2.0
// A person's calls, newest first: what the server has recorded, and what only this device can read of encrypted rooms.
import type { CallOutcome, CallSummary } from './callTile.ts';

export interface LoggedCall extends CallSummary {
  roomId: string;
  outgoing: boolean;
  /** The other person of a call of two, where known. */
  peer?: string;
  /** Who took part in a group call; absent for a call of two. */
  group?: string[];
}

/** A page of the server's records; `next` asks for the one after. */
export interface CallPage {
  calls: LoggedCall[];
  next?: string;
}

const OUTCOMES = new Map<unknown, CallOutcome>([['answered', 'ended'], ['missed', 'missed'], ['declined', 'declined'], ['busy', 'busy'], ['failed', 'failed'], ['cancelled', 'cancelled']]);

const record = (v: unknown): Record<string, unknown> | null => (v !== null && typeof v === 'object' ? (v as Record<string, unknown>) : null);

/** Reads an answer of `/_trunkboard/client/v1/calls`; what has another shape is left out. */
export function pageOf(answer: unknown): CallPage {
  const page = record(answer);
  const list = Array.isArray(page?.calls) ? page.calls : [];
  const calls = list.flatMap((item): LoggedCall[] => {
    const c = record(item);
    const [callId, roomId, caller, callee] = [c?.call_id, c?.room_id, c?.caller, c?.callee].map((v) => (typeof v === 'string' && v ? v : undefined));
    const recorded = OUTCOMES.get(c?.outcome);
    if (!c || !callId || !roomId || !caller || !recorded || typeof c.started_ts !== 'number') return [];
    const outgoing = c.direction === 'outgoing';
    const people = Array.isArray(c.participants) ? c.participants.filter((p): p is string => typeof p === 'string') : [];
    return [
      {
        callId,
        roomId,
        caller,
        outgoing,
        peer: c.group === true ? undefined : outgoing ? callee : caller,
        group: c.group === true ? people : undefined,
        video: c.kind === 'video',
        startedAt: c.started_ts,
        // Nobody misses a call of their own: it was not answered.
        outcome: outgoing && recorded === 'missed' ? 'unanswered' : recorded,
        durationMs: recorded === 'ended' && typeof c.duration_ms === 'number' ? c.duration_ms : undefined,
      },
    ];
  });
  return { calls, next: typeof page?.next === 'string' && page.next ? page.next : undefined };
}

/**
 * The server's records and this device's own, newest first, each call once: the server knows both sides of a call that both list.
 * Of the device's own, those older than `from` stay out, so that the list has no gap before the page that comes next.
 */
export function merged(recorded: LoggedCall[], own: LoggedCall[], from = 0): LoggedCall[] {
  const known = new Set(recorded.map((c) => c.callId));
  const rest = own.filter((c) => !known.has(c.callId) && c.outcome !== 'replaced' && c.startedAt >= from);
  return [...recorded, ...rest].sort((a, b) => b.startedAt - a.startedAt || (a.callId < b.callId ? -1 : 1));
}

/** The words for a group call, which nobody misses and nobody is rung for alone. */
export function groupWords(call: LoggedCall): string {
  const n = call.group?.length ?? 0;
  return n === 1 ? 'Group call · 1 person' : `Group call · ${n} people`;
}
