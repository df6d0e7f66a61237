// SPDX-License-Identifier: Apache-2.0
// How many people are in the calls that one looks at. The server is asked every few seconds, while the page is seen and a card or a
// button shows the answer.
import type { Info } from '../meet/api.ts';

/** People in it; 'over' for a call that is no more; undefined before the first answer. */
export type Attendance = number | 'over' | undefined;

export const ASK_MS = 8000;

export class Attendances {
  private readonly known = new Map<string, Attendance>();
  private readonly watchers = new Map<string, Set<() => void>>();
  private timer: ReturnType<typeof setInterval> | undefined;
  private readonly ask: (name: string) => Promise<Info>;

  constructor(ask: (name: string) => Promise<Info>) {
    this.ask = ask;
  }

  of(name: string): Attendance {
    return this.known.get(name);
  }

  /** Calls `f` when the number of a meeting changes, and keeps asking, until the returned function is called. */
  watch(name: string, f: () => void): () => void {
    let all = this.watchers.get(name);
    if (!all) this.watchers.set(name, (all = new Set()));
    all.add(f);
    if (all.size === 1) void this.refresh(name);
    if (!this.timer) {
      this.timer = setInterval(this.round, ASK_MS);
      document.addEventListener('visibilitychange', this.round);
    }
    return () => {
      all.delete(f);
      if (all.size === 0 && this.watchers.get(name) === all) this.watchers.delete(name);
      if (this.watchers.size === 0) this.stop();
    };
  }

  /** Asks now. A server that does not answer leaves what was known. */
  async refresh(name: string): Promise<Attendance> {
    if (this.known.get(name) === 'over') return 'over';
    try {
      const { exists, participants } = await this.ask(name);
      this.tell(name, exists ? participants : 'over');
    } catch {
      // Asked again in the next round.
    }
    return this.known.get(name);
  }

  /** Whoever is in a call knows before the server is asked. */
  tell(name: string, attendance: Attendance): void {
    if (this.known.get(name) === attendance) return;
    this.known.set(name, attendance);
    for (const f of [...(this.watchers.get(name) ?? [])]) f();
  }

  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    document.removeEventListener('visibilitychange', this.round);
  }

  private round = (): void => {
    if (document.visibilityState !== 'visible') return;
    for (const name of this.watchers.keys()) void this.refresh(name);
  };
}
