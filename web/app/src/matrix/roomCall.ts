// SPDX-License-Identifier: Apache-2.0
// The call of a room, as its members are told of it: a message with a link, which every Matrix client shows, and beside it what ours
// makes a card of. The meeting lies on the server of whoever sent the message.
import { newKey } from '../meet/options.ts';
import { serverPart } from './names.ts';
import type { RawEvent } from './raw.ts';

/** The part of the message that makes it a call's: `{ url, video }`. */
export const ROOM_CALL = 'io.trunkboard.call';
/** The type of the Matrix room that the server makes for such a call. It is none that one talks in. */
export const CALL_ROOM = 'io.trunkboard.call';
/** No call runs longer than this, in milliseconds: of older messages nobody asks. */
export const LONGEST_MS = 24 * 60 * 60 * 1000;

export interface RoomCall {
  /** Of the meeting: its part of the link. */
  name: string;
  /** For the end-to-end encryption; undefined where the room is not encrypted either. */
  key?: string;
  video: boolean;
  /** What anybody opens who has no card. */
  url: string;
  /** The meeting is on our own server: it can be joined in place, and asked who is there. */
  here: boolean;
}

const LONGEST_URL = 600;
const KEY = /^#key=([A-Za-z0-9_-]{43})$/;

function linkOf(origin: string, name: string, key?: string): string {
  return `${origin}/meet/${encodeURIComponent(name)}${key ? `#key=${key}` : ''}`;
}

/** A call that begins: under a name that nobody guesses, with a key of its own where what is written in the room is encrypted too. */
export function newRoomCall(origin: string, encrypted: boolean, video: boolean): RoomCall {
  const letters = 'abcdefghijklmnopqrstuvwxyz234567';
  const name = [...crypto.getRandomValues(new Uint8Array(26))].map((n) => letters[n % 32]).join('');
  const key = encrypted ? newKey() : undefined;
  return { name, key, video, url: linkOf(origin, name, key), here: true };
}

/** The message that tells a room of a call. */
export function announcement({ url, video }: RoomCall): Record<string, unknown> {
  const words = `Started a ${video ? 'video' : 'voice'} call.`;
  return {
    msgtype: 'm.text',
    body: `${words} Join: ${url}`,
    format: 'org.matrix.custom.html',
    formatted_body: `${words} <a href="${url}">Join</a>`,
    'm.mentions': {},
    [ROOM_CALL]: { url, video },
  };
}

/**
 * The call that a message tells `me` of, or undefined when it tells of none. Whoever wrote it may have written anything: of a call on our
 * own server only the name and the key are taken, and the rest of the address is ours (people reach one server under several); that of
 * another must be a meeting's, by HTTPS.
 */
export function roomCallOf(event: RawEvent, me: string, origin = location.origin): RoomCall | undefined {
  if (event.type !== 'm.room.message' || event.redacted || event.unreadable) return undefined;
  const said = event.content[ROOM_CALL];
  if (typeof said !== 'object' || said === null) return undefined;
  const { url, video } = said as { url?: unknown; video?: unknown };
  if (typeof url !== 'string' || url.length > LONGEST_URL || !URL.canParse(url)) return undefined;
  const at = new URL(url);
  const name = nameIn(at.pathname);
  if (!name || at.username || at.password) return undefined;
  const here = serverPart(event.sender) === serverPart(me);
  if (!here && at.protocol !== 'https:') return undefined;
  const key = KEY.exec(at.hash)?.[1];
  return { name, key, video: video === true, url: linkOf(here ? origin : at.origin, name, key), here };
}

function nameIn(path: string): string | undefined {
  const segment = /^\/meet\/([^/]+)$/.exec(path)?.[1];
  try {
    return segment && decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}

/** `Video call`, `Voice call`. */
export function roomCallTitle({ video }: RoomCall): string {
  return video ? 'Video call' : 'Voice call';
}
