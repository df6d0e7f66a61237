// SPDX-License-Identifier: Apache-2.0
// What a host may do to a meeting and to those in it, and who knocks at its door. The server refuses it to everybody else.
import type { HostAction } from './api.ts';
import type { Board } from './board.ts';
import type { HostControl, Kind } from './control.ts';
import type { Session } from './session.ts';

/** One who knocks may go and another come while the count stays: hence a host asks again, in milliseconds. */
const KNOCKS_AGAIN_MS = 10_000;

export class Host implements HostControl {
  private count = 0;
  private timer?: ReturnType<typeof setTimeout>;

  constructor(
    private readonly board: Board,
    private readonly session: Session,
  ) {}

  async act(action: HostAction): Promise<void> {
    await this.session.api.host(this.session.secret, action);
  }

  mute(id: string, kind: Kind): Promise<void> {
    return this.act({ action: 'mute', identity: id, kind });
  }

  muteAll(kind: Kind): Promise<void> {
    return this.act({ action: 'mute_all', kind });
  }

  askUnmute(id: string, kind: 'audio' | 'video'): Promise<void> {
    return this.act({ action: 'ask_unmute', identity: id, kind });
  }

  mayUnmute(kind: 'audio' | 'video', allowed: boolean): Promise<void> {
    return this.act({ action: 'may_unmute', kind, allowed });
  }

  async kick(id: string): Promise<void> {
    await this.act({ action: 'kick', identity: id });
    this.board.emit({ type: 'kicked', id, by: this.session.media?.me });
  }

  promote(id: string): Promise<void> {
    return this.act({ action: 'promote', identity: id });
  }

  demote(id: string): Promise<void> {
    return this.act({ action: 'demote', identity: id });
  }

  async answer(userId: string, admit: boolean): Promise<void> {
    await this.act({ action: admit ? 'admit' : 'deny', user_id: userId });
    this.board.tell({ knocks: this.board.state.knocks.filter((k) => k.userId !== userId) });
  }

  /** So many knock now; a host looks who. */
  knocking(count: number): void {
    this.count = count;
    this.readKnocks();
  }

  /** Asks who knocks, if anybody does and one may know it. */
  readKnocks(): void {
    clearTimeout(this.timer);
    const { board, session } = this;
    if (this.count === 0 || !board.state.me?.host) {
      if (board.state.knocks.length) board.tell({ knocks: [] });
      return;
    }
    void session.api
      .knocks(session.secret)
      .then((knocks) => {
        const known = new Set(board.state.knocks.map((k) => k.userId));
        const fresh = knocks.map((k) => ({ userId: k.user_id, name: k.display_name || k.user_id }));
        board.tell({ knocks: fresh });
        for (const k of fresh) if (!known.has(k.userId)) board.emit({ type: 'knock', ...k });
      })
      .catch(() => {})
      .finally(() => {
        clearTimeout(this.timer);
        if (this.count) this.timer = setTimeout(() => this.readKnocks(), KNOCKS_AGAIN_MS);
      });
  }

  /** One is not in the meeting any more. */
  finish(): void {
    clearTimeout(this.timer);
    this.count = 0;
  }
}
