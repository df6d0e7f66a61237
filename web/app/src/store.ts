// SPDX-License-Identifier: Apache-2.0
// The one store: plain snapshots that the screens draw. The live objects (client, calls) write into it.
import { create } from 'zustand';
import type { RoomItem } from './matrix/roomItem.ts';
import { loadDevices, type DeviceChoice } from './calls/devices.ts';
import type { CallView, IncomingView } from './calls/view.ts';
import type { EncryptionView, VerificationView } from './encryption/view.ts';

export type SyncStatus = 'starting' | 'ready' | 'offline';

export interface Toast {
  id: number;
  tone: 'info' | 'problem';
  words: string;
  /** Offers to do something about it. */
  action?: { label: string; do: () => void };
}

export interface GroupView {
  roomId: string;
  name: string;
  /** The name of our own meeting in which it is held; undefined for Element Call. */
  meeting?: string;
  /** We are in it; before that its page asks how we want to look. */
  joined: boolean;
  minimised: boolean;
}

export interface AppState {
  sync: SyncStatus;
  rooms: RoomItem[];
  /** What we call ourselves. */
  ownName: string;
  /** The open conversation, or null for none (on a phone: the list). */
  roomId: string | null;
  /** The list of calls is open instead of a conversation. */
  calls: boolean;
  call: CallView | null;
  incoming: IncomingView | null;
  /** The group call that this device has open. */
  group: GroupView | null;
  /** Chosen microphone, camera and speaker. */
  devices: DeviceChoice;
  encryption: EncryptionView;
  /** A new recovery key, until the person says that it is saved. It is shown this once. */
  recoveryKey: { words: string; open: boolean } | null;
  verification: VerificationView | null;
  /** The dialog that confirms this device is open. */
  confirming: boolean;
  toasts: Toast[];
}

const empty = (): AppState => ({
  sync: 'starting',
  rooms: [],
  ownName: '',
  roomId: null,
  calls: false,
  call: null,
  incoming: null,
  group: null,
  devices: loadDevices(),
  encryption: { phase: 'starting', problem: '' },
  recoveryKey: null,
  verification: null,
  confirming: false,
  toasts: [],
});

export const useApp = create<AppState>(empty);

/** Forgets everything about an account that signed out. */
export function resetStore(): void {
  useApp.setState(empty(), true);
}

/** At most this many messages stand on the screen; the oldest gives way. */
const MAX_TOASTS = 3;
let nextToast = 1;

export function toast(words: string, tone: Toast['tone'] = 'info', action?: Toast['action']): void {
  const id = nextToast++;
  useApp.setState((s) => ({ toasts: [...s.toasts, { id, tone, words, action }].slice(-MAX_TOASTS) }));
  setTimeout(() => dismissToast(id), action ? 20_000 : tone === 'problem' ? 9000 : 5000);
}

export function dismissToast(id: number): void {
  useApp.setState((s) => ({ toasts: s.toasts.filter((t) => t.id !== id) }));
}

const CALLS = '#/calls';

/** What is open lives in the address, so that reload and the back button work. */
export function readAddress(hash: string): { roomId: string | null; calls: boolean } {
  return { roomId: roomFromHash(hash), calls: hash === CALLS };
}

export function roomFromHash(hash: string): string | null {
  const match = /^#\/room\/(.+)$/.exec(hash);
  if (!match) return null;
  try {
    return decodeURIComponent(match[1]!);
  } catch {
    return null;
  }
}

export function openRoom(roomId: string | null): void {
  const hash = roomId ? `#/room/${encodeURIComponent(roomId)}` : '#/';
  if (location.hash !== hash) location.hash = hash;
  useApp.setState({ roomId, calls: false });
}

export function openCalls(): void {
  if (location.hash !== CALLS) location.hash = CALLS;
  useApp.setState({ roomId: null, calls: true });
}

/** Merges a change into the current call; does nothing when the call is another one by now. */
export function patchCall(callId: string, change: Partial<CallView>): void {
  useApp.setState((s) => (s.call?.callId === callId ? { call: { ...s.call, ...change } } : {}));
}
