// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { Info } from '../meet/api.ts';
import { ASK_MS, Attendances } from './attendance.ts';

let people: number | 'over' | 'down';
let asked: number;
let attendances: Attendances;

beforeEach(() => {
  vi.useFakeTimers();
  people = 1;
  asked = 0;
  attendances = new Attendances(async () => {
    asked++;
    if (people === 'down') throw new Error('unreachable');
    return { exists: people !== 'over', participants: people === 'over' ? 0 : people } as Info;
  });
});
afterEach(() => {
  attendances.stop();
  vi.useRealTimers();
});

it('asks while somebody looks, and tells what changes', async () => {
  const told = vi.fn();
  const stop = attendances.watch('m', told);
  await vi.advanceTimersByTimeAsync(0);
  expect(attendances.of('m')).toBe(1);
  await vi.advanceTimersByTimeAsync(ASK_MS);
  expect([asked, told.mock.calls.length]).toEqual([2, 1]);
  people = 3;
  await vi.advanceTimersByTimeAsync(ASK_MS);
  expect([attendances.of('m'), told.mock.calls.length]).toEqual([3, 2]);
  stop();
  await vi.advanceTimersByTimeAsync(10 * ASK_MS);
  expect(asked).toBe(3);
});

it('a server that is away changes nothing, and what is over is not asked of again', async () => {
  attendances.watch('m', () => {});
  await vi.advanceTimersByTimeAsync(0);
  people = 'down';
  await vi.advanceTimersByTimeAsync(ASK_MS);
  expect(attendances.of('m')).toBe(1);
  people = 'over';
  await vi.advanceTimersByTimeAsync(ASK_MS);
  expect(attendances.of('m')).toBe('over');
  const before = asked;
  await vi.advanceTimersByTimeAsync(3 * ASK_MS);
  expect(asked).toBe(before);
});

it('does not ask while the page is hidden', async () => {
  const hidden = vi.spyOn(document, 'visibilityState', 'get').mockReturnValue('hidden');
  attendances.watch('m', () => {});
  await vi.advanceTimersByTimeAsync(5 * ASK_MS);
  expect(asked).toBe(1);
  hidden.mockReturnValue('visible');
  document.dispatchEvent(new Event('visibilitychange'));
  await vi.advanceTimersByTimeAsync(0);
  expect(asked).toBe(2);
  hidden.mockRestore();
});
