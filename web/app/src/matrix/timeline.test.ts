// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import type { RawEvent } from './raw.ts';
import { timelineRows } from './timeline.ts';

const ANN = '@ann:x';
const BEN = '@ben:x';
const NOON = new Date(2026, 4, 4, 12).getTime();
const MIN = 60_000;
let n = 0;
const event = (type: string, sender: string, ts: number, content: Record<string, unknown> = {}, more: Partial<RawEvent> = {}): RawEvent => ({
  id: `$${n++}`,
  type,
  sender,
  ts,
  content,
  redacted: false,
  state: 'sent',
  ...more,
});
const say = (sender: string, ts: number, body = 'hi') => event('m.room.message', sender, ts, { msgtype: 'm.text', body });
const member = (target: string, sender: string, membership: string, before?: string) =>
  event('m.room.member', sender, NOON, { membership }, { stateKey: target, prevContent: before ? { membership: before } : {} });
const name = (id: string) => id.slice(1, 4);
const rows = (events: RawEvent[]) => timelineRows(events, ANN, NOON + 60 * MIN, name);
const short = (events: RawEvent[]) =>
  rows(events).map((r) => (r.kind === 'message' ? `${r.event.sender.slice(1, 4)}${r.first ? '*' : ''}` : r.kind === 'notice' ? r.words : r.kind === 'call' ? r.call.outcome : 'day'));

describe('timelineRows', () => {
  it('starts each day with a line and each group with a header', () => {
    expect(short([say(ANN, NOON), say(ANN, NOON + MIN), say(BEN, NOON + 2 * MIN), say(ANN, NOON + 3 * MIN), say(ANN, NOON + 20 * MIN)])).toEqual(['day', 'ann*', 'ann', 'ben*', 'ann*', 'ann*']);
    expect(short([say(ANN, NOON), say(ANN, NOON + 24 * 60 * MIN)])).toEqual(['day', 'ann*', 'day', 'ann*']);
  });

  it('shows a call once, where it began, and hides its other events', () => {
    const call = (type: string, sender: string, at: number) => event(type, sender, NOON + at, { call_id: 'c', version: '1', lifetime: 60_000 });
    expect(short([call('m.call.invite', BEN, 0), call('m.call.candidates', BEN, 1), say(BEN, NOON + 2), call('m.call.hangup', BEN, 3)])).toEqual(['day', 'missed', 'ben*']);
  });

  it('leaves out a call that lost a glare', () => {
    const call = (type: string, sender: string, content = {}) => event(type, sender, NOON, { call_id: 'c', version: '1', lifetime: 60_000, ...content });
    expect(short([call('m.call.invite', BEN), call('m.call.hangup', BEN, { reason: 'replaced' })])).toEqual([]);
  });

  it('tells joins, invitations and departures, and no profile changes', () => {
    expect(
      short([
        member(BEN, ANN, 'invite'),
        member(BEN, BEN, 'join', 'invite'),
        member(BEN, BEN, 'join', 'join'),
        member(BEN, BEN, 'leave', 'join'),
        member(BEN, ANN, 'leave', 'join'),
        member(BEN, BEN, 'leave', 'invite'),
        member(BEN, ANN, 'leave', 'invite'),
      ]),
    ).toEqual(['day', 'ann invited ben', 'ben joined', 'ben left', 'ann removed ben', 'ben declined the invitation', 'ann withdrew the invitation of ben']);
  });

  it('does not tell that the creator joined, but that they came back', () => {
    const create = event('m.room.create', ANN, NOON, {}, { stateKey: '' });
    expect(short([create, member(ANN, ANN, 'join'), member(ANN, ANN, 'leave', 'join'), member(ANN, ANN, 'join', 'leave')])).toEqual(['day', 'ann started this conversation', 'ann left', 'ann joined']);
  });

  it('shows a request for verification as a notice, not as something said', () => {
    const asked = event('m.room.message', ANN, NOON, { msgtype: 'm.key.verification.request', body: 'your client cannot do this', to: BEN });
    expect(short([say(ANN, NOON), asked, event('m.key.verification.done', ANN, NOON), say(ANN, NOON)])).toEqual(['day', 'ann*', 'ann asked to compare emojis', 'ann*']);
  });

  it('survives content of any shape', () => {
    const odd = [event('m.room.member', BEN, NOON, { membership: 5 }, { stateKey: BEN }), event('m.room.name', BEN, NOON, { name: {} }, { stateKey: '' }), event('m.call.invite', BEN, NOON, {}), event('m.room.message', BEN, NOON, {})];
    expect(short(odd)).toEqual(['day', 'ben*']);
  });

  it('gives every row its own key', () => {
    const keys = rows([say(ANN, NOON), member(BEN, ANN, 'invite'), say(BEN, NOON + 24 * 60 * MIN)]).map((r) => r.key);
    expect(new Set(keys).size).toBe(keys.length);
  });
});
