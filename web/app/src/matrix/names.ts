// SPDX-License-Identifier: Apache-2.0
import type { Room } from 'matrix-js-sdk';

/** The local part of a user id: `@ann:example.org` gives `ann`. */
export function localPart(userId: string): string {
  const match = /^@([^:]*):/.exec(userId);
  return match?.[1] || userId;
}

/** The server part of a user id. */
export function serverPart(userId: string): string {
  const colon = userId.indexOf(':');
  return colon < 0 ? '' : userId.slice(colon + 1);
}

/** Signs that turn the writing direction of what follows, that nobody sees, or that are no text. */
const TRICKS = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A name that others chose, as it may stand among our own words: with nothing in it that makes these look different. */
export function plainName(name: string): string {
  return name.replace(TRICKS, '').replace(/\s+/g, ' ').trim().slice(0, 255);
}

/** What a room calls a person: the display name it knows, else the local part of the id. */
export function displayName(room: Room | null, userId: string): string {
  const member = room?.getMember(userId);
  const name = plainName(member?.rawDisplayName ?? '');
  return name && name !== userId ? name : localPart(userId);
}

/**
 * Reads what a person types to name somebody: `ann`, `@ann`, or `@ann:example.org`. Returns the full user id on
 * `server` when none is given, or null when it cannot be a user id.
 */
export function parseUser(input: string, server: string): string | null {
  const trimmed = input.trim();
  const full = /^@?([a-z0-9._=\-/+]+):([A-Za-z0-9.\-:[\]]+)$/.exec(trimmed);
  if (full) return `@${full[1]}:${full[2]}`;
  const local = /^@?([a-z0-9._=\-/+]+)$/.exec(trimmed.toLowerCase());
  return local ? `@${local[1]}:${server}` : null;
}

/** One or two letters for an avatar without a picture. */
export function initials(name: string): string {
  const words = name.replace(/^[@#!]/, '').split(/[\s._-]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words[words.length - 1]] : [words[0] ?? '?'];
  return letters.map((w) => [...(w ?? '')][0] ?? '').join('').toLocaleUpperCase();
}

/** A stable number from 0 to `count` - 1 for a name: picks an avatar's colour. */
export function colourOf(id: string, count: number): number {
  let hash = 0;
  for (const char of id) hash = (hash * 31 + char.codePointAt(0)!) >>> 0;
  return hash % count;
}
