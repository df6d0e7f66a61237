// SPDX-License-Identifier: Apache-2.0
// The meeting API of the server, `/_trunkboard/meet/v1`: how one gets in, and what hosts may do.
import type { OpenIdToken } from './control.ts';

/** What may be known before one is in. */
export interface Info {
  name: string;
  exists: boolean;
  subject: string;
  access: 'open' | 'password' | 'lobby' | 'closed';
  e2ee: boolean;
  participants: number;
  may_create: boolean;
  sign_in_required: boolean;
  jwt_required: boolean;
}

/** Everything that one who was let in needs. */
export interface Entry {
  session: string;
  room_id: string;
  user_id: string;
  display_name: string;
  identity: string;
  host: boolean;
  subject: string;
  e2ee: boolean;
  media: { url: string; token: string; ice_servers?: RTCIceServer[] };
  matrix?: { base_url: string; access_token?: string; device_id: string; user_id: string };
}

/** One time that people met under a name; times are Unix milliseconds, 0 for what has not ended. */
export interface MeetingRecord {
  subject: string;
  started: number;
  ended: number;
  people: { user_id: string; display_name: string; came: number; went: number }[];
}

export interface JoinRequest {
  display_name: string;
  avatar_url?: string;
  password?: string;
  jwt?: string;
  openid?: OpenIdToken;
  room_id?: string;
  e2ee?: boolean;
  /** What begins is the call of a room: nothing of it is left when all are gone. `subject` is what it is about. */
  call?: boolean;
  subject?: string;
  session?: string;
}

/** In, or told to wait until a host opens. */
export type Admission = { entry: Entry } | { waiting: true; session: string };

export type HostAction =
  | { action: 'mute'; identity: string; kind: 'audio' | 'video' | 'screen' }
  | { action: 'mute_all'; kind: 'audio' | 'video' | 'screen' }
  | { action: 'ask_unmute'; identity: string; kind: 'audio' | 'video' }
  | { action: 'may_unmute'; kind: 'audio' | 'video'; allowed: boolean }
  | { action: 'kick'; identity: string; reason?: string; ban?: boolean }
  | { action: 'promote' | 'demote'; identity: string }
  | { action: 'admit' | 'deny'; user_id: string }
  | { action: 'admit_all' | 'end' }
  | { action: 'lobby'; on: boolean }
  | { action: 'password'; password: string }
  | { action: 'subject'; subject: string };

/** The server said no. `code` is its errcode, `status` that of HTTP; 0 when it was not reached. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    text: string,
  ) {
    super(text);
    this.name = 'Refusal';
  }

  /** Worth another try later: the server was not reached, is restarting or busy. */
  get passing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

type Fetch = typeof fetch;

const BASE = '/_trunkboard/meet/v1';

/** Speaks for one meeting. `fetch` puts a signed-in person's token on requests that carry an Authorization header. */
export class MeetApi {
  constructor(
    private readonly name: string,
    private readonly fetch: Fetch = window.fetch.bind(window),
    private readonly bearer: () => string | undefined = () => undefined,
  ) {}

  info(): Promise<Info> {
    return this.ask<Info>('GET', '');
  }

  async join(request: JoinRequest): Promise<Admission> {
    return admission(await this.ask<Entry | Waiting>('POST', '/join', request));
  }

  /** Returns after half a minute at the latest, in or not. */
  async wait(session: string, signal?: AbortSignal): Promise<Admission> {
    return admission(await this.ask<Entry | Waiting>('POST', '/wait', { session }, { signal }), session);
  }

  token(session: string): Promise<{ url: string; token: string }> {
    return this.ask('POST', '/token', { session });
  }

  leave(session: string): Promise<unknown> {
    return this.ask('POST', '/leave', { session }, { keepalive: true });
  }

  /** Says goodbye from a page that is going away. */
  leaveInPassing(session: string): void {
    navigator.sendBeacon?.(this.url('/leave'), JSON.stringify({ session }));
  }

  async knocks(session: string): Promise<{ user_id: string; display_name: string; since: number }[]> {
    const answer = await this.ask<{ knocks?: { user_id: string; display_name: string; since: number }[] }>('GET', '/knocks', undefined, { headers: { Authorization: `Session ${session}` } });
    return answer.knocks ?? [];
  }

  /** What took place here, newest first; for hosts. */
  async records(session: string): Promise<MeetingRecord[]> {
    const answer = await this.ask<{ meetings?: MeetingRecord[] }>('GET', `${BASE}/records?name=${encodeURIComponent(this.name)}`, undefined, { headers: { Authorization: `Session ${session}` } });
    return answer.meetings ?? [];
  }

  host(session: string, action: HostAction): Promise<unknown> {
    return this.ask('POST', '/host', { session, ...action });
  }

  private url(path: string): string {
    return path.startsWith(BASE) ? path : `${BASE}/${encodeURIComponent(this.name)}${path}`;
  }

  private async ask<T>(method: string, path: string, body?: unknown, init: RequestInit = {}): Promise<T> {
    const headers = new Headers(init.headers);
    if (body !== undefined) headers.set('Content-Type', 'application/json');
    const token = this.bearer();
    const own = headers.has('Authorization');
    // Who comes with an OpenID token comes as the one it names, whoever is signed in here.
    const named = (body as JoinRequest | undefined)?.openid !== undefined;
    if (token && !own && !named && (path === '/join' || path === '')) headers.set('Authorization', `Bearer ${token}`);
    let response: Response;
    try {
      response = await (own ? window.fetch : this.fetch)(this.url(path), { ...init, method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    } catch (cause) {
      if (cause instanceof DOMException && cause.name === 'AbortError') throw cause;
      throw new Refusal(0, 'UNREACHABLE', 'The server cannot be reached.');
    }
    const text = await response.text().catch(() => '');
    const answer = parse(text);
    if (!response.ok) {
      const code = typeof answer?.errcode === 'string' ? answer.errcode : 'M_UNKNOWN';
      throw new Refusal(response.status, code, typeof answer?.error === 'string' ? answer.error : `The server answered ${response.status}.`);
    }
    if (!answer) throw new Refusal(502, 'M_UNKNOWN', 'The server’s answer cannot be read.');
    return answer as T;
  }
}

interface Waiting {
  waiting: true;
  session?: string;
}

function admission(answer: Entry | Waiting, session = ''): Admission {
  if ('waiting' in answer) return { waiting: true, session: answer.session ?? session };
  return { entry: answer };
}

function parse(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return value !== null && typeof value === 'object' && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
