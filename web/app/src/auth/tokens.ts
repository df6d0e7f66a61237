// SPDX-License-Identifier: Apache-2.0
import { loadSession, saveSession, type Session } from './session.ts';

/** A token is renewed this long before it ends, so that a request on a slow line still arrives in time. */
const EARLY_MS = 60_000;

/**
 * Keeps the access token of one session fresh. The Matrix SDK renews only OAuth sessions, so its requests go
 * through `fetch` here: it puts the current token on each request, renews it with `POST /refresh` (spec
 * "Refreshing access tokens") shortly before it ends or when the server calls it unknown, and repeats the request once.
 */
export class TokenKeeper {
  /** Called with each new session after a renewal. */
  onRenewed: (session: Session) => void = () => {};
  private session: Session;
  private renewal: Promise<boolean> | null = null;

  constructor(session: Session) {
    this.session = session;
  }

  get accessToken(): string {
    return this.session.accessToken;
  }

  /** `fetch` for the Matrix SDK. Requests that carry no token are passed on unchanged. */
  fetch = async (input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> => {
    const headers = new Headers(init.headers);
    if (!headers.has('Authorization')) return fetch(input, init);
    await this.renewIfDue();
    const used = this.session.accessToken;
    headers.set('Authorization', `Bearer ${used}`);
    // The hang-up of a tab that closes must outlive the page.
    const keepalive = /\/send\/m\.call\.(hangup|reject)\//.test(String(input));
    const response = await fetch(input, { ...init, headers, keepalive });
    if (response.status !== 401 || !this.session.refreshToken) return response;
    const body = (await response
      .clone()
      .json()
      .catch(() => ({}))) as { errcode?: string };
    if (body.errcode !== 'M_UNKNOWN_TOKEN') return response;
    if (!(await this.renew(used))) return response;
    headers.set('Authorization', `Bearer ${this.session.accessToken}`);
    return fetch(input, { ...init, headers });
  };

  /** Renews a token that ends soon. For requests that do not go through `fetch`: uploads, which report progress. */
  async renewIfDue(): Promise<void> {
    const { refreshToken, expiresAt, accessToken } = this.session;
    if (refreshToken && expiresAt && Date.now() > expiresAt - EARLY_MS) await this.renew(accessToken);
  }

  /** Renews unless somebody already did since `used` was put on a request. True when there is a new token. */
  private renew(used: string): Promise<boolean> {
    if (this.session.accessToken !== used) return Promise.resolve(true);
    this.renewal ??= this.renewOnce(used).finally(() => {
      this.renewal = null;
    });
    return this.renewal;
  }

  private renewOnce(used: string): Promise<boolean> {
    // A refresh token works once, and tabs share it: the lock lets one tab renew and the others read its result.
    const work = async (): Promise<boolean> => {
      const stored = loadSession();
      if (stored?.deviceId === this.session.deviceId && stored.accessToken !== used) {
        this.session = stored;
        this.onRenewed(stored);
        return true;
      }
      const response = await fetch(`${this.session.baseUrl}/_matrix/client/v3/refresh`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ refresh_token: this.session.refreshToken }),
      });
      if (!response.ok) return false;
      const answer = (await response.json()) as { access_token: string; refresh_token?: string; expires_in_ms?: number };
      this.session = {
        ...this.session,
        accessToken: answer.access_token,
        refreshToken: answer.refresh_token ?? this.session.refreshToken,
        expiresAt: answer.expires_in_ms === undefined ? undefined : Date.now() + answer.expires_in_ms,
      };
      saveSession(this.session);
      this.onRenewed(this.session);
      return true;
    };
    const guarded = navigator.locks ? navigator.locks.request('trunkboard.refresh', work) : work();
    return Promise.resolve(guarded).catch(() => false);
  }
}
