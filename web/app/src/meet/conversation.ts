// SPDX-License-Identifier: Apache-2.0
// What is written in a meeting: through its Matrix room where one may read that, and over the media session for everybody else.
import type { Entry } from './api.ts';
import type { Board } from './board.ts';
import { MatrixChat } from './chat.ts';
import type { Session } from './session.ts';
import type { Message } from './state.ts';

const KEPT_MESSAGES = 1000;
const LONGEST = 8000;

export class Conversation {
  private chat?: MatrixChat;

  constructor(
    private readonly board: Board,
    private readonly session: Session,
  ) {}

  /** Reads the meeting's Matrix room from now on, if one has a token for it. Stays open while the line is lost. */
  open(entry: Entry): void {
    if (this.chat || !entry.matrix || entry.e2ee) return;
    const { matrix } = entry;
    const me = this.session.matrix;
    if (!me) return;
    const from = Date.now();
    this.chat = new MatrixChat({ ...me, userId: matrix.user_id, roomId: entry.room_id }, (m) => {
      const person = this.board.state.people.find((p) => p.userId === m.sender);
      this.add({ key: m.eventId, from: person?.id ?? m.sender, name: person?.name ?? m.name, text: m.text, at: m.at, own: m.sender === matrix.user_id, private: false }, m.at < from - 2000);
    });
    void this.chat.run();
  }

  close(): void {
    this.chat?.close();
    this.chat = undefined;
  }

  /** A text came over the media session; `event` is the Matrix event that says the same. */
  hear(from: string, text: string, about: { id: string; private: boolean; event?: string }): void {
    // Who has the Matrix room reads there what came through it.
    if (about.event && this.chat) return;
    const person = this.board.state.people.find((p) => p.id === from);
    if (!person || text === '') return;
    this.add({ key: about.event ?? about.id, from, name: person.name, text: text.slice(0, LONGEST), at: Date.now(), own: false, private: about.private }, false);
  }

  async say(text: string, to?: string): Promise<void> {
    const { media } = this.session;
    const { me } = this.board.state;
    const words = text.trim();
    if (!words || !media || !me) return;
    const own = { from: me.id, name: me.name, text: words, at: Date.now(), own: true };
    if (to) {
      const key = await media.say(words, { to });
      this.add({ ...own, key, private: true, to: this.board.nameOf(to) }, false);
    } else if (this.chat) {
      const event = await this.chat.say(words);
      this.add({ ...own, key: event, private: false }, false);
      // For those without a Matrix account of their own.
      await media.say(words, { event }).catch(() => {});
    } else {
      const key = await media.say(words, {});
      this.add({ ...own, key, private: false }, false);
    }
  }

  private add(message: Message, old: boolean): void {
    const { board } = this;
    const { messages, chatOpen, unread } = board.state;
    if (messages.some((m) => m.key === message.key)) return;
    const all = [...messages, message].sort((a, b) => a.at - b.at).slice(-KEPT_MESSAGES);
    const news = !old && !message.own && !chatOpen;
    board.tell({ messages: all, unread: news ? unread + 1 : unread });
    if (old) return;
    const { from, name, text, at, own } = message;
    board.emit({ type: 'message', from, name, text, at, own, private: message.private });
    if (news) {
      board.notice(board.words().newMessage(name, text.length > 120 ? `${text.slice(0, 120)} …` : text), 'info', undefined, true);
      board.emit({ type: 'chat', open: false, unread: unread + 1 });
    }
  }
}
