// SPDX-License-Identifier: Apache-2.0
// One meeting from the first look into the camera to the last goodbye: puts its parts together, and is everything one can do in it.
import { type MeetingRecord, Refusal } from './api.ts';
import { Board } from './board.ts';
import type { MeetingControl, MeetingEvent, Options, Person } from './control.ts';
import { Conversation } from './conversation.ts';
import { Faces } from './faces.ts';
import { Hearing } from './hearing.ts';
import { Host } from './host.ts';
import { Line } from './line.ts';
import { NAME_KEY, newKey, remember, rememberDevices } from './options.ts';
import { Preview } from './preview.ts';
import { refusalWords } from './refusals.ts';
import { Session } from './session.ts';
import type { Notice, State } from './state.ts';
import type { Surroundings } from './surroundings.ts';

export class Meeting implements MeetingControl {
  readonly preview: Preview;
  readonly host: Host;
  private readonly board: Board;
  private readonly session: Session;
  private readonly conversation: Conversation;
  private readonly hearing: Hearing;
  private readonly line: Line;
  private readonly faces: Faces;
  private blur?: { stop(): Promise<void> };

  constructor(
    options: Options,
    private readonly around: Surroundings,
  ) {
    this.preview = new Preview(around.small);
    this.preview.onChange = () => this.board.tell();
    this.board = new Board(
      {
        phase: 'prejoin', name: options.name, subject: '', people: [], view: options.tileView === false ? 'speaker' : 'tile', chatOpen: false, unread: 0, lobby: false, password: false, knocks: [],
        mayUnmute: { audio: true, video: true }, options, pictures: {}, messages: [], reactions: [], notices: [], e2ee: 'off', blur: 'off', silent: false,
        audioOnly: options.audioOnly, quality: 720, wish: { ...options.startMuted }, connecting: false,
      },
      around.words,
    );
    this.session = new Session(this.board, around);
    this.faces = new Faces(() => this.session.matrix);
    this.host = new Host(this.board, this.session);
    this.conversation = new Conversation(this.board, this.session);
    this.hearing = new Hearing(this.board, this.session, this.host, this.conversation, this);
    this.line = new Line(this.board, this.session, around, this.preview, this.hearing, this.conversation, () => this.finished());
    this.watch = this.board.watch;
  }

  // --- Looking on

  get snapshot(): State {
    return this.board.state;
  }

  /** For the page: called after each change of the snapshot. */
  readonly watch: (f: () => void) => () => void;

  subscribe(f: (e: MeetingEvent) => void): () => void {
    return this.board.subscribe(f);
  }

  /** Says something for a few seconds, or until it is dismissed if it offers something. */
  notice(text: string, tone: Notice['tone'] = 'info'): void {
    this.board.notice(text, tone);
  }

  dismiss(id: number): void {
    this.board.dismiss(id);
  }

  /** Everybody who is there, with the milliseconds they spoke. */
  spoken(): { person: Person; ms: number }[] {
    const now = performance.now();
    return this.snapshot.people.map((person) => ({ person, ms: this.hearing.talk.of(person.id, now) })).sort((a, b) => b.ms - a.ms);
  }

  /** Shows somebody's picture in an element until the returned function is called. */
  attach(id: string, what: 'camera' | 'screen', element: HTMLVideoElement): () => void {
    return this.session.media?.attach(id, what, element) ?? (() => {});
  }

  /** A blob address for the picture that somebody chose (`Person.avatarUrl`); undefined where their initials must do. */
  face(avatarUrl: string): Promise<string | undefined> {
    return this.faces.of(avatarUrl);
  }

  // --- Coming and going

  look(): Promise<void> {
    return this.line.look();
  }

  /** True when this tab was in the meeting before a reload, and should be in again. */
  get wasIn(): boolean {
    return this.session.recall()?.in === true;
  }

  join(): Promise<void> {
    return this.line.join();
  }

  /** After a reload: as muted as before, and in again without a question. */
  resume(): Promise<void> {
    const muted = this.session.recall()?.muted;
    if (muted) this.board.tell({ wish: { audio: muted.audio === true, video: muted.video === true } });
    return this.join();
  }

  hangUp(): Promise<void> {
    return this.line.hangUp();
  }

  /** From an ending back to the beginning. */
  again(): void {
    const { options } = this.snapshot;
    this.board.phase('prejoin');
    if (!options.prejoin) void this.join();
  }

  async end(): Promise<void> {
    await this.host.act({ action: 'end' });
    this.hearing.removedBy = { type: 'ended', by: this.session.media?.me ?? '' };
  }

  private finished(): void {
    this.host.finish();
    this.faces.clear();
    void this.blur?.stop().catch(() => {});
    this.blur = undefined;
  }

  // --- Passwords and keys

  async givePassword(password: string): Promise<void> {
    if (this.snapshot.phase === 'password') await this.line.enter(password);
    else if (this.session.entry) await this.host.act({ action: 'password', password });
    else this.configure({ password });
  }

  /** The key of an encrypted meeting, pasted by the person. */
  async giveKey(key: string): Promise<void> {
    this.around.key.set(key);
    if (this.snapshot.e2ee === 'key') {
      this.board.tell({ e2ee: 'off' });
      await this.line.enter(this.snapshot.options.password);
    }
  }

  /** Whether the meeting one begins is to be encrypted: its key goes into the page's address. */
  encrypt(on: boolean): void {
    this.around.key.set(on ? newKey() : '');
    this.board.tell();
  }

  get key(): string | undefined {
    return this.around.key.get();
  }

  // --- The meeting

  setSubject(subject: string): Promise<void> {
    return this.host.act({ action: 'subject', subject });
  }

  setLobby(on: boolean): Promise<void> {
    return this.host.act({ action: 'lobby', on });
  }

  /** When people met here before, and who came; for hosts. */
  records(): Promise<MeetingRecord[]> {
    return this.session.api.records(this.session.secret);
  }

  say(text: string, to?: string): Promise<void> {
    return this.conversation.say(text, to);
  }

  // --- What one sends oneself

  async setMuted(kind: 'audio' | 'video', muted: boolean): Promise<void> {
    const w = this.around.words();
    const { media } = this.session;
    const { phase, mayUnmute, me } = this.snapshot;
    if (!media) {
      this.wish(kind, muted);
      if (phase === 'prejoin') await this.openPreview();
      return;
    }
    if (!muted && !mayUnmute[kind] && !me?.host) {
      this.notice(kind === 'audio' ? w.mayNotUnmute : w.mayNotCamera);
      return;
    }
    try {
      await media.setMuted(kind, muted);
      this.wish(kind, muted);
      this.session.store();
    } catch (error) {
      this.trouble(kind, error);
    }
    this.hearing.refresh();
  }

  private wish(kind: 'audio' | 'video', muted: boolean): void {
    this.board.tell({ wish: { ...this.snapshot.wish, [kind]: muted } });
  }

  /** Whoever was muted by a host stays it over a reload and a lost line. */
  wasMuted(kind: 'audio' | 'video'): void {
    this.wish(kind, true);
    this.session.store();
  }

  /** Says why a microphone or camera cannot be had. */
  trouble(kind: 'audio' | 'video', error: unknown): void {
    const w = this.around.words();
    const what = kind === 'audio' ? w.microphone : w.camera;
    const name = error instanceof Error ? error.name : '';
    const trouble = name === 'NotAllowedError' ? 'denied' : name === 'NotFoundError' || name === 'OverconstrainedError' ? 'none' : 'busy';
    this.notice(w.trouble[trouble](what), 'problem');
  }

  /** Looks at oneself, as far as one wants to be seen and heard. */
  openPreview(): Promise<void> {
    const { wish, options } = this.snapshot;
    return this.preview.open({ audio: !wish.audio, video: !wish.video }, options.devices ?? {});
  }

  async share(on: boolean, audio = true): Promise<void> {
    try {
      await this.session.media?.share(on, audio);
    } catch (error) {
      // Closing the browser's own question is an answer, no failure.
      if (!(error instanceof Error && error.name === 'NotAllowedError')) this.notice(this.around.words().shareFailed, 'problem');
    }
  }

  async setName(name: string): Promise<void> {
    const { media } = this.session;
    this.configure({ displayName: name });
    if (!media) return;
    remember(NAME_KEY, name);
    await media.setName(name);
    this.hearing.refresh();
  }

  async setAvatar(url: string): Promise<void> {
    this.configure({ avatarUrl: url });
    await this.session.media?.setAvatar(url);
  }

  async raiseHand(up: boolean): Promise<void> {
    await this.session.media?.raiseHand(up ? Date.now() : 0);
    this.hearing.refresh();
  }

  async react(emoji: string): Promise<void> {
    const { media } = this.session;
    if (!media) return;
    await media.send('tb.reaction', { emoji });
    this.board.showReaction(media.me, emoji);
  }

  async devices(): Promise<{ available: MediaDeviceInfo[]; current: NonNullable<Options['devices']> }> {
    const available = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    return { available, current: this.snapshot.options.devices ?? {} };
  }

  async useDevice(kind: MediaDeviceKind, id: string): Promise<void> {
    const which = kind === 'audioinput' ? 'audioInput' : kind === 'audiooutput' ? 'audioOutput' : 'videoInput';
    const devices = { ...this.snapshot.options.devices, [which]: id || undefined };
    this.configure({ devices });
    rememberDevices(devices);
    if (this.session.media) await this.session.media.useDevice(kind, id);
    else if (kind !== 'audiooutput' && this.snapshot.phase === 'prejoin') {
      const { wish } = this.snapshot;
      await this.preview.change(kind === 'audioinput' ? 'audio' : 'video', devices, { audio: !wish.audio, video: !wish.video });
    }
    this.board.emit({ type: 'devices' });
  }

  async setBlur(on: boolean): Promise<void> {
    const { board } = this;
    if (!on) {
      await this.blur?.stop();
      this.blur = undefined;
      board.tell({ blur: 'off' });
      return;
    }
    const camera = this.session.media?.camera;
    if (!camera || this.blur) return;
    board.tell({ blur: 'loading' });
    try {
      const { blurred } = await import('./blur.ts');
      this.blur = await blurred(camera);
      board.tell({ blur: 'on' });
    } catch (error) {
      console.error('blur', error);
      board.tell({ blur: 'off' });
      this.notice(this.around.words().blurFailed, 'problem');
    }
  }

  // --- What one looks at and listens to

  setView(view: 'tile' | 'speaker'): void {
    if (view === this.snapshot.view) return;
    this.hearing.viewChosen();
    this.board.tell({ view, pinned: view === 'tile' ? undefined : this.snapshot.pinned });
    this.board.emit({ type: 'view', view });
  }

  pin(id?: string): void {
    this.board.tell({ pinned: id });
    if (id) this.setView('speaker');
  }

  openChat(open: boolean): void {
    const { chatOpen, unread, notices } = this.snapshot;
    if (open === chatOpen) return;
    this.board.tell({ chatOpen: open, unread: open ? 0 : unread, notices: open ? notices.filter((n) => !n.chat) : notices });
    this.board.emit({ type: 'chat', open, unread: this.snapshot.unread });
  }

  setVolume(id: string, volume: number): void {
    this.session.media?.setVolume(id, Math.min(1, Math.max(0, volume)));
  }

  setQuality(height: number): void {
    this.board.tell({ quality: height });
    this.session.media?.setQuality(height);
    this.setAudioOnly(height === 0);
  }

  private setAudioOnly(on: boolean): void {
    const { me } = this.snapshot;
    this.board.tell({ audioOnly: on });
    this.session.media?.setAudioOnly(on);
    if (on && me && !me.muted.video) void this.setMuted('video', true);
  }

  playSound(): void {
    void this.session.media?.playSound();
  }

  // --- The page and those outside

  configure(change: Partial<Options>): void {
    const { media } = this.session;
    const more: Partial<State> = { options: { ...this.snapshot.options, ...change } };
    if (change.name !== undefined && !media) more.name = change.name;
    if (change.startMuted && !media) more.wish = { ...change.startMuted };
    if (change.audioOnly !== undefined) more.audioOnly = change.audioOnly;
    if (change.subject && !media) more.subject = change.subject;
    this.board.tell(more);
    if (change.name !== undefined) this.session.secret ||= this.session.recall()?.session ?? '';
    if (change.audioOnly !== undefined) this.setAudioOnly(change.audioOnly);
    if (change.tileView !== undefined) this.setView(change.tileView ? 'tile' : 'speaker');
  }

  /** For buttons: says what went wrong instead of throwing it. */
  tried(what: Promise<unknown>): void {
    what.catch((error: unknown) => {
      const w = this.around.words();
      this.notice(error instanceof Refusal ? refusalWords(error, w, { 403: w.notAllowed, 404: w.notHere }) : w.failedTitle, 'problem');
      console.error(error);
    });
  }

  /** A button of the toolbar was used; those outside may have asked to be told, or to take its place. */
  button(key: string, act: () => void): void {
    const asked = this.snapshot.options.notifyClick?.find((n) => n.key === key);
    if (asked) this.board.emit({ type: 'button', key, prevented: asked.preventExecution });
    if (!asked?.preventExecution) act();
  }
}
