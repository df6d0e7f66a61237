// SPDX-License-Identifier: Apache-2.0

/** What the server says of a meeting, in the media session's metadata; kept up to date by it, read by every page. */
export interface RoomState {
  subject: string;
  hosts: Set<string>;
  lobby: boolean;
  password: boolean;
  knocking: number;
  e2ee: boolean;
  started?: number;
  mayUnmute: { audio: boolean; video: boolean };
}

/** Null for what is not such a state: an empty text before the first, or another version's. */
export function roomState(text: string): RoomState | null {
  let v: Record<string, unknown>;
  try {
    v = JSON.parse(text) as Record<string, unknown>;
  } catch {
    return null;
  }
  if (v === null || typeof v !== 'object' || v.v !== 1) return null;
  const may = (v.may_unmute ?? {}) as Record<string, unknown>;
  return {
    subject: typeof v.subject === 'string' ? v.subject : '',
    hosts: new Set(Array.isArray(v.hosts) ? v.hosts.filter((h): h is string => typeof h === 'string') : []),
    lobby: v.lobby === true,
    password: v.password === true,
    knocking: typeof v.knocking === 'number' ? v.knocking : 0,
    e2ee: v.e2ee === true,
    started: typeof v.started === 'number' ? v.started : undefined,
    mayUnmute: { audio: may.audio !== false, video: may.video !== false },
  };
}

/** A packet of the topic `tb.control`, or null. Only the server may send one. */
export type Control =
  | { type: 'muted'; kind: 'audio' | 'video' | 'screen'; by: string }
  | { type: 'ask_unmute'; kind: 'audio' | 'video' | 'screen'; by: string }
  | { type: 'kicked' | 'ended'; by: string; reason?: string };

export function control(payload: Uint8Array, from: string): Control | null {
  if (from !== '' || payload.length > 4096) return null;
  const v = json(payload);
  const by = typeof v?.by === 'string' ? v.by : '';
  if (v?.type === 'kicked' || v?.type === 'ended') return { type: v.type, by, reason: typeof v.reason === 'string' ? v.reason : undefined };
  const kind = v?.kind;
  if (kind !== 'audio' && kind !== 'video' && kind !== 'screen') return null;
  if (v?.type === 'muted' || v?.type === 'ask_unmute') return { type: v.type, kind, by };
  return null;
}

export const REACTIONS = ['👍', '👏', '😂', '😮', '❤️', '🎉'] as const;

/** The emoji of a packet of the topic `tb.reaction`, or null: a stranger's packet must not put words on everybody's screen. */
export function reaction(payload: Uint8Array): string | null {
  if (payload.length > 256) return null;
  const emoji = json(payload)?.emoji;
  return typeof emoji === 'string' && (REACTIONS as readonly string[]).includes(emoji) ? emoji : null;
}

function json(payload: Uint8Array): Record<string, unknown> | null {
  try {
    const v: unknown = JSON.parse(new TextDecoder().decode(payload));
    return v !== null && typeof v === 'object' ? (v as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
