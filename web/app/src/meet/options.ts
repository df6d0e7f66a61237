// SPDX-License-Identifier: Apache-2.0
import type { Options } from './control.ts';

/**
 * The meeting that a path names: `/meet/<name>`, `/<name>`, or `/<tenant>/<name>` as in Jitsi; "" when it names none, as `/meet/`. The server
 * normalises it; what cannot be decoded is taken as it stands.
 */
export function nameOf(path: string): string {
  const raw = path.replace(/^\/+|\/+$/g, '').replace(/^meet(?:\/|$)/, '');
  try {
    return decodeURIComponent(raw);
  } catch {
    return raw;
  }
}

/** The end-to-end key in a link's fragment, `#key=<base64url of 32 bytes>`, which no server ever sees; undefined when there is none. */
export function keyOf(hash: string): string | undefined {
  const match = /(?:^#|&)key=([A-Za-z0-9_-]{43})(?:&|$)/.exec(hash);
  return match?.[1];
}

/** A fresh key: 32 random bytes, base64url without padding. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
}

/** A remembered answer; pages in somebody else's frame may be denied storage, and then remember nothing. */
export function remembered(key: string): string {
  try {
    return localStorage.getItem(key) ?? '';
  } catch {
    return '';
  }
}

export function remember(key: string, value: string): void {
  try {
    if (value) localStorage.setItem(key, value);
    else localStorage.removeItem(key);
  } catch {
    // Storage is denied or full: the next visit asks again.
  }
}

export const NAME_KEY = 'trunkboard.meet.name';
const DEVICES_KEY = 'trunkboard.meet.devices';

export function rememberedDevices(): NonNullable<Options['devices']> {
  try {
    const stored = JSON.parse(remembered(DEVICES_KEY) || '{}') as Record<string, unknown>;
    const text = (key: string) => (typeof stored[key] === 'string' ? (stored[key] as string) : undefined);
    return { audioInput: text('audioInput'), audioOutput: text('audioOutput'), videoInput: text('videoInput') };
  } catch {
    return {};
  }
}

export function rememberDevices(devices: NonNullable<Options['devices']>): void {
  remember(DEVICES_KEY, JSON.stringify(devices));
}

/** What the page's own address says. */
export function optionsOf(place: { pathname: string; search: string }): Options {
  const query = new URLSearchParams(place.search);
  const language = query.get('lang') ?? undefined;
  const theme = query.get('theme');
  return {
    name: nameOf(place.pathname),
    displayName: remembered(NAME_KEY) || undefined,
    language,
    theme: theme === 'light' || theme === 'dark' ? theme : undefined,
    prejoin: true,
    startMuted: { audio: false, video: false },
    audioOnly: false,
    embedded: false,
    devices: rememberedDevices(),
    jwt: query.get('jwt') ?? undefined,
  };
}
