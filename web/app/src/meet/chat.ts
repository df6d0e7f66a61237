// SPDX-License-Identifier: Apache-2.0
// The chat of a meeting is its Matrix room: what is needed of the client API for one room, and no more.

export interface RoomMessage {
  eventId: string;
  sender: string;
  name: string;
  text: string;
  at: number;
  /** Of our own sending: the transaction it went out with. */
  txn?: string;
}

export interface ChatAccess {
  baseUrl: string;
  userId: string;
  roomId: string;
  /** Puts the newest token on the request. */
  fetch: (url: string, init: RequestInit) => Promise<Response>;
}

const POLL_MS = 30_000;
/** Longer texts than this are cut before sending, in characters: an event holds 64 KiB. */
export const LONGEST = 8000;

interface Event {
  type?: string;
  event_id?: string;
  sender?: string;
  state_key?: string;
  origin_server_ts?: number;
  content?: Record<string, unknown>;
  unsigned?: { transaction_id?: string };
}

interface Sync {
  next_batch?: string;
  rooms?: { join?: Record<string, { state?: { events?: Event[] }; timeline?: { events?: Event[] } }> };
}

/** Reads and writes the messages of one room from now on, with the last ones before. */
export class MatrixChat {
  private readonly stop = new AbortController();
  private readonly names = new Map<string, string>();
  private counter = 0;

  constructor(
    private readonly access: ChatAccess,
    private readonly hear: (message: RoomMessage) => void,
  ) {}

  /** Follows the room until close(); a server that is away is asked again and again, ever less often. */
  async run(): Promise<void> {
    let since = '';
    let pause = 500;
    while (!this.stop.signal.aborted) {
      try {
        const sync = await this.poll(since);
        if (sync.next_batch) since = sync.next_batch;
        this.read(sync);
        pause = 500;
      } catch {
        if (this.stop.signal.aborted) return;
        await sleep(pause, this.stop.signal);
        pause = Math.min(pause * 2, 15_000);
      }
    }
  }

  close(): void {
    this.stop.abort();
  }

  /** Resolves when the server has it. Sent once more under the same transaction if the first answer never came. */
  async say(text: string): Promise<string> {
    const { baseUrl, roomId } = this.access;
    const txn = `meet.${Date.now().toString(36)}.${this.counter++}`;
    const url = `${baseUrl}/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/send/m.room.message/${txn}`;
    const init: RequestInit = { method: 'PUT', headers: { Authorization: '', 'Content-Type': 'application/json' }, body: JSON.stringify({ msgtype: 'm.text', body: text.slice(0, LONGEST) }) };
    const response = await this.access.fetch(url, init).catch(() => this.access.fetch(url, init));
    if (!response.ok) throw new Error(`The message was not taken (${response.status}).`);
    return ((await response.json()) as { event_id: string }).event_id;
  }

  private async poll(since: string): Promise<Sync> {
    const none = { types: [] };
    const filter = {
      room: { rooms: [this.access.roomId], timeline: { limit: 50, types: ['m.room.message', 'm.room.member'] }, state: { lazy_load_members: true, types: ['m.room.member'] }, ephemeral: none, account_data: none },
      presence: none,
      account_data: none,
    };
    const query = new URLSearchParams({ filter: JSON.stringify(filter), set_presence: 'offline' });
    if (since) {
      query.set('since', since);
      query.set('timeout', String(POLL_MS));
    }
    const response = await this.access.fetch(`${this.access.baseUrl}/_matrix/client/v3/sync?${query}`, { headers: { Authorization: '' }, signal: this.stop.signal });
    if (!response.ok) throw new Error(`sync answers ${response.status}`);
    return (await response.json()) as Sync;
  }

  private read(sync: Sync): void {
    const room = sync.rooms?.join?.[this.access.roomId];
    for (const event of [...(room?.state?.events ?? []), ...(room?.timeline?.events ?? [])]) {
      const { content } = event;
      if (event.type === 'm.room.member' && event.state_key) {
        if (typeof content?.displayname === 'string') this.names.set(event.state_key, content.displayname);
        continue;
      }
      const message = messageOf(event, this.names);
      if (message) this.hear(message);
    }
  }
}

/** A message as plain text, whatever else it carries; null for what is none. */
export function messageOf(event: Event, names: Map<string, string>): RoomMessage | null {
  const { content, sender, event_id: eventId } = event;
  if (event.type !== 'm.room.message' || !sender || !eventId || typeof content?.body !== 'string' || content.body === '') return null;
  const kind = content.msgtype;
  if (kind !== 'm.text' && kind !== 'm.notice' && kind !== 'm.emote') return null;
  const text = kind === 'm.emote' ? `* ${content.body}` : content.body;
  return { eventId, sender, name: names.get(sender) ?? sender.replace(/^@([^:]*):.*$/, '$1'), text: text.slice(0, LONGEST), at: Number(event.origin_server_ts) || Date.now(), txn: event.unsigned?.transaction_id };
}

export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    }
    signal?.addEventListener('abort', done);
    if (signal?.aborted) done();
  });
}
