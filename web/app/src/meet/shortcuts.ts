// SPDX-License-Identifier: Apache-2.0
// Single keys, as Jitsi's people know them. WCAG 2.1.4: they can be turned off, and do nothing while one types.

export const SHORTCUTS_KEY = 'trunkboard.meet.shortcuts';

export type Shortcut = 'mic' | 'camera' | 'screen' | 'chat' | 'people' | 'hand' | 'view' | 'statistics' | 'invite' | 'fullscreen' | 'quality' | 'help' | { pin: number };

const KEYS: Record<string, Shortcut> = { m: 'mic', v: 'camera', d: 'screen', c: 'chat', p: 'people', r: 'hand', w: 'view', t: 'statistics', i: 'invite', s: 'fullscreen', a: 'quality', '?': 'help' };

interface Press {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
  repeat: boolean;
  target: EventTarget | null;
}

/** True where keys are letters, or move something. */
export function typing(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest('input, textarea, select, [contenteditable], [role=menu], dialog') !== null;
}

/** What a key asks for, or null. */
export function shortcutOf(e: Press): Shortcut | null {
  if (e.ctrlKey || e.metaKey || e.altKey || e.repeat || typing(e.target)) return null;
  if (/^[0-9]$/.test(e.key)) return { pin: Number(e.key) };
  return KEYS[e.key.toLowerCase()] ?? null;
}

/** Whether this key is the one that lets somebody speak while it is held: not where it presses a button. */
export function isTalkKey(e: Press): boolean {
  return e.key === ' ' && !e.ctrlKey && !e.metaKey && !e.altKey && !typing(e.target) && !(e.target instanceof Element && e.target.closest('button, a, [role=log], summary'));
}
