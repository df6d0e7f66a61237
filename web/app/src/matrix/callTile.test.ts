// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { clock, offersVideo, spokenDuration, summariseCall, tileWords } from './callTile.ts';
import type { RawEvent } from './raw.ts';

const ANN = '@ann:x';
const BEN = '@ben:x';
const T0 = 1_700_000_000_000;
let n = 0;

function event(type: string, sender: string, seconds: number, content: Record<string, unknown> = {}): RawEvent {
  return { id: `$${n++}`, type, sender, ts: T0 + seconds * 1000, content: { call_id: 'c1', version: '1', ...content }, redacted: false, state: 'sent' };
}

const invite = (video = false, lifetime: unknown = 60_000) =>
  event('m.call.invite', ANN, 0, { lifetime, offer: { type: 'offer', sdp: `v=0\r\nm=audio 9 X 111\r\n${video ? 'm=video 9 X 96\r\n' : ''}` } });
const answer = (at = 5) => event('m.call.answer', BEN, at);
const hangup = (sender: string, at: number, reason?: string) => event('m.call.hangup', sender, at, reason ? { reason } : {});
const reject = (at = 3) => event('m.call.reject', BEN, at);
const at = (seconds: number) => T0 + seconds * 1000;

describe('summariseCall', () => {
  it('measures an answered call from the answer to the hang-up', () => {
    const call = summariseCall([invite(true), answer(5), hangup(BEN, 185)], ANN, at(200));
    expect(call).toEqual({ callId: 'c1', caller: ANN, video: true, startedAt: T0, outcome: 'ended', durationMs: 180_000 });
    expect(tileWords(call!, ANN)).toEqual({ title: 'Video call', detail: '3 min' });
  });

  it('is undefined without the invite, and for something that is no call', () => {
    expect(summariseCall([answer(), hangup(ANN, 9)], ANN, at(10))).toBeUndefined();
    expect(summariseCall([], ANN, at(10))).toBeUndefined();
    expect(summariseCall([{ ...invite(), content: { call_id: 7 } }], ANN, at(1))).toBeUndefined();
  });

  it.each([
    ['rings while the invite lives', [invite()], ANN, 30, 'ringing'],
    ['is missed by the callee when nobody answers in time', [invite()], BEN, 61, 'missed'],
    ['is unanswered for the caller when nobody answers in time', [invite()], ANN, 61, 'unanswered'],
    ['is missed when the caller gives up', [invite(), hangup(ANN, 10)], BEN, 20, 'missed'],
    ['is cancelled for the caller who gives up', [invite(), hangup(ANN, 10)], ANN, 20, 'cancelled'],
    ['is unanswered after invite_timeout', [invite(), hangup(ANN, 60, 'invite_timeout')], ANN, 70, 'unanswered'],
    ['is missed after invite_timeout for the callee', [invite(), hangup(ANN, 60, 'invite_timeout')], BEN, 70, 'missed'],
    ['is declined by a reject', [invite(), reject()], ANN, 10, 'declined'],
    ['is declined by a version 0 hang-up of the callee', [invite(), hangup(BEN, 4)], ANN, 10, 'declined'],
    ['is busy with the reason user_busy', [invite(), hangup(BEN, 4, 'user_busy')], ANN, 10, 'busy'],
    ['failed when media could not start', [invite(), hangup(ANN, 4, 'ice_failed')], ANN, 10, 'failed'],
    ['gives way to the other call in glare', [invite(), hangup(BEN, 1, 'replaced')], ANN, 10, 'replaced'],
    ['is ongoing after the answer', [invite(), answer()], ANN, 100, 'ongoing'],
    ['stops being ongoing when a browser crashed long ago', [invite(), answer()], ANN, 7 * 3600, 'ended'],
  ] as const)('%s', (_name, events, me, now, outcome) => {
    expect(summariseCall([...events], me, at(now))?.outcome).toBe(outcome);
  });

  it('takes the recommended lifetime when the invite names none that makes sense', () => {
    for (const lifetime of ['60000', -5, null, {}]) {
      expect(summariseCall([invite(false, lifetime)], BEN, at(89))?.outcome).toBe('ringing');
      expect(summariseCall([invite(false, lifetime)], BEN, at(91))?.outcome).toBe('missed');
    }
  });

  it('never shows a negative length when clocks disagree', () => {
    expect(summariseCall([invite(), answer(50), hangup(ANN, 40)], ANN, at(60))?.durationMs).toBe(0);
  });
});

it('finds video only in an SDP that has a video section', () => {
  expect(offersVideo(invite(true))).toBe(true);
  expect(offersVideo(invite(false))).toBe(false);
  expect(offersVideo({ ...invite(), content: { offer: 'm=video 9' } })).toBe(false);
  expect(offersVideo({ ...invite(), content: { offer: { sdp: 5 } } })).toBe(false);
});

it('says durations the way people do', () => {
  expect([4_400, 59_400, 60_000, 179_000, 3_600_000, 3_900_000].map(spokenDuration)).toEqual(['4 s', '59 s', '1 min', '3 min', '1 h', '1 h 5 min']);
  expect([-5, 7_900, 750_000, 3_723_000].map(clock)).toEqual(['0:00', '0:07', '12:30', '1:02:03']);
});
