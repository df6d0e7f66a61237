// SPDX-License-Identifier: Apache-2.0
// The wire of Jitsi's IFrame API: JSON texts over postMessage,
//
//	{"postis":true,"scope":"jitsi_meet_external_api_0","method":"__ready__","params":"<a random word>"}
//	{"postis":true,"scope":"jitsi_meet_external_api_0","method":"message","params":{"type":"event","data":{"name":"toggle-audio","data":[]}}}
//
// Each side repeats `__ready__` with a word of its own until it hears that word back; what it has to say waits until then.

/** Messages that wait for the other side at most; the oldest give way. */
const WAITING = 1000;
/** A longer message is not read, in characters. */
const LONGEST = 1024 * 1024;
/** How often `__ready__` is said at first and at last, in milliseconds. */
const SOON = 50;
const LATE = 1000;

export interface Ends {
  scope: string;
  /** The window at the other end. */
  peer: Window;
  /** Its origin. Left out inside a frame, which does not know who is around it: then the first who speaks with the right scope is it, for good. */
  origin?: string;
  onMessage: (message: unknown) => void;
  onConnected?: () => void;
}

export class Channel {
  private readonly ends: Ends;
  private readonly word: string;
  private readonly listener: (e: MessageEvent) => void;
  private origin: string | undefined;
  private waiting: unknown[] = [];
  private timer: ReturnType<typeof setTimeout> | undefined;
  private pause = SOON;
  private closed = false;
  connected = false;

  constructor(ends: Ends) {
    this.ends = ends;
    this.origin = ends.origin;
    this.word = crypto.getRandomValues(new Uint32Array(4)).join('-');
    this.listener = (e) => this.hear(e);
    window.addEventListener('message', this.listener);
    this.knock();
  }

  /** Sends, now or once the other side is there. */
  send(message: unknown): void {
    if (this.closed) return;
    if (this.connected) return this.post('message', message);
    this.waiting.push(message);
    if (this.waiting.length > WAITING) this.waiting.shift();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    window.removeEventListener('message', this.listener);
    this.waiting = [];
  }

  private knock(): void {
    if (this.connected || this.closed) return;
    if (this.origin !== undefined) this.post('__ready__', this.word);
    this.pause = Math.min(LATE, this.pause * 1.02);
    this.timer = setTimeout(() => this.knock(), this.pause);
  }

  private hear(e: MessageEvent): void {
    if (e.source !== this.ends.peer || typeof e.data !== 'string' || e.data.length > LONGEST) return;
    // Who has no address of its own ("null") could be anybody, and could not be answered without telling everybody.
    if (this.origin === undefined ? !/^https?:\/\//.test(e.origin) : e.origin !== this.origin) return;
    let said: { postis?: unknown; scope?: unknown; method?: unknown; params?: unknown } | null;
    try {
      said = JSON.parse(e.data) as typeof said;
    } catch {
      return;
    }
    if (typeof said !== 'object' || said === null || said.postis !== true || said.scope !== this.ends.scope) return;
    if (said.method === '__ready__' && typeof said.params === 'string') {
      this.origin = e.origin;
      if (said.params !== this.word) return this.post('__ready__', said.params);
      if (this.connected) return;
      this.connected = true;
      clearTimeout(this.timer);
      for (const message of this.waiting.splice(0)) this.post('message', message);
      this.ends.onConnected?.();
    } else if (said.method === 'message' && this.origin !== undefined) {
      this.ends.onMessage(said.params);
    }
  }

  private post(method: string, params: unknown): void {
    this.ends.peer.postMessage(JSON.stringify({ postis: true, scope: this.ends.scope, method, params }), this.origin!);
  }
}
