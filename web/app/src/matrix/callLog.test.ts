// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { groupWords, type LoggedCall, merged, pageOf } from './callLog.ts';

const row = { call_id: 'c', room_id: '!r:x', caller: '@a:x', callee: '@b:x', direction: 'outgoing', kind: 'video', outcome: 'answered', started_ts: 5, answered_ts: 6, ended_ts: 9, duration_ms: 3 };
const call = (callId: string, startedAt: number, change: Partial<LoggedCall> = {}): LoggedCall => ({ callId, startedAt, roomId: '!r:x', caller: '@a:x', outgoing: true, video: false, outcome: 'ended', ...change });

describe('what the server has recorded', () => {
  it('is read, from the side of who asks', () => {
    expect(pageOf({ calls: [row], next: 'n' })).toEqual({
      calls: [{ callId: 'c', roomId: '!r:x', caller: '@a:x', outgoing: true, peer: '@b:x', group: undefined, video: true, startedAt: 5, outcome: 'ended', durationMs: 3 }],
      next: 'n',
    });
    const [incoming] = pageOf({ calls: [{ ...row, direction: 'incoming', outcome: 'missed', kind: 'audio' }] }).calls;
    expect(incoming).toMatchObject({ peer: '@a:x', outgoing: false, outcome: 'missed', video: false, durationMs: undefined });
    expect(pageOf({ calls: [{ ...row, outcome: 'missed' }] }).calls[0]!.outcome).toBe('unanswered');
  });
  it('may be a group call, which has no other side', () => {
    const [group] = pageOf({ calls: [{ ...row, group: true, participants: ['@a:x', 7, '@b:x'] }] }).calls;
    expect(group).toMatchObject({ peer: undefined, group: ['@a:x', '@b:x'] });
    expect(groupWords(group!)).toBe('Group call · 2 people');
  });
  it.each([[null], [7], [{}], [{ calls: 7 }], [{ calls: [null, 7, {}, { ...row, outcome: 'constructor' }, { ...row, started_ts: '5' }, { ...row, room_id: '' }], next: 7 }]])('is left out when it is none: %j', (answer) => {
    expect(pageOf(answer)).toEqual({ calls: [], next: undefined });
  });
});

describe('both lists together', () => {
  it('hold each call once, as the server has it, newest first', () => {
    const all = merged([call('b', 2, { durationMs: 9 }), call('a', 1)], [call('c', 3), call('b', 2), call('x', 4, { outcome: 'replaced' })]);
    expect(all.map((c) => c.callId)).toEqual(['c', 'b', 'a']);
    expect(all[1]!.durationMs).toBe(9);
  });
  it('have no gap before the next page', () => {
    expect(merged([call('b', 20)], [call('c', 30), call('old', 10)], 20).map((c) => c.callId)).toEqual(['c', 'b']);
  });
});
