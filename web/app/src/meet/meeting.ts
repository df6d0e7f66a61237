// SPDX-License-Identifier: Apache-2.0
// One meeting from the first look into the camera to the last goodbye: its phases, its state, and everything one can do in it.
import type { Entry, HostAction, JoinRequest, MeetApi } from './api.ts';
import { Refusal } from './api.ts';
import { MatrixChat, sleep } from './chat.ts';
import type { HostControl, Kind, MeetingControl, MeetingEvent, Options, Person, Phase } from './control.ts';
import type { Gone, Listener, Media, Start } from './media.ts';
import { differences } from './differences.ts';
import { NAME_KEY, newKey, remember, rememberDevices } from './options.ts';
import { Preview } from './preview.ts';
import { control, reaction, roomState, type RoomState } from './roomState.ts';
import { keep, keepAll, type Message, type Notice, type State } from './state.ts';
import { Spotlight, TalkClock } from './talk.ts';
import type { Words } from './words.ts';

/** What a meeting needs of its surroundings. */
export interface Surroundings {
  api: (name: string) => MeetApi;
  media: () => Promise<{ Media: new (listener: Listener, start: Start) => Media }>;
  words: () => Words;
  /** Survives a reload of this tab, nothing else. */
  memory: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>;
  /** The end-to-end key, in and out of the page's address. */
  key: { get(): string | undefined; set(key: string): void };
  /** Requests with a signed-in person's own token, if there is one. */
  signedIn?: { userId: string; fetch: typeof fetch };
  relayOnly: boolean;
  small: boolean;
}

/** A guest's own token puts itself on requests. */
function withToken(token: string): (url: string, init: RequestInit) => Promise<Response> {
  return (url, init) => fetch(url, { ...init, headers: { ...(init.headers as Record<string, string>), Authorization: `Bearer ${token}` } });
}

const KEPT_MESSAGES = 1000;
const REACTION_MS = 4000;
const NOTICE_MS = 8000;

export class Meeting implements MeetingControl {
  readonly preview: Preview;
  readonly talk = new TalkClock();
  private current: State;
  private readonly watchers = new Set<() => void>();
  private readonly subscribers = new Set<(e: MeetingEvent) => void>();
  private readonly spotlight = new Spotlight();
  private media?: Media;
  private mark = {};
  private chat?: MatrixChat;
  private entry?: Entry;
  private room: RoomState | null = null;
  private session = '';
  private speaking = new Set<string>();
  private waiting?: AbortController;
  private stale = false;
  private counter = 0;
  private removedBy?: { type: 'kicked' | 'ended'; by: string };
  private knockTimer?: ReturnType<typeof setTimeout>;
  private spotlightTimer?: ReturnType<typeof setTimeout>;
  private blur?: { stop(): Promise<void> };
  private began = 0;

  constructor(
    options: Options,
    private readonly around: Surroundings,
  ) {
    this.preview = new Preview(around.small);
    this.preview.onChange = () => this.tell();
    this.current = {
      phase: 'prejoin', name: options.name, subject: '', people: [], view: options.tileView === false ? 'speaker' : 'tile', chatOpen: false, unread: 0, lobby: false, password: false, knocks: [],
      mayUnmute: { audio: true, video: true }, options, pictures: {}, messages: [], reactions: [], notices: [], e2ee: 'off', blur: 'off', silent: false,
      audioOnly: options.audioOnly, quality: 720, wish: { ...options.startMuted }, connecting: false,
    };
    this.session = this.recall()?.session ?? '';
  }

  // --- Looking on

  get snapshot(): State {
    return this.current;
  }

  /** For the page: called after each change of the snapshot. */
  watch = (f: () => void): (() => void) => {
    this.watchers.add(f);
    return () => this.watchers.delete(f);
  };

  subscribe(f: (e: MeetingEvent) => void): () => void {
    this.subscribers.add(f);
    return () => this.subscribers.delete(f);
  }

  private tell(change: Partial<State> = {}): void {
    this.current = { ...this.current, ...change };
    for (const f of this.watchers) f();
  }

  private emit(event: MeetingEvent): void {
    for (const f of [...this.subscribers]) {
      try {
        f(event);
      } catch (error) {
        console.error('a listener of the meeting failed', error);
      }
    }
  }

  private phase(phase: Phase, problem?: { code: string; text: string }): void {
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

  // --- Getting in

  /** What may be known from outside; loads the media code meanwhile. */
  async look(): Promise<void> {
    void this.around.media().catch(() => {});
    try {
      const info = await this.api.info();
      this.tell({ info, subject: info.subject || this.current.subject });
    } catch {
      // Joining will say what is wrong.
    }
  }

  private get api(): MeetApi {
    return this.around.api(this.current.name);
  }

  /** True when this tab was in the meeting before a reload, and should be in again. */
  get wasIn(): boolean {
    return this.recall()?.in === true;
  }

  async join(): Promise<void> {
    if (['joining', 'in', 'reconnecting', 'lobby'].includes(this.current.phase)) return;
    this.began = performance.now();
    this.phase('joining');
    await this.enter(this.current.options.password);
  }

  private async request(password?: string): Promise<JoinRequest> {
    const { options, info } = this.current;
    const request: JoinRequest = { display_name: options.displayName ?? '', session: this.session || undefined };
    if (options.avatarUrl) request.avatar_url = options.avatarUrl;
    if (password) request.password = password;
    if (options.jwt) request.jwt = options.jwt;
    if (options.roomId) request.room_id = options.roomId;
    if (options.openid) request.openid = await options.openid();
    if (this.around.key.get() && !info?.exists) request.e2ee = true;
    return request;
  }

  private async enter(password?: string): Promise<void> {
    try {
      let admission = await this.api.join(await this.request(password));
      while ('waiting' in admission) {
        this.session = admission.session;
        this.phase('lobby');
        this.waiting ??= new AbortController();
        admission = await this.wait(this.waiting.signal);
      }
      await this.begin(admission.entry);
    } catch (error) {
      if (error instanceof DOMException && error.name === 'AbortError') return;
      if (this.current.phase === 'left') return;
      this.fail(error, password !== undefined && password !== '');
    } finally {
      this.waiting = undefined;
    }
  }

  /** In the lobby a server that restarts is no refusal. */
  private async wait(signal: AbortSignal): ReturnType<MeetApi['wait']> {
    for (let pause = 500; ; pause = Math.min(pause * 2, 5000)) {
      try {
        return await this.api.wait(this.session, signal);
      } catch (error) {
        if (!(error instanceof Refusal) || !error.passing) throw error;
        await sleep(pause, signal);
        signal.throwIfAborted();
      }
    }
  }

  private fail(error: unknown, answered: boolean): void {
    const w = this.around.words();
    this.preview.close();
    if (!(error instanceof Refusal)) {
      console.error('joining failed', error);
      return this.phase('failed', { code: 'MEDIA', text: w.unreachable });
    }
    if (error.code === 'IO_TRUNKBOARD_PASSWORD') return this.phase('password', answered ? { code: error.code, text: w.passwordWrong } : undefined);
    const inLobby = this.current.phase === 'lobby';
    const text = error.code === 'IO_TRUNKBOARD_SIGN_IN' ? w.signInNeeded : error.code === 'IO_TRUNKBOARD_JWT' ? w.jwtNeeded : error.status === 0 ? w.unreachable : inLobby ? w.notLetIn : error.status === 403 ? w.refused : error.message;
    this.forget();
    this.phase('failed', { code: error.code, text });
  }

  private async begin(entry: Entry): Promise<void> {
    this.entry = entry;
    this.session = entry.session;
    const { options } = this.current;
    this.store(true);
    let key: string | undefined;
    if (entry.e2ee) {
      key = this.around.key.get();
      if (!key) {
        this.tell({ e2ee: 'key' });
        this.phase('password', { code: 'KEY', text: '' });
        return;
      }
    }
    const { Media } = await this.around.media();
    const tracks = this.preview.take();
    const media = new Media(this.listener(), {
      url: entry.media.url, token: entry.media.token, iceServers: entry.media.ice_servers, relayOnly: this.around.relayOnly, key, ...tracks,
      muted: { audio: this.current.wish.audio, video: this.current.wish.video || this.current.audioOnly }, small: this.around.small, audioOnly: this.current.audioOnly, devices: options.devices ?? {},
    });
    this.media = media;
    const again = this.current.phase === 'reconnecting';
    try {
      await media.connect();
    } catch (error) {
      if (this.media === media) this.media = undefined;
      await media.close().catch(() => {});
      for (const track of Object.values(tracks)) track?.stop();
      throw again ? error : new Refusal(0, 'MEDIA', error instanceof Error ? error.message : String(error));
    }
    if (this.media !== media) return void media.close();
    this.hearMetadata(media.metadata);
    this.tell({ subject: this.room?.subject || entry.subject || this.current.subject, e2ee: entry.e2ee ? 'on' : 'off', started: this.room?.started ?? Date.now(), notices: [] });
    this.phase('in');
    this.refresh();
    const { me } = this.current;
    if (me && !again) this.emit({ type: 'joined', person: me });
    performance.measure?.('meet.join', { start: this.began });
    if (options.displayName && !again) remember(NAME_KEY, options.displayName);
    void media.publish().then(() => this.refresh());
    if (!this.chat) this.openMatrixChat(entry);
  }

  private openMatrixChat(entry: Entry): void {
    if (!entry.matrix || entry.e2ee) return;
    const { matrix } = entry;
    const mine = matrix.access_token ? withToken(matrix.access_token) : this.around.signedIn?.fetch;
    if (!mine) return;
    const from = Date.now();
    this.chat = new MatrixChat({ baseUrl: matrix.base_url, userId: matrix.user_id, roomId: entry.room_id, fetch: (url, init) => mine(url, init) }, (m) => {
      const person = this.current.people.find((p) => p.userId === m.sender);
      this.addMessage({ key: m.eventId, from: person?.id ?? m.sender, name: person?.name ?? m.name, text: m.text, at: m.at, own: m.sender === matrix.user_id, private: false }, m.at < from - 2000);
    });
    void this.chat.run();
  }

  // --- What the session tells

  private listener(): Listener {
    // Of a session that has been replaced nothing is heard any more.
    const mark = {};
    this.mark = mark;
    const of = (f: () => void) => {
      if (mark === this.mark) f();
    };
    return {
      changed: () => of(() => this.refreshSoon()),
      speakers: (ids) => of(() => this.hearSpeakers(ids)),
      metadata: (text) => of(() => this.hearMetadata(text)),
      packet: (topic, payload, from) => of(() => this.hearPacket(topic, payload, from)),
      text: (from, text, about) => of(() => this.hearText(from, text, about)),
      connection: (state) => of(() => (state === 'reconnecting' ? this.phase('reconnecting') : this.current.phase === 'reconnecting' && this.phase('in'))),
      gone: (reason) => of(() => void this.gone(reason)),
      devices: () => this.emit({ type: 'devices' }),
      trouble: (kind, error) => of(() => this.deviceTrouble(kind, error)),
      silent: (blocked) => of(() => this.tell({ silent: blocked })),
      unreadable: () => of(() => this.once('unreadable', () => this.notice(this.around.words().unreadable, 'problem'))),
    };
  }

  private readonly said = new Set<string>();
  private once(what: string, f: () => void): void {
    if (this.said.has(what)) return;
    this.said.add(what);
    f();
  }

  private deviceTrouble(kind: 'audio' | 'video', error: unknown): void {
    const w = this.around.words();
    const what = kind === 'audio' ? w.microphone : w.camera;
    const name = error instanceof Error ? error.name : '';
    const trouble = name === 'NotAllowedError' ? 'denied' : name === 'NotFoundError' || name === 'OverconstrainedError' ? 'none' : 'busy';
    this.notice(w.trouble[trouble](what), 'problem');
  }

  private refreshSoon(): void {
    if (this.stale) return;
    this.stale = true;
    queueMicrotask(() => {
      this.stale = false;
      this.refresh();
    });
  }

  /** Reads the session, keeps what has not changed, and tells the differences. */
  private refresh(): void {
    const { media, current: old } = this;
    // While the line is down others are gone for a moment, and one's own tracks are not sent: none of it is news.
    if (!media || old.phase !== 'in') return;
    const fresh = media.people(this.room?.hosts ?? new Set(), this.speaking);
    const people = keepAll(old.people, fresh, (p) => p.id);
    const here = new Set(people.map((p) => p.id));
    const pictures = keep(old.pictures, Object.fromEntries(Object.entries(media.pictures()).map(([id, p]) => [id, keep(old.pictures[id], p)])));
    for (const p of old.people) if (!here.has(p.id)) this.spotlight.forget(p.id);
    const speaker = this.spotlight.current && here.has(this.spotlight.current) ? this.spotlight.current : undefined;
    if (people !== old.people || pictures !== old.pictures || speaker !== old.speaker) {
      this.tell({ people, pictures, me: people.find((p) => p.local), speaker, pinned: old.pinned && here.has(old.pinned) ? old.pinned : undefined });
    }
    if (people !== old.people) for (const event of differences(old.people, people)) this.hear(event);
  }

  /** Something changed: told to those outside, and to the person where it matters to them. */
  private hear(event: MeetingEvent): void {
    const w = this.around.words();
    const { me, people } = this.current;
    if (event.type === 'came' && people.length <= 10) this.notice(w.cameTo(event.person.name));
    if (event.type === 'went' && people.length <= 10) this.notice(w.wentFrom(event.person.name));
    if (event.type === 'hand' && event.raised && event.id !== me?.id) this.notice(w.handUp(this.nameOf(event.id)));
    if (event.type === 'sharing' && event.id !== me?.id) this.turnToScreens(event.on);
    if (event.type === 'role' && event.id === me?.id) {
      this.notice(event.host ? w.nowHost : w.noHost);
      this.readKnocks();
    }
    this.emit(event);
  }

  private turned = false;

  /** A screen wants to be read: it is shown big, and the tiles come back after it. */
  private turnToScreens(on: boolean): void {
    const { view, people } = this.current;
    if (on && view === 'tile') {
      this.setView('speaker');
      this.turned = true;
    } else if (!on && this.turned && view === 'speaker' && !people.some((p) => p.sharing)) {
      this.setView('tile');
    }
  }

  private nameOf(id: string): string {
    return this.current.people.find((p) => p.id === id)?.name ?? this.around.words().someone;
  }

  private hearSpeakers(ids: string[]): void {
    this.speaking = new Set(ids);
    this.talk.speak(ids, performance.now());
    this.turnSpotlight();
    this.refreshSoon();
  }

  private turnSpotlight(): void {
    clearTimeout(this.spotlightTimer);
    const me = this.media?.me;
    const loudest = [...this.speaking].find((id) => id !== me);
    const before = this.current.speaker;
    const speaker = this.spotlight.hear(loudest, performance.now());
    if (this.spotlight.due) this.spotlightTimer = setTimeout(() => this.turnSpotlight(), this.spotlight.due);
    if (speaker === before) return;
    this.tell({ speaker });
    if (speaker) this.emit({ type: 'speaker', id: speaker });
  }

  private hearMetadata(text: string): void {
    const room = roomState(text);
    if (!room) return;
    const old = this.room;
    this.room = room;
    const subject = room.subject;
    this.tell({ subject, lobby: room.lobby, password: room.password, mayUnmute: keep(this.current.mayUnmute, room.mayUnmute), started: room.started ?? this.current.started });
    if (old && subject !== old.subject) this.emit({ type: 'subject', subject });
    this.refresh();
    if (room.knocking !== (old?.knocking ?? 0)) this.readKnocks();
  }

  private readKnocks(): void {
    clearTimeout(this.knockTimer);
    const count = this.room?.knocking ?? 0;
    if (count === 0 || !this.current.me?.host) {
      if (this.current.knocks.length) this.tell({ knocks: [] });
      return;
    }
    void this.api
      .knocks(this.session)
      .then((knocks) => {
        const known = new Set(this.current.knocks.map((k) => k.userId));
        const fresh = knocks.map((k) => ({ userId: k.user_id, name: k.display_name || k.user_id }));
        this.tell({ knocks: fresh });
        for (const k of fresh) if (!known.has(k.userId)) this.emit({ type: 'knock', ...k });
      })
      .catch(() => {})
      .finally(() => {
        // One may go and another come with the same count.
        clearTimeout(this.knockTimer);
        if (this.room?.knocking) this.knockTimer = setTimeout(() => this.readKnocks(), 10_000);
      });
  }

  private hearPacket(topic: string, payload: Uint8Array, from: string): void {
    const w = this.around.words();
    if (topic === 'tb.reaction') {
      const emoji = reaction(payload);
      if (emoji && from) this.showReaction(from, emoji);
    } else if (topic === 'tb.control') {
      const c = control(payload, from);
      if (!c) return;
      const by = this.nameOf(c.by);
      if (c.type === 'kicked' || c.type === 'ended') this.removedBy = { type: c.type, by: c.by };
      else if (c.type === 'muted') {
        if (c.by !== this.media?.me) this.notice(c.kind === 'audio' ? w.mutedBy(by) : c.kind === 'video' ? w.cameraBy(by) : w.screenBy(by));
        if (c.kind === 'screen') void this.share(false).catch(() => {});
        else {
          // Whoever was muted by a host stays it over a reload and a lost line.
          this.tell({ wish: { ...this.current.wish, [c.kind]: true } });
          this.store(true);
        }
      } else if (c.type === 'ask_unmute' && c.kind !== 'screen') {
        const kind = c.kind;
        this.notice(kind === 'audio' ? w.askedUnmute(by) : w.askedCamera(by), 'info', { label: kind === 'audio' ? w.unmute : w.cameraStart, do: () => void this.setMuted(kind, false) });
      }
    }
  }

  private showReaction(id: string, emoji: string): void {
    const key = ++this.counter;
    this.tell({ reactions: [...this.current.reactions.slice(-30), { key, id, emoji }] });
    this.emit({ type: 'reaction', id, emoji });
    setTimeout(() => this.tell({ reactions: this.current.reactions.filter((r) => r.key !== key) }), REACTION_MS);
  }

  private hearText(from: string, text: string, about: { id: string; at: number; private: boolean; event?: string }): void {
    // Who has the Matrix room reads there what came through it.
    if (about.event && this.chat) return;
    const person = this.current.people.find((p) => p.id === from);
    if (!person || text === '') return;
    this.addMessage({ key: about.event ?? about.id, from, name: person.name, text: text.slice(0, 8000), at: Date.now(), own: false, private: about.private }, false);
  }

  private addMessage(message: Message, old: boolean): void {
    const { messages, chatOpen, unread } = this.current;
    if (messages.some((m) => m.key === message.key)) return;
    const all = [...messages, message].sort((a, b) => a.at - b.at).slice(-KEPT_MESSAGES);
    const news = !old && !message.own && !chatOpen;
    this.tell({ messages: all, unread: news ? unread + 1 : unread });
    if (old) return;
    const { from, name, text, at, own } = message;
    this.emit({ type: 'message', from, name, text, at, own, private: message.private });
    if (news) {
      this.notice(this.around.words().newMessage(name, text.length > 120 ? `${text.slice(0, 120)} …` : text), 'info', undefined, true);
      this.emit({ type: 'chat', open: false, unread: unread + 1 });
    }
  }

  // --- Getting out, and coming back

  private async gone(reason: Gone): Promise<void> {
    const { removedBy } = this;
    if (reason === 'asked' || !['in', 'reconnecting'].includes(this.current.phase)) return;
    this.media = undefined;
    if (reason === 'lost') return this.recover();
    const me = this.current.me?.id ?? '';
    const by = removedBy?.by ? this.nameOf(removedBy.by) : undefined;
    this.finish();
    const w = this.around.words();
    if (reason === 'elsewhere') return this.phase('failed', { code: 'ELSEWHERE', text: w.elsewhere });
    if (reason === 'ended' || removedBy?.type === 'ended') return this.phase('ended');
    this.emit({ type: 'kicked', id: me, by: removedBy?.by });
    this.phase('kicked', by ? { code: 'KICKED', text: w.kickedBy(by) } : undefined);
  }

  /** Comes back with the session: after a restart of the server, a change of network, a laptop's sleep. */
  private async recover(): Promise<void> {
    this.phase('reconnecting');
    const stop = (this.waiting = new AbortController());
    for (let pause = 400; !stop.signal.aborted; pause = Math.min(pause * 1.6, 5000)) {
      try {
        let admission = await this.api.join(await this.request());
        while ('waiting' in admission) admission = await this.wait(stop.signal);
        if (stop.signal.aborted) return;
        await this.begin(admission.entry);
        return;
      } catch (error) {
        if (stop.signal.aborted) return;
        if (error instanceof Refusal && !error.passing) {
          this.finish();
          return this.fail(error, false);
        }
        await sleep(pause + Math.random() * 300, stop.signal);
      }
    }
  }

  async hangUp(): Promise<void> {
    const { session, media } = this;
    const { phase } = this.current;
    this.waiting?.abort();
    this.waiting = undefined;
    this.media = undefined;
    this.finish();
    this.phase(phase === 'lobby' || phase === 'password' ? 'prejoin' : 'left');
    await Promise.allSettled([media?.close(), session ? this.around.api(this.current.name).leave(session) : undefined]);
  }

  /** From an ending back to the beginning. */
  again(): void {
    const { options } = this.current;
    this.phase('prejoin');
    if (!options.prejoin) void this.join();
  }

  async end(): Promise<void> {
    await this.act({ action: 'end' });
    this.removedBy = { type: 'ended', by: this.media?.me ?? '' };
  }

  /** Lets go of everything that belongs to being in. */
  private finish(): void {
    clearTimeout(this.knockTimer);
    clearTimeout(this.spotlightTimer);
    this.chat?.close();
    this.chat = undefined;
    void this.blur?.stop().catch(() => {});
    this.blur = undefined;
    this.preview.close();
    this.forget();
    this.room = null;
    this.entry = undefined;
    this.removedBy = undefined;
    this.speaking = new Set();
    this.talk.speak([], performance.now());
    this.tell({ people: [], me: undefined, pictures: {}, knocks: [], reactions: [], notices: [], chatOpen: false, unread: 0, messages: [], pinned: undefined, speaker: undefined, blur: 'off' });
  }

  private memoryKey(): string {
    return `trunkboard.meet.session.${this.current.name}`;
  }

  private recall(): { session: string; in: boolean; muted?: { audio: boolean; video: boolean } } | null {
    try {
      const kept = JSON.parse(this.around.memory.getItem(this.memoryKey()) ?? 'null') as { session?: unknown; in?: unknown } | null;
      return typeof kept?.session === 'string' ? (kept as { session: string; in: boolean }) : null;
    } catch {
      return null;
    }
  }

  private store(inside: boolean): void {
    try {
      this.around.memory.setItem(this.memoryKey(), JSON.stringify({ session: this.session, in: inside, muted: this.current.wish }));
    } catch {
      // Without storage a reload asks again.
    }
  }

  private forget(): void {
    this.session = '';
    try {
      this.around.memory.removeItem(this.memoryKey());
    } catch {
      // Nothing was kept then.
    }
  }

  /** After a reload: as muted as before, and in again without a question. */
  resume(): Promise<void> {
    const muted = this.recall()?.muted;
    if (muted) this.tell({ wish: { audio: muted.audio === true, video: muted.video === true } });
    return this.join();
  }

  // --- What one can do

  async setMuted(kind: 'audio' | 'video', muted: boolean): Promise<void> {
    const w = this.around.words();
    const { media } = this;
    if (!media) {
      this.tell({ wish: { ...this.current.wish, [kind]: muted } });
      if (this.current.phase === 'prejoin') await this.openPreview();
      return;
    }
    if (!muted && !this.current.mayUnmute[kind] && !this.current.me?.host) {
      this.notice(kind === 'audio' ? w.mayNotUnmute : w.mayNotCamera);
      return;
    }
    try {
      await media.setMuted(kind, muted);
      this.tell({ wish: { ...this.current.wish, [kind]: muted } });
      this.store(true);
    } catch (error) {
      this.deviceTrouble(kind, error);
    }
    this.refresh();
  }

  /** Looks at oneself, as far as one wants to be seen and heard. */
  openPreview(): Promise<void> {
    const { wish, options } = this.current;
    return this.preview.open({ audio: !wish.audio, video: !wish.video }, options.devices ?? {});
  }

  async share(on: boolean, audio = true): Promise<void> {
    try {
      await this.media?.share(on, audio);
    } catch (error) {
      // Closing the browser's own question is an answer, no failure.
      if (!(error instanceof Error && error.name === 'NotAllowedError')) this.notice(this.around.words().shareFailed, 'problem');
    }
  }

  async setName(name: string): Promise<void> {
    this.configure({ displayName: name });
    if (!this.media) return;
    remember(NAME_KEY, name);
    await this.media.setName(name);
    this.refresh();
  }

  async setAvatar(url: string): Promise<void> {
    this.configure({ avatarUrl: url });
    await this.media?.setAvatar(url);
  }

  setSubject(subject: string): Promise<void> {
    return this.act({ action: 'subject', subject });
  }

  async givePassword(password: string): Promise<void> {
    if (this.current.phase === 'password') {
      this.phase('joining');
      await this.enter(password);
    } else if (this.entry) await this.act({ action: 'password', password });
    else this.configure({ password });
  }

  /** The key of an encrypted meeting, pasted by the person. */
  async giveKey(key: string): Promise<void> {
    this.around.key.set(key);
    if (this.current.e2ee === 'key') {
      this.tell({ e2ee: 'off' });
      this.phase('joining');
      await this.enter(this.current.options.password);
    }
  }

  /** Whether the meeting one begins is to be encrypted: its key goes into the page's address. */
  encrypt(on: boolean): void {
    this.around.key.set(on ? newKey() : '');
    this.tell();
  }

  get key(): string | undefined {
    return this.around.key.get();
  }

  setLobby(on: boolean): Promise<void> {
    return this.act({ action: 'lobby', on });
  }

  setView(view: 'tile' | 'speaker'): void {
    if (view === this.current.view) return;
    this.turned = false;
    this.tell({ view, pinned: view === 'tile' ? undefined : this.current.pinned });
    this.emit({ type: 'view', view });
  }

  pin(id?: string): void {
    this.tell({ pinned: id });
    if (id) this.setView('speaker');
  }

  openChat(open: boolean): void {
    if (open === this.current.chatOpen) return;
    this.tell({ chatOpen: open, unread: open ? 0 : this.current.unread, notices: open ? this.current.notices.filter((n) => !n.chat) : this.current.notices });
    this.emit({ type: 'chat', open, unread: this.current.unread });
  }

  async say(text: string, to?: string): Promise<void> {
    const { media, chat, current } = this;
    const words = text.trim();
    if (!words || !media || !current.me) return;
    const own = { from: current.me.id, name: current.me.name, text: words, at: Date.now(), own: true };
    if (to) {
      const key = await media.say(words, { to });
      this.addMessage({ ...own, key, private: true, to: this.nameOf(to) }, false);
    } else if (chat) {
      const event = await chat.say(words);
      this.addMessage({ ...own, key: event, private: false }, false);
      // For those without a Matrix account of their own.
      await media.say(words, { event }).catch(() => {});
    } else {
      const key = await media.say(words, {});
      this.addMessage({ ...own, key, private: false }, false);
    }
  }

  async raiseHand(up: boolean): Promise<void> {
    await this.media?.raiseHand(up ? Date.now() : 0);
    this.refresh();
  }

  async react(emoji: string): Promise<void> {
    const { media } = this;
    if (!media) return;
    await media.send('tb.reaction', { emoji });
    this.showReaction(media.me, emoji);
  }

  readonly host: HostControl = {
    mute: (id: string, kind: Kind) => this.act({ action: 'mute', identity: id, kind }),
    muteAll: (kind: Kind) => this.act({ action: 'mute_all', kind }),
    askUnmute: (id, kind) => this.act({ action: 'ask_unmute', identity: id, kind }),
    mayUnmute: (kind, allowed) => this.act({ action: 'may_unmute', kind, allowed }),
    kick: async (id: string) => {
      await this.act({ action: 'kick', identity: id });
      this.emit({ type: 'kicked', id, by: this.media?.me });
    },
    promote: (id: string) => this.act({ action: 'promote', identity: id }),
    demote: (id: string) => this.act({ action: 'demote', identity: id }),
    answer: async (userId: string, admit: boolean) => {
      await this.act({ action: admit ? 'admit' : 'deny', user_id: userId });
      this.tell({ knocks: this.current.knocks.filter((k) => k.userId !== userId) });
    },
  };

  private async act(action: HostAction): Promise<void> {
    await this.api.host(this.session, action);
  }

  /** For buttons: says what went wrong instead of throwing it. */
  tried(what: Promise<unknown>): void {
    what.catch((error: unknown) => {
      const w = this.around.words();
      this.notice(error instanceof Refusal ? (error.status === 403 ? w.notAllowed : error.status === 0 ? w.unreachable : error.message) : w.failedTitle, 'problem');
      console.error(error);
    });
  }

  /** A button of the toolbar was used; those outside may have asked to be told, or to take its place. */
  button(key: string, act: () => void): void {
    const asked = this.current.options.notifyClick?.find((n) => n.key === key);
    if (asked) this.emit({ type: 'button', key, prevented: asked.preventExecution });
    if (!asked?.preventExecution) act();
  }

  async devices(): Promise<{ available: MediaDeviceInfo[]; current: NonNullable<Options['devices']> }> {
    const available = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    return { available, current: this.current.options.devices ?? {} };
  }

  async useDevice(kind: MediaDeviceKind, id: string): Promise<void> {
    const which = kind === 'audioinput' ? 'audioInput' : kind === 'audiooutput' ? 'audioOutput' : 'videoInput';
    const devices = { ...this.current.options.devices, [which]: id || undefined };
    this.configure({ devices });
    rememberDevices(devices);
    if (this.media) await this.media.useDevice(kind, id);
    else if (kind !== 'audiooutput' && this.current.phase === 'prejoin') {
      const { wish } = this.current;
      await this.preview.change(kind === 'audioinput' ? 'audio' : 'video', devices, { audio: !wish.audio, video: !wish.video });
    }
    this.emit({ type: 'devices' });
  }

  configure(change: Partial<Options>): void {
    const { current } = this;
    const options = { ...current.options, ...change };
    const more: Partial<State> = { options };
    if (change.name !== undefined && !this.media) more.name = change.name;
    if (change.startMuted && !this.media) more.wish = { ...change.startMuted };
    if (change.audioOnly !== undefined) more.audioOnly = change.audioOnly;
    if (change.subject && !this.media) more.subject = change.subject;
    this.tell(more);
    if (change.name !== undefined) this.session ||= this.recall()?.session ?? '';
    if (change.audioOnly !== undefined) this.setAudioOnly(change.audioOnly);
    if (change.tileView !== undefined) this.setView(change.tileView ? 'tile' : 'speaker');
  }

  setVolume(id: string, volume: number): void {
    this.media?.setVolume(id, Math.min(1, Math.max(0, volume)));
  }

  setQuality(height: number): void {
    this.tell({ quality: height });
    this.media?.setQuality(height);
    this.setAudioOnly(height === 0);
  }

  private setAudioOnly(on: boolean): void {
    this.tell({ audioOnly: on });
    this.media?.setAudioOnly(on);
    if (on && this.current.me && !this.current.me.muted.video) void this.setMuted('video', true);
  }

  async setBlur(on: boolean): Promise<void> {
    const { media } = this;
    if (!on) {
      await this.blur?.stop();
      this.blur = undefined;
      this.tell({ blur: 'off' });
      return;
    }
    if (!media?.camera || this.blur) return;
    this.tell({ blur: 'loading' });
    try {
      const { blurred } = await import('./blur.ts');
      this.blur = await blurred(media.camera);
      this.tell({ blur: 'on' });
    } catch (error) {
      console.error('blur', error);
      this.tell({ blur: 'off' });
      this.notice(this.around.words().blurFailed, 'problem');
    }
  }

  playSound(): void {
    void this.media?.playSound();
  }

  /** Shows somebody's picture in an element until the returned function is called. */
  attach(id: string, what: 'camera' | 'screen', element: HTMLVideoElement): () => void {
    return this.media?.attach(id, what, element) ?? (() => {});
  }

  /** Everybody who was seen, with the milliseconds they spoke. */
  spoken(): { person: Person; ms: number }[] {
    const now = performance.now();
    return this.current.people.map((person) => ({ person, ms: this.talk.of(person.id, now) })).sort((a, b) => b.ms - a.ms);
  }
}
