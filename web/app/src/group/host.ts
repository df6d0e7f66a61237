// SPDX-License-Identifier: Apache-2.0
import { KnownMembership, RoomEvent, type MatrixClient, type Room } from 'matrix-js-sdk';
import type { TokenKeeper } from '../auth/tokens.ts';
import { raw } from '../matrix/convert.ts';
import type { MediaLoader } from '../matrix/media.ts';
import { displayName, plainName } from '../matrix/names.ts';
import { announcement, LONGEST_MS, newRoomCall, roomCallOf, type RoomCall } from '../matrix/roomCall.ts';
import { wentWrong } from '../matrix/wrong.ts';
import { MeetApi } from '../meet/api.ts';
import { openRoom, toast, useApp } from '../store.ts';
import { Attendances } from './attendance.ts';
import { GroupCall } from './call.ts';
import type { FramedCall } from './frame.ts';
import { RoomCallFrame } from './roomCall.ts';
import { elementCall } from './settings.ts';
import { News } from './news.ts';

/** Where somebody is in a call: what every member must be allowed to set for itself. */
const MEMBER_STATE = 'org.matrix.msc3401.call.member';

/** So many older events are looked through for a call that runs, before another begins: pages, and events of each. */
const PAGES = 3;
const PAGE = 100;

/** What the group calls of this server are held with: Element Call where the operator has put it, else our own meeting page. */
export type Offer = 'element-call' | 'meeting' | 'none';

/** The group calls of an account: one at a time on this device. */
export class GroupCalls {
  current: FramedCall | null = null;
  readonly attendances: Attendances;
  private readonly client: MatrixClient;
  private readonly media: MediaLoader;
  private readonly keeper: TokenKeeper;
  private readonly news: News;
  private offer: Promise<Offer> | undefined;
  private opening = false;

  constructor(client: MatrixClient, media: MediaLoader, keeper: TokenKeeper) {
    this.client = client;
    this.media = media;
    this.keeper = keeper;
    this.attendances = new Attendances((name) => this.meeting(name).info());
    this.news = new News(client, (room, call, who) => this.invite(room, call, who));
    client.on(RoomEvent.MyMembership, this.onMembership);
  }

  /** What a group call is begun with here. */
  offered(): Promise<Offer> {
    this.offer ??= this.look().catch(() => {
      this.offer = undefined; // asked again when the next room is opened
      return 'none';
    });
    return this.offer;
  }

  private async look(): Promise<Offer> {
    if (await elementCall()) return 'element-call';
    const { may_create } = await this.meeting(newRoomCall(location.origin, false, false).name).info();
    return may_create ? 'meeting' : 'none';
  }

  private meeting(name: string): MeetApi {
    return new MeetApi(name, this.keeper.fetch, () => this.keeper.accessToken);
  }

  // --- Element Call

  /** How many people are in the call of a room; 0 for no call. */
  people(room: Room): number {
    const members = this.client.matrixRTC.getActiveRoomSession(room)?.memberships ?? [];
    return new Set(members.map((m) => m.userId)).size;
  }

  /** Whether we may take part in the call of a room. */
  allowed(room: Room): boolean {
    return room.currentState.maySendStateEvent(MEMBER_STATE, this.client.getSafeUserId());
  }

  /** Opens the call of a room: starts one, or joins the one that runs. */
  async open(roomId: string): Promise<void> {
    const at = await elementCall();
    const room = this.free(roomId);
    if (!room || !at) return;
    const call = new GroupCall(
      this.client,
      this.media,
      {
        at,
        roomId,
        encrypted: room.hasEncryptionStateEvent() && this.client.getCrypto() !== undefined,
        running: this.people(room) > 0,
        theme: 'dark', // as the bar above it
        lang: navigator.language,
      },
      { onJoined: () => this.patch({ joined: true }), onOver: (why) => this.gone(why) },
    );
    this.show(room, call);
  }

  // --- Our own meeting page

  /** Why we may not begin a call in a room; empty if we may. */
  refusal(room: Room): string {
    const encrypted = room.hasEncryptionStateEvent();
    if (encrypted && !this.client.getCrypto()) return 'This room is end-to-end encrypted, and this browser cannot encrypt';
    const type = encrypted ? 'm.room.encrypted' : 'm.room.message';
    return room.currentState.maySendEvent(type, this.client.getSafeUserId()) ? '' : 'This room does not let you begin calls';
  }

  /** Joins the call that runs in a room, or begins one. */
  async meet(roomId: string, video: boolean): Promise<void> {
    if (this.opening || !this.free(roomId)) return;
    this.opening = true;
    try {
      const running = await this.running(roomId, PAGES);
      const room = this.free(roomId);
      if (!room) return;
      if (running) this.enter(room, running, false);
      else this.enter(room, newRoomCall(location.origin, room.hasEncryptionStateEvent(), video), true);
    } catch (error) {
      toast(wentWrong(error), 'problem');
    } finally {
      this.opening = false;
    }
  }

  /** Goes to a call that somebody has told the room of. */
  join(roomId: string, call: RoomCall): void {
    const room = this.free(roomId);
    if (room) this.enter(room, call, false);
  }

  /** Says that somebody has begun a call, to whoever does not look at the room or has something else over it. */
  private invite(room: Room, call: RoomCall, who: string): void {
    if (this.current || (useApp.getState().roomId === room.roomId && document.visibilityState === 'visible')) return;
    const kind = call.video ? 'video' : 'voice';
    toast(`${displayName(room, who)} started a ${kind} call in ${plainName(room.name)}.`, 'info', {
      label: call.here ? 'Join' : 'Look',
      do: () => {
        openRoom(room.roomId);
        if (call.here) this.join(room.roomId, call);
      },
    });
  }

  private enter(room: Room, call: RoomCall, begins: boolean): void {
    const userId = this.client.getSafeUserId();
    const own = displayName(room, userId);
    // A name that is made of the others' is a different one for each of them.
    const named = room.currentState.getStateEvents('m.room.name', '') !== null || room.getCanonicalAlias() !== null;
    const frame: RoomCallFrame = new RoomCallFrame(
      { roomId: room.roomId, call, begins, userId, displayName: own, subject: named ? plainName(room.name) : `${own}’s call`, devices: useApp.getState().devices },
      {
        onJoined: () => {
          this.patch({ joined: true });
          if (begins) void this.tell(room, frame);
        },
        onPeople: (people) => this.attendances.tell(call.name, people),
        onOver: (why) => {
          this.gone(why);
          // The server has heard of our leaving by then.
          setTimeout(() => void this.attendances.refresh(call.name), 1000);
        },
      },
    );
    this.show(room, frame, call.name);
  }

  /** We are in the call that we began: the room is told, unless somebody was quicker. */
  private async tell(room: Room, frame: RoomCallFrame): Promise<void> {
    const other = await this.running(room.roomId, 0);
    if (this.current !== frame) return;
    if (other) {
      await frame.hangUp();
      return this.join(room.roomId, other);
    }
    try {
      await this.client.sendMessage(room.roomId, announcement(frame.call) as never);
    } catch (error) {
      toast(`The others could not be told of the call: ${wentWrong(error)}`, 'problem');
    }
  }

  /** The newest call of a room that somebody is in, looked for in what is loaded and `pages` before that. */
  private async running(roomId: string, pages: number): Promise<RoomCall | undefined> {
    const since = Date.now() - LONGEST_MS;
    const seen = new Set<string>();
    for (let page = 0; ; page++) {
      const room = this.client.getRoom(roomId);
      const events = room?.getLiveTimeline().getEvents() ?? [];
      await Promise.all(events.map((e) => e.getTs() > since && e.shouldAttemptDecryption() && this.client.decryptEventIfNeeded(e).catch(() => {})));
      for (const event of [...events].reverse()) {
        const call = event.getTs() > since && roomCallOf(raw(event), this.client.getSafeUserId());
        if (!call || !call.here || seen.has(call.name)) continue;
        seen.add(call.name);
        if (Number(await this.attendances.refresh(call.name)) > 0) return call;
      }
      const first = events[0];
      if (!room || page >= pages || !first || first.getTs() < since) return undefined;
      const before = events.length;
      await this.client.scrollback(room, PAGE);
      if (room.getLiveTimeline().getEvents().length === before) return undefined;
    }
  }

  // --- One at a time

  /** The room, if a call can be opened in it now; what is open already is brought to the front. */
  private free(roomId: string): Room | null {
    if (this.current?.roomId === roomId) this.minimise(false);
    else if (this.current) toast('You are in another call.');
    return this.current ? null : this.client.getRoom(roomId);
  }

  private show(room: Room, call: FramedCall, meeting?: string): void {
    this.current = call;
    useApp.setState({ group: { roomId: room.roomId, name: plainName(room.name), meeting, joined: false, minimised: false } });
  }

  minimise(minimised: boolean): void {
    this.patch({ minimised });
  }

  async hangUp(): Promise<void> {
    await this.current?.hangUp();
  }

  /** Who is not in the room any more has nothing to do in its call. */
  private onMembership = (room: Room, membership: string): void => {
    if (room.roomId === this.current?.roomId && membership !== (KnownMembership.Join as string)) void this.hangUp();
  };

  /** Ends everything at once: the page or the session goes. */
  stop(): void {
    this.client.off(RoomEvent.MyMembership, this.onMembership);
    this.news.stop();
    this.current?.end();
    this.attendances.stop();
  }

  private gone(why?: string): void {
    this.current = null;
    useApp.setState({ group: null });
    if (why) toast(why);
  }

  private patch(change: Partial<NonNullable<ReturnType<typeof useApp.getState>['group']>>): void {
    useApp.setState((s) => (s.group ? { group: { ...s.group, ...change } } : {}));
  }
}
