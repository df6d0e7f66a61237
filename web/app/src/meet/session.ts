// SPDX-License-Identifier: Apache-2.0
// What one is in a meeting with: the secret that leads back in, and the line while there is one.
import type { Entry, MeetApi } from './api.ts';
import type { Board } from './board.ts';
import type { Media } from './media.ts';
import type { Surroundings } from './surroundings.ts';

/** A guest's own token puts itself on requests. */
function withToken(token: string): (url: string, init: RequestInit) => Promise<Response> {
  return (url, init) => fetch(url, { ...init, headers: { ...(init.headers as Record<string, string>), Authorization: `Bearer ${token}` } });
}

export class Session {
  /** Shown to the server with every request; "" for whoever has not been let in. */
  secret: string;
  entry?: Entry;
  media?: Media;

  constructor(
    private readonly board: Board,
    private readonly around: Surroundings,
  ) {
    this.secret = this.recall()?.session ?? '';
  }

  get api(): MeetApi {
    return this.around.api(this.board.state.name);
  }

  /** The Matrix API as who one is here: with the guest's token, or one's own. Undefined for whoever came with neither. */
  get matrix(): { baseUrl: string; fetch: (url: string, init: RequestInit) => Promise<Response> } | undefined {
    const { entry, around } = this;
    if (!entry?.matrix) return undefined;
    const { access_token: token, base_url: baseUrl } = entry.matrix;
    if (token) return { baseUrl, fetch: withToken(token) };
    const { signedIn } = around;
    return signedIn && { baseUrl, fetch: (url, init) => signedIn.fetch(url, init) };
  }

  private get place(): string {
    return `trunkboard.meet.session.${this.board.state.name}`;
  }

  /** What this tab knew of the meeting before a reload. */
  recall(): { session: string; in: boolean; muted?: { audio: boolean; video: boolean } } | null {
    try {
      const kept = JSON.parse(this.around.memory.getItem(this.place) ?? 'null') as { session?: unknown; in?: unknown } | null;
      return typeof kept?.session === 'string' ? (kept as { session: string; in: boolean }) : null;
    } catch {
      return null;
    }
  }

  /** Keeps the secret, and how one was muted, for after a reload. */
  store(): void {
    try {
      this.around.memory.setItem(this.place, JSON.stringify({ session: this.secret, in: true, muted: this.board.state.wish }));
    } catch {
      // Without storage a reload asks again.
    }
  }

  forget(): void {
    this.secret = '';
    try {
      this.around.memory.removeItem(this.place);
    } catch {
      // Nothing was kept then.
    }
  }
}
