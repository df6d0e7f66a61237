// SPDX-License-Identifier: Apache-2.0
// What the page shows: the snapshot that outsiders see, and what only the page itself needs.
import type { Info } from './api.ts';
import type { Options, Person, Snapshot } from './control.ts';

export interface Message {
  key: string;
  /** Identity, or the Matrix user id of somebody who is not there any more. */
  from: string;
  name: string;
  text: string;
  /** Unix milliseconds. */
  at: number;
  own: boolean;
  /** For two people only; `to` is the name of the other when it is our own. */
  private: boolean;
  to?: string;
}

/** What of a person can be looked at: a key per picture, which changes when the picture is another track. */
export interface Pictures {
  camera?: string;
  screen?: string;
}

export interface Notice {
  id: number;
  text: string;
  tone: 'info' | 'problem';
  /** Offers to do something about it. */
  action?: { label: string; do: () => void };
  /** A message of the chat, which is not told twice. */
  chat: boolean;
}

export interface Reaction {
  key: number;
  id: string;
  emoji: string;
}

export interface State extends Snapshot {
  options: Options;
  info?: Info;
  problem?: { code: string; text: string };
  pictures: Record<string, Pictures>;
  messages: Message[];
  reactions: Reaction[];
  notices: Notice[];
  /** Unix milliseconds at which the meeting began. */
  started?: number;
  /** Media is encrypted end to end; 'key' asks for a link that carries the key. */
  e2ee: 'off' | 'on' | 'key';
  blur: 'off' | 'loading' | 'on';
  /** The browser plays no sound before somebody clicks. */
  silent: boolean;
  audioOnly: boolean;
  /** The highest picture that is fetched, in pixels. */
  quality: number;
  /** Muted before there is a meeting; `me` says it afterwards. */
  wish: { audio: boolean; video: boolean };
  connecting: boolean;
}

/** The same object when nothing in it changed, so that what shows it need not be drawn again. */
export function keep<T extends object>(old: T | undefined, fresh: T): T {
  return old && alike(old, fresh) ? old : fresh;
}

/** Keeps every person's object that has not changed, and the list itself when none has. */
export function keepAll<T extends object>(old: T[], fresh: T[], id: (item: T) => string): T[] {
  const before = new Map(old.map((item) => [id(item), item]));
  const merged = fresh.map((item) => keep(before.get(id(item)), item));
  return merged.length === old.length && merged.every((item, i) => item === old[i]) ? old : merged;
}

function alike(a: object, b: object): boolean {
  const left = Object.entries(a);
  const right = b as Record<string, unknown>;
  if (left.length !== Object.keys(b).length) return false;
  return left.every(([key, value]) => {
    const other = right[key];
    if (value === other) return true;
    return typeof value === 'object' && value !== null && typeof other === 'object' && other !== null && alike(value as object, other);
  });
}

/** The order of people on the screen: oneself first, raised hands, then as they came. */
export function byRank(a: Person, b: Person): number {
  if (a.local !== b.local) return a.local ? -1 : 1;
  const [x, y] = [a.hand ?? Infinity, b.hand ?? Infinity];
  return x === y ? 0 : x - y;
}
