// SPDX-License-Identifier: Apache-2.0

/** What a signed-in browser keeps: everything needed to speak to the homeserver again after a reload. */
export interface Session {
  /** Origin of the client API without a trailing slash, e.g. `https://chat.example.org`. */
  baseUrl: string;
  userId: string;
  deviceId: string;
  accessToken: string;
  refreshToken?: string;
  /** Unix time in milliseconds after which the access token is refused; absent when it never expires. */
  expiresAt?: number;
}

const KEY = 'trunkboard.session';

/** The homeserver to use: this page's own origin, unless a developer points `trunkboard.homeserver` elsewhere. */
export function defaultHomeserver(): string {
  return (localStorage.getItem('trunkboard.homeserver') ?? location.origin).replace(/\/+$/, '');
}

export function loadSession(): Session | null {
  const text = localStorage.getItem(KEY);
  if (!text) return null;
  try {
    const s = JSON.parse(text) as Partial<Session>;
    if (s.baseUrl && s.userId && s.deviceId && s.accessToken) return s as Session;
  } catch {
    // A half-written or foreign value: the person signs in again.
  }
  return null;
}

export function saveSession(session: Session): void {
  localStorage.setItem(KEY, JSON.stringify(session));
}

export function clearSession(): void {
  localStorage.removeItem(KEY);
}
