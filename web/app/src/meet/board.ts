// SPDX-License-Identifier: Apache-2.0
// The state of a meeting, and who is told when it changes: the page (watch) and those outside (subscribe).
import type { MeetingEvent, Phase } from './control.ts';
import type { Notice, State } from './state.ts';
import type { Words } from './words.ts';

const REACTION_MS = 4000;
const NOTICE_MS = 8000;

export class Board {
  private readonly watchers = new Set<() => void>();
  private readonly subscribers = new Set<(e: MeetingEvent) => void>();
  private readonly said = new Set<string>();
  private counter = 0;

  constructor(
    private current: State,
    readonly words: () => Words,
  ) {}

  get state(): State {
    return this.current;
  }

  /** Calls `f` after each change of the state, until the returned function is called. */
  watch = (f: () => void): (() => void) => {
    this.watchers.add(f);
    return () => this.watchers.delete(f);
  };

  subscribe(f: (e: MeetingEvent) => void): () => void {
    this.subscribers.add(f);
    return () => this.subscribers.delete(f);
  }

  tell(change: Partial<State> = {}): void {
    this.current = { ...this.current, ...change };
    for (const f of this.watchers) f();
  }

  emit(event: MeetingEvent): void {
    for (const f of [...this.subscribers]) {
      try {
        f(event);
      } catch (error) {
        console.error('a listener of the meeting failed', error);
      }
    }
  }

  phase(phase: Phase, problem?: { code: string; text: string }): void {
    if (phase === this.current.phase && !problem && !this.current.problem) return;
    this.tell({ phase, problem, connecting: false });
    this.emit({ type: 'phase', phase, error: problem });
    if (phase === 'failed' && problem) this.emit({ type: 'error', ...problem, fatal: true });
    if (phase === 'left' || phase === 'kicked' || phase === 'ended') {
      this.emit({ type: 'left' });
      this.emit({ type: 'closed' });
    }
  }

  /** Says something for a few seconds, or until it is dismissed if it offers something. */
  notice(text: string, tone: Notice['tone'] = 'info', action?: Notice['action'], chat = false): void {
    const id = ++this.counter;
    this.tell({ notices: [...this.current.notices.slice(-3), { id, text, tone, action, chat }] });
    if (!action) setTimeout(() => this.dismiss(id), NOTICE_MS);
  }

  dismiss(id: number): void {
    this.tell({ notices: this.current.notices.filter((n) => n.id !== id) });
  }

  /** Does it the first time only. */
  once(what: string, f: () => void): void {
    if (this.said.has(what)) return;
    this.said.add(what);
    f();
  }

  showReaction(id: string, emoji: string): void {
    const key = ++this.counter;
    this.tell({ reactions: [...this.current.reactions.slice(-30), { key, id, emoji }] });
    this.emit({ type: 'reaction', id, emoji });
    setTimeout(() => this.tell({ reactions: this.current.reactions.filter((r) => r.key !== key) }), REACTION_MS);
  }

  nameOf(id: string): string {
    return this.current.people.find((p) => p.id === id)?.name ?? this.words().someone;
  }
}
