// SPDX-License-Identifier: Apache-2.0
// The coming and going of the line: into a meeting, through its password and its lobby, out of it, and back after the line was lost.
import type { Entry, JoinRequest, MeetApi } from './api.ts';
import { Refusal } from './api.ts';
import type { Board } from './board.ts';
import { sleep } from './chat.ts';
import type { Conversation } from './conversation.ts';
import type { Hearing } from './hearing.ts';
import type { Gone, Listener } from './media.ts';
import { NAME_KEY, remember } from './options.ts';
import type { Preview } from './preview.ts';
import { NO_MEDIA, refusalWords } from './refusals.ts';
import type { Session } from './session.ts';
import type { Surroundings } from './surroundings.ts';

export class Line {
  private mark = {};
  private waiting?: AbortController;
  private began = 0;

  constructor(
    private readonly board: Board,
    private readonly session: Session,
    private readonly around: Surroundings,
    private readonly preview: Preview,
    private readonly hearing: Hearing,
    private readonly conversation: Conversation,
    /** Lets go of everything else that belongs to being in. */
    private readonly finished: () => void,
  ) {}

  /** What may be known from outside; loads the media code meanwhile. */
  async look(): Promise<void> {
    void this.around.media().catch(() => {});
    try {
      const info = await this.session.api.info();
      this.board.tell({ info, subject: info.subject || this.board.state.subject });
    } catch {
      // Joining will say what is wrong.
    }
  }

  async join(): Promise<void> {
    const { phase, options } = this.board.state;
    if (['joining', 'in', 'reconnecting', 'lobby'].includes(phase)) return;
    this.began = performance.now();
    await this.enter(options.password);
  }

  private async request(password?: string): Promise<JoinRequest> {
    const { options } = this.board.state;
    const request: JoinRequest = { display_name: options.displayName ?? '', session: this.session.secret || undefined };
    if (options.avatarUrl) request.avatar_url = options.avatarUrl;
    if (password) request.password = password;
    if (options.jwt) request.jwt = options.jwt;
    if (options.roomId) request.room_id = options.roomId;
    if (options.openid) request.openid = await options.openid();
    // Counts for a meeting that begins, which one that is over may do.
    if (this.around.key.get()) request.e2ee = true;
    if (options.call) {
      request.call = true;
      request.subject = options.subject;
    }
    return request;
  }

  /** Asks to be let in, and waits in the lobby for as long as it takes. */
  async enter(password?: string): Promise<void> {
    const { board, session } = this;
    board.phase('joining');
    try {
      let admission = await session.api.join(await this.request(password));
      while ('waiting' in admission) {
        session.secret = admission.session;
        board.phase('lobby');
        this.waiting ??= new AbortController();
        admission = await this.wait(this.waiting.signal);
      }
      await this.begin(admission.entry);
    } catch (error) {
      if (error instanceof DOMException && error.name === 'AbortError') return;
      if (board.state.phase === 'left') return;
      this.fail(error, password !== undefined && password !== '');
    } finally {
      this.waiting = undefined;
    }
  }

  /** In the lobby a server that restarts is no refusal. */
  private async wait(signal: AbortSignal): ReturnType<MeetApi['wait']> {
    for (let pause = 500; ; pause = Math.min(pause * 2, 5000)) {
      try {
        return await this.session.api.wait(this.session.secret, signal);
      } catch (error) {
        if (!(error instanceof Refusal) || !error.passing) throw error;
        await sleep(pause, signal);
        signal.throwIfAborted();
      }
    }
  }

  private fail(error: unknown, answered: boolean): void {
    const { board } = this;
    const w = board.words();
    this.preview.close();
    if (!(error instanceof Refusal)) {
      console.error('joining failed', error);
      return board.phase('failed', { code: 'UNREACHABLE', text: w.unreachable });
    }
    if (error.code === 'IO_TRUNKBOARD_PASSWORD') return board.phase('password', answered ? { code: error.code, text: w.passwordWrong } : undefined);
    const inLobby = board.state.phase === 'lobby';
    const text = refusalWords(error, w, { 403: inLobby ? w.notLetIn : w.refused, 404: w.gone });
    this.session.forget();
    board.phase('failed', { code: error.code, text });
  }

  private async begin(entry: Entry): Promise<void> {
    const { board, session, hearing } = this;
    session.entry = entry;
    session.secret = entry.session;
    const { options } = board.state;
    session.store();
    let key: string | undefined;
    // Whoever comes to a call with its key was told by a member that it is encrypted, and believes no server that says otherwise.
    if (entry.e2ee || options.call) {
      key = this.around.key.get();
      if (entry.e2ee && !key) {
        board.tell({ e2ee: 'key' });
        board.phase('password', { code: 'KEY', text: '' });
        return;
      }
    }
    const { Media } = await this.around.media();
    const tracks = this.preview.take();
    const { wish, audioOnly, phase } = board.state;
    const media = new Media(this.listener(), {
      url: entry.media.url, token: entry.media.token, iceServers: entry.media.ice_servers, relayOnly: this.around.relayOnly, key, ...tracks,
      muted: { audio: wish.audio, video: wish.video || audioOnly }, small: this.around.small, audioOnly, devices: options.devices ?? {},
    });
    session.media = media;
    const again = phase === 'reconnecting';
    try {
      await media.connect();
    } catch (error) {
      if (session.media === media) session.media = undefined;
      await media.close().catch(() => {});
      for (const track of Object.values(tracks)) track?.stop();
      throw again ? error : new Refusal(0, NO_MEDIA, error instanceof Error ? error.message : String(error));
    }
    if (session.media !== media) return void media.close();
    hearing.metadata(media.metadata);
    const { room } = hearing;
    board.tell({ subject: room?.subject || entry.subject || board.state.subject, e2ee: key ? 'on' : 'off', started: room?.started ?? Date.now(), notices: [] });
    board.phase('in');
    hearing.arrived();
    const { me } = board.state;
    if (me && !again) board.emit({ type: 'joined', person: me });
    performance.measure?.('meet.join', { start: this.began });
    if (options.displayName && !again) remember(NAME_KEY, options.displayName);
    void media.publish().then(() => hearing.refresh());
    this.conversation.open(entry);
  }

  /** Of a session that has been replaced nothing is heard any more. */
  private listener(): Listener {
    const { board, hearing } = this;
    const mark = (this.mark = {});
    const of = (f: () => void) => {
      if (mark === this.mark) f();
    };
    return {
      changed: () => of(() => hearing.changed()),
      speakers: (ids) => of(() => hearing.speakers(ids)),
      metadata: (text) => of(() => hearing.metadata(text)),
      packet: (topic, payload, from) => of(() => hearing.packet(topic, payload, from)),
      text: (from, text, about) => of(() => hearing.text(from, text, about)),
      connection: (state) => of(() => (state === 'reconnecting' ? board.phase('reconnecting') : board.state.phase === 'reconnecting' && board.phase('in'))),
      gone: (reason) => of(() => void this.gone(reason)),
      devices: () => hearing.devices(),
      trouble: (kind, error) => of(() => hearing.trouble(kind, error)),
      silent: (blocked) => of(() => hearing.silent(blocked)),
      unreadable: () => of(() => hearing.unreadable()),
    };
  }

  private async gone(reason: Gone): Promise<void> {
    const { board } = this;
    const { removedBy } = this.hearing;
    if (reason === 'asked' || !['in', 'reconnecting'].includes(board.state.phase)) return;
    this.session.media = undefined;
    if (reason === 'lost') return this.recover();
    const me = board.state.me?.id ?? '';
    const by = removedBy?.by ? board.nameOf(removedBy.by) : undefined;
    this.finish();
    const w = board.words();
    if (reason === 'elsewhere') return board.phase('failed', { code: 'ELSEWHERE', text: w.elsewhere });
    if (reason === 'ended' || removedBy?.type === 'ended') return board.phase('ended');
    board.emit({ type: 'kicked', id: me, by: removedBy?.by });
    board.phase('kicked', by ? { code: 'KICKED', text: w.kickedBy(by) } : undefined);
  }

  /** Comes back with the session: after a restart of the server, a change of network, a laptop's sleep. */
  private async recover(): Promise<void> {
    this.board.phase('reconnecting');
    const stop = (this.waiting = new AbortController());
    for (let pause = 400; !stop.signal.aborted; pause = Math.min(pause * 1.6, 5000)) {
      try {
        let admission = await this.session.api.join(await this.request());
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
    const { board, session } = this;
    const { secret, media, api } = session;
    const { phase } = board.state;
    this.waiting?.abort();
    this.waiting = undefined;
    session.media = undefined;
    this.finish();
    board.phase(phase === 'lobby' || phase === 'password' ? 'prejoin' : 'left');
    await Promise.allSettled([media?.close(), secret ? api.leave(secret) : undefined]);
  }

  /** Lets go of everything that belongs to being in. */
  private finish(): void {
    this.conversation.close();
    this.preview.close();
    this.session.forget();
    this.session.entry = undefined;
    this.hearing.finish();
    this.finished();
    this.board.tell({ people: [], me: undefined, pictures: {}, knocks: [], reactions: [], notices: [], chatOpen: false, unread: 0, messages: [], pinned: undefined, speaker: undefined, blur: 'off' });
  }
}
