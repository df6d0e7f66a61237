// SPDX-License-Identifier: Apache-2.0
// What became of a call, told from the m.call.* events that a room's timeline holds.
import { text, type RawEvent } from './raw.ts';

export type CallOutcome =
  | 'ringing'
  | 'ongoing'
  | 'ended'
  | 'missed'
  | 'unanswered'
  | 'cancelled'
  | 'declined'
  | 'busy'
  | 'failed'
  /** Two people rang each other at once and this call gave way to the other one: nothing to tell. */
  | 'replaced';

export interface CallSummary {
  callId: string;
  caller: string;
  video: boolean;
  /** Unix time of the invite in milliseconds. */
  startedAt: number;
  outcome: CallOutcome;
  /** Milliseconds from answer to hang-up, when both are known. */
  durationMs?: number;
}

/** Invites without a usable lifetime ring this long: the 90 s that the specification recommends. */
const DEFAULT_LIFETIME_MS = 90_000;
/** A call without a hang-up (a crashed browser) stops counting as ongoing after this time. */
const LONGEST_CALL_MS = 6 * 60 * 60 * 1000;

const FAILURES = new Set(['ice_failed', 'ice_timeout', 'user_media_failed', 'unknown_error', 'signalling_timeout', 'no_user_media', 'send_invite', 'create_answer', 'set_remote_description', 'set_local_description']);

/** True when the invite offers video: an `m=video` section in its SDP. */
export function offersVideo(invite: RawEvent): boolean {
  const offer = invite.content.offer;
  const sdp = offer && typeof offer === 'object' ? (offer as { sdp?: unknown }).sdp : undefined;
  return typeof sdp === 'string' && /^m=video /m.test(sdp);
}

/** The call id of an m.call.* event, or undefined when it is none. */
export function callIdOf(event: RawEvent): string | undefined {
  return event.type.startsWith('m.call.') ? text(event.content, 'call_id') : undefined;
}

/**
 * Sums up one call for the user `me` at time `now`. `events` are the events of one call id in timeline order;
 * returns undefined when the invite is not among them.
 */
export function summariseCall(events: RawEvent[], me: string, now: number): CallSummary | undefined {
  const invite = events.find((e) => e.type === 'm.call.invite');
  const callId = invite && callIdOf(invite);
  if (!invite || !callId) return undefined;

  const base = { callId, caller: invite.sender, video: offersVideo(invite), startedAt: invite.ts };
  const outgoing = invite.sender === me;
  const answer = events.find((e) => e.type === 'm.call.answer' && e.sender !== invite.sender);
  const hangup = events.find((e) => e.type === 'm.call.hangup');
  const reject = events.find((e) => e.type === 'm.call.reject' && e.sender !== invite.sender);
  const reason = hangup ? (text(hangup.content, 'reason') ?? 'user_hangup') : undefined;

  if (answer) {
    if (!hangup) return { ...base, outcome: now - answer.ts > LONGEST_CALL_MS ? 'ended' : 'ongoing' };
    return { ...base, outcome: 'ended', durationMs: Math.max(0, hangup.ts - answer.ts) };
  }
  if (reject) return { ...base, outcome: text(reject.content, 'reason') === 'user_busy' ? 'busy' : 'declined' };
  if (hangup && reason) {
    if (reason === 'replaced') return { ...base, outcome: 'replaced' };
    if (reason === 'user_busy') return { ...base, outcome: 'busy' };
    // Version 0 of the protocol has no reject: a callee's hang-up before any answer means the same.
    if (hangup.sender !== invite.sender) return { ...base, outcome: FAILURES.has(reason) ? 'failed' : 'declined' };
    if (!outgoing) return { ...base, outcome: 'missed' };
    if (reason === 'invite_timeout') return { ...base, outcome: 'unanswered' };
    return { ...base, outcome: FAILURES.has(reason) ? 'failed' : 'cancelled' };
  }
  const lifetime = invite.content.lifetime;
  const ringsUntil = invite.ts + (typeof lifetime === 'number' && lifetime > 0 ? lifetime : DEFAULT_LIFETIME_MS);
  if (now < ringsUntil) return { ...base, outcome: 'ringing' };
  return { ...base, outcome: outgoing ? 'unanswered' : 'missed' };
}

/** A length of time the way people say it: `42 s`, `3 min`, `1 h 5 min`. */
export function spokenDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const rest = minutes % 60;
  return rest ? `${Math.floor(minutes / 60)} h ${rest} min` : `${minutes / 60} h`;
}

/** The running time of a call: `0:07`, `12:30`, `1:02:03`. */
export function clock(ms: number): string {
  const total = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number) => String(n).padStart(2, '0');
  const hours = Math.floor(total / 3600);
  const minutes = Math.floor(total / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(total % 60)}` : `${minutes}:${two(total % 60)}`;
}

/** The words on a call tile: a title and, where there is more to say, a detail. */
export function tileWords(call: CallSummary, me: string): { title: string; detail?: string } {
  const kind = call.video ? 'Video call' : 'Voice call';
  const outgoing = call.caller === me;
  switch (call.outcome) {
    case 'ended':
      return { title: kind, detail: call.durationMs === undefined ? undefined : spokenDuration(call.durationMs) };
    case 'ongoing':
      return { title: kind, detail: 'In progress' };
    case 'ringing':
      return { title: kind, detail: outgoing ? 'Calling…' : 'Ringing…' };
    case 'missed':
      return { title: `Missed ${kind.toLowerCase()}` };
    case 'unanswered':
      return { title: kind, detail: 'No answer' };
    case 'cancelled':
      return { title: kind, detail: 'Cancelled' };
    case 'declined':
      return { title: kind, detail: outgoing ? 'Declined' : 'You declined' };
    case 'busy':
      return { title: kind, detail: 'Busy' };
    case 'failed':
      return { title: kind, detail: 'Could not connect' };
    case 'replaced':
      return { title: kind };
  }
}
