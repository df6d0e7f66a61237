// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { CallView } from './calls/view.ts';
import { dismissToast, openCalls, openRoom, patchCall, readAddress, resetStore, roomFromHash, toast, useApp } from './store.ts';

beforeEach(() => {
  vi.useFakeTimers();
  resetStore();
});
afterEach(() => vi.useRealTimers());

describe('toasts', () => {
  it('go by themselves, problems later', () => {
    toast('a');
    toast('b', 'problem');
    vi.advanceTimersByTime(6000);
    expect(useApp.getState().toasts.map((t) => t.words)).toEqual(['b']);
    vi.advanceTimersByTime(4000);
    expect(useApp.getState().toasts).toEqual([]);
  });

  it('are at most three, and can be dismissed', () => {
    for (const words of ['a', 'b', 'c', 'd']) toast(words);
    expect(useApp.getState().toasts.map((t) => t.words)).toEqual(['b', 'c', 'd']);
    dismissToast(useApp.getState().toasts[1]!.id);
    expect(useApp.getState().toasts.map((t) => t.words)).toEqual(['b', 'd']);
  });
});

it('keeps the open room in the address', () => {
  openRoom('!a/b:x');
  expect(location.hash).toBe('#/room/!a%2Fb%3Ax');
  expect(roomFromHash(location.hash)).toBe('!a/b:x');
  openRoom(null);
  expect(roomFromHash(location.hash)).toBeNull();
  expect(roomFromHash('#/room/%E0%A4%A')).toBeNull();
});

it('keeps the list of calls in the address', () => {
  openRoom('!a:x');
  openCalls();
  expect(readAddress(location.hash)).toEqual({ roomId: null, calls: true });
  expect(useApp.getState()).toMatchObject({ roomId: null, calls: true });
  openRoom('!a:x');
  expect(readAddress(location.hash)).toEqual({ roomId: '!a:x', calls: false });
  expect(useApp.getState().calls).toBe(false);
});

it('changes only the call that is meant', () => {
  const call = { callId: 'c1', notice: '' } as CallView;
  useApp.setState({ call });
  patchCall('c2', { notice: 'late' });
  expect(useApp.getState().call).toBe(call);
  patchCall('c1', { notice: 'now' });
  expect(useApp.getState().call).toEqual({ callId: 'c1', notice: 'now' });
});
