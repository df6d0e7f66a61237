// SPDX-License-Identifier: Apache-2.0
// What the media session tells of a meeting: who is there, who speaks, what the server says of it. Puts it on the board.
import type { Board } from './board.ts';
import type { Conversation } from './conversation.ts';
import type { MeetingEvent } from './control.ts';
import { differences } from './differences.ts';
import type { Host } from './host.ts';
import type { Listener } from './media.ts';
import { control, reaction, type RoomState, roomState } from './roomState.ts';
import type { Session } from './session.ts';
import { keep, keepAll } from './state.ts';
import { Spotlight, TalkClock } from './talk.ts';

/** One's own microphone, camera and screen, which a host may mute or ask for. */
export interface Own {
  setMuted(kind: 'audio' | 'video', muted: boolean): Promise<void>;
  share(on: boolean): Promise<void>;
  /** Muted by a host. */
  wasMuted(kind: 'audio' | 'video'): void;
  trouble(kind: 'audio' | 'video', error: unknown): void;
  setView(view: 'tile' | 'speaker'): void;
}

export class Hearing implements Omit<Listener, 'connection' | 'gone'> {
  readonly talk = new TalkClock();
  /** What the server says of the meeting. */
  room: RoomState | null = null;
  /** Who took one out, if somebody did. */
  removedBy?: { type: 'kicked' | 'ended'; by: string };
  private readonly spotlight = new Spotlight();
  private spotlightTimer?: ReturnType<typeof setTimeout>;
  private loud = new Set<string>();
  private stale = false;
  private turned = false;

  constructor(
    private readonly board: Board,
    private readonly session: Session,
    private readonly host: Host,
    private readonly conversation: Conversation,
    private readonly own: Own,
  ) {}

  changed(): void {
    if (this.stale) return;
    this.stale = true;
    queueMicrotask(() => {
      this.stale = false;
      this.refresh();
    });
  }

  /** Reads the media session, keeps what has not changed, and tells the differences. */
  refresh(): void {
    const { board, spotlight } = this;
    const { media } = this.session;
    const old = board.state;
    // While the line is down others are gone for a moment, and one's own tracks are not sent: none of it is news.
    if (!media || old.phase !== 'in') return;
    const fresh = media.people(this.room?.hosts ?? new Set(), this.loud);
    const people = keepAll(old.people, fresh, (p) => p.id);
    const here = new Set(people.map((p) => p.id));
    const pictures = keep(old.pictures, Object.fromEntries(Object.entries(media.pictures()).map(([id, p]) => [id, keep(old.pictures[id], p)])));
    for (const p of old.people) if (!here.has(p.id)) spotlight.forget(p.id);
    const speaker = spotlight.current && here.has(spotlight.current) ? spotlight.current : undefined;
    if (people !== old.people || pictures !== old.pictures || speaker !== old.speaker) {
      board.tell({ people, pictures, me: people.find((p) => p.local), speaker, pinned: old.pinned && here.has(old.pinned) ? old.pinned : undefined });
    }
    if (people !== old.people) for (const event of differences(old.people, people)) this.hear(event);
  }

  /** One is in: who is there, and who waits at the door, is looked at for the first time. */
  arrived(): void {
    this.refresh();
    this.host.knocking(this.room?.knocking ?? 0);
  }

  /** Something changed: told to those outside, and to the person where it matters to them. */
  private hear(event: MeetingEvent): void {
    const { board } = this;
    const w = board.words();
    const { me, people } = board.state;
    if (event.type === 'came' && people.length <= 10) board.notice(w.cameTo(event.person.name));
    if (event.type === 'went' && people.length <= 10) board.notice(w.wentFrom(event.person.name));
    if (event.type === 'hand' && event.raised && event.id !== me?.id) board.notice(w.handUp(board.nameOf(event.id)));
    if (event.type === 'sharing' && event.id !== me?.id) this.turnToScreens(event.on);
    if (event.type === 'role' && event.id === me?.id) {
      board.notice(event.host ? w.nowHost : w.noHost);
      this.host.readKnocks();
    }
    board.emit(event);
  }

  /** A screen wants to be read: it is shown big, and the tiles come back after it. */
  private turnToScreens(on: boolean): void {
    const { view, people } = this.board.state;
    if (on && view === 'tile') {
      this.own.setView('speaker');
      this.turned = true;
    } else if (!on && this.turned && view === 'speaker' && !people.some((p) => p.sharing)) {
      this.own.setView('tile');
    }
  }

  /** The person chose a view: it stays when a screen goes. */
  viewChosen(): void {
    this.turned = false;
  }

  speakers(ids: string[]): void {
    this.loud = new Set(ids);
    this.talk.speak(ids, performance.now());
    this.turnSpotlight();
    this.changed();
  }

  private turnSpotlight(): void {
    clearTimeout(this.spotlightTimer);
    const me = this.session.media?.me;
    const loudest = [...this.loud].find((id) => id !== me);
    const before = this.board.state.speaker;
    const speaker = this.spotlight.hear(loudest, performance.now());
    if (this.spotlight.due) this.spotlightTimer = setTimeout(() => this.turnSpotlight(), this.spotlight.due);
    if (speaker === before) return;
    this.board.tell({ speaker });
    if (speaker) this.board.emit({ type: 'speaker', id: speaker });
  }

  metadata(text: string): void {
    const room = roomState(text);
    if (!room) return;
    const { board, room: old } = this;
    const { subject } = room;
    this.room = room;
    board.tell({ subject, lobby: room.lobby, password: room.password, mayUnmute: keep(board.state.mayUnmute, room.mayUnmute), started: room.started ?? board.state.started });
    if (old && subject !== old.subject) board.emit({ type: 'subject', subject });
    this.refresh();
    if (room.knocking !== (old?.knocking ?? 0)) this.host.knocking(room.knocking);
  }

  packet(topic: string, payload: Uint8Array, from: string): void {
    if (topic === 'tb.reaction') {
      const emoji = reaction(payload);
      if (emoji && from) this.board.showReaction(from, emoji);
    } else if (topic === 'tb.control') {
      this.hearServer(payload, from);
    }
  }

  /** The server explains what it has done, or asks for something in a host's name. */
  private hearServer(payload: Uint8Array, from: string): void {
    const { board, own } = this;
    const c = control(payload, from);
    if (!c) return;
    const w = board.words();
    const by = board.nameOf(c.by);
    if (c.type === 'kicked' || c.type === 'ended') {
      this.removedBy = { type: c.type, by: c.by };
    } else if (c.type === 'muted') {
      if (c.by !== this.session.media?.me) board.notice(c.kind === 'audio' ? w.mutedBy(by) : c.kind === 'video' ? w.cameraBy(by) : w.screenBy(by));
      if (c.kind === 'screen') void own.share(false).catch(() => {});
      else own.wasMuted(c.kind);
    } else if (c.type === 'ask_unmute' && c.kind !== 'screen') {
      const { kind } = c;
      board.notice(kind === 'audio' ? w.askedUnmute(by) : w.askedCamera(by), 'info', { label: kind === 'audio' ? w.unmute : w.cameraStart, do: () => void own.setMuted(kind, false) });
    }
  }

  text(from: string, text: string, about: { id: string; private: boolean; event?: string }): void {
    this.conversation.hear(from, text, about);
  }

  devices(): void {
    this.board.emit({ type: 'devices' });
  }

  trouble(kind: 'audio' | 'video', error: unknown): void {
    this.own.trouble(kind, error);
  }

  silent(blocked: boolean): void {
    this.board.tell({ silent: blocked });
  }

  unreadable(): void {
    this.board.once('unreadable', () => this.board.notice(this.board.words().unreadable, 'problem'));
  }

  /** One is not in the meeting any more. */
  finish(): void {
    clearTimeout(this.spotlightTimer);
    this.room = null;
    this.removedBy = undefined;
    this.loud = new Set();
    this.talk.speak([], performance.now());
  }
}
