// SPDX-License-Identifier: Apache-2.0

/** Adds up how long each person has spoken. Times are milliseconds of any one clock. */
export class TalkClock {
  private readonly totals = new Map<string, number>();
  private readonly since = new Map<string, number>();

  /** These speak from now on, nobody else does. */
  speak(ids: string[], now: number): void {
    const speaking = new Set(ids);
    for (const [id, began] of this.since) {
      if (speaking.has(id)) continue;
      this.totals.set(id, (this.totals.get(id) ?? 0) + (now - began));
      this.since.delete(id);
    }
    for (const id of speaking) if (!this.since.has(id)) this.since.set(id, now);
  }

  /** Milliseconds of one person, the current sentence included. */
  of(id: string, now: number): number {
    const began = this.since.get(id);
    return (this.totals.get(id) ?? 0) + (began === undefined ? 0 : now - began);
  }
}

/** A new speaker must go on that long before the big picture changes, in milliseconds. */
const PATIENCE_MS = 900;

/** Whose picture is big: not everybody who coughs. */
export class Spotlight {
  private next?: { id: string; since: number };
  current?: string;

  /** `loudest` speaks now, undefined is silence. Returns who is to be shown big; the last one stays through a silence. */
  hear(loudest: string | undefined, now: number): string | undefined {
    if (loudest === undefined || loudest === this.current) {
      this.next = undefined;
    } else if (this.current === undefined) {
      this.current = loudest;
    } else if (this.next?.id !== loudest) {
      this.next = { id: loudest, since: now };
    } else if (now - this.next.since >= PATIENCE_MS) {
      this.current = loudest;
      this.next = undefined;
    }
    return this.current;
  }

  /** Somebody is gone. */
  forget(id: string): void {
    if (this.current === id) this.current = undefined;
    if (this.next?.id === id) this.next = undefined;
  }

  /** Milliseconds until `hear` must be asked again for a speaker who goes on, or undefined. */
  get due(): number | undefined {
    return this.next ? PATIENCE_MS : undefined;
  }
}
