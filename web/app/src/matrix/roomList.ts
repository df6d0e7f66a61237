// SPDX-License-Identifier: Apache-2.0
import {
  ClientEvent,
  EventType,
  KnownMembership,
  MatrixEvent,
  MatrixEventEvent,
  NotificationCountType,
  RoomEvent,
  RoomMemberEvent,
  RoomStateEvent,
  UserEvent,
  type MatrixClient,
  type Room,
} from 'matrix-js-sdk';
import { useApp } from '../store.ts';
import { raw } from './convert.ts';
import { displayName, plainName } from './names.ts';
import { CALL_ROOM } from './roomCall.ts';
import { previewOf, type Presence, type RoomItem } from './roomItem.ts';

/** The user ids that account data `m.direct` names for each room. */
export function directRooms(client: MatrixClient): Map<string, string> {
  const byRoom = new Map<string, string>();
  const content = client.getAccountData(EventType.Direct)?.getContent() ?? {};
  for (const [userId, rooms] of Object.entries(content)) {
    if (Array.isArray(rooms)) for (const id of rooms) if (typeof id === 'string') byRoom.set(id, userId);
  }
  return byRoom;
}

/** How far back a preview looks for something to say. */
const PREVIEW_EVENTS = 40;

/**
 * Keeps the list of rooms in the store up to date. Each event marks its own room; marked rooms are worked out
 * again once per frame, so a burst of events costs one pass and an idle room costs nothing.
 */
export class RoomList {
  private readonly client: MatrixClient;
  private readonly items = new Map<string, RoomItem>();
  private readonly marked = new Set<string>();
  private all = true;
  private scheduled: ReturnType<typeof setTimeout> | null = null;
  private readonly stops: (() => void)[] = [];

  constructor(client: MatrixClient) {
    this.client = client;
    const mark = (room: Room | undefined) => room && this.mark(room.roomId);
    const on = (event: string, handler: (...args: never[]) => void) => {
      client.on(event as never, handler as never);
      this.stops.push(() => client.off(event as never, handler as never));
    };
    on(RoomEvent.Timeline, (_event: unknown, room: Room | undefined) => mark(room));
    on(MatrixEventEvent.Decrypted, (event: { getRoomId(): string | undefined }) => {
      const roomId = event.getRoomId();
      if (roomId) this.mark(roomId);
    });
    on(RoomEvent.LocalEchoUpdated, (_event: unknown, room: Room | undefined) => mark(room));
    on(RoomEvent.Name, (room: Room) => mark(room));
    on(RoomEvent.MyMembership, (room: Room) => mark(room));
    on(RoomEvent.UnreadNotifications, () => this.markAll());
    on(RoomEvent.Receipt, (_event: unknown, room: Room) => mark(room));
    on(RoomEvent.Redaction, (_event: unknown, room: Room) => mark(room));
    on(RoomStateEvent.Members, (_event: unknown, state: { roomId: string }) => this.mark(state.roomId));
    on(RoomMemberEvent.Membership, (_event: unknown, member: { roomId: string }) => this.mark(member.roomId));
    on(UserEvent.Presence, () => this.markAll());
    on(ClientEvent.Room, (room: Room) => mark(room));
    on(ClientEvent.DeleteRoom, () => this.markAll());
    on(ClientEvent.AccountData, (event: { getType(): string }) => event.getType() === (EventType.Direct as string) && this.markAll());
    this.markAll();
  }

  /** Asks the server about somebody of whom sync has told nothing: somebody we only just share a room with. */
  async askPresence(userId: string): Promise<void> {
    const content = await this.client.getPresence(userId);
    const user = this.client.getUser(userId);
    if (!user || user.events.presence) return;
    user.setPresenceEvent(new MatrixEvent({ type: EventType.Presence, sender: userId, content: { ...content } }));
    this.markAll();
  }

  stop(): void {
    for (const stop of this.stops) stop();
    if (this.scheduled !== null) clearTimeout(this.scheduled);
  }

  markAll(): void {
    this.all = true;
    this.schedule();
  }

  private mark(roomId: string): void {
    this.marked.add(roomId);
    this.schedule();
  }

  private schedule(): void {
    this.scheduled ??= setTimeout(() => {
      this.scheduled = null;
      this.update();
    }, 16);
  }

  private update(): void {
    const direct = directRooms(this.client);
    if (this.all) {
      this.items.clear();
      for (const room of this.client.getRooms()) this.put(room.roomId, direct);
    } else {
      for (const id of this.marked) this.put(id, direct);
    }
    this.all = false;
    this.marked.clear();
    useApp.setState({ rooms: [...this.items.values()] });
  }

  private put(roomId: string, direct: Map<string, string>): void {
    const room = this.client.getRoom(roomId);
    const item = room && this.summarise(room, direct);
    if (item) this.items.set(roomId, item);
    else this.items.delete(roomId);
  }

  private summarise(room: Room, direct: Map<string, string>): RoomItem | null {
    const membership = room.getMyMembership();
    if (membership !== KnownMembership.Join && membership !== KnownMembership.Invite) return null;
    if (room.getType() === CALL_ROOM) return null;
    const me = this.client.getSafeUserId();
    const invited = membership === KnownMembership.Invite;
    const myMember = room.getMember(me);
    const inviter = invited ? myMember?.events.member?.getSender() : undefined;
    const inviteIsDirect = invited && myMember?.events.member?.getContent().is_direct === true;
    const peer = direct.get(room.roomId) ?? (inviteIsDirect ? inviter : undefined);
    const events = room.getLiveTimeline().getEvents().slice(-PREVIEW_EVENTS).map(raw);
    const preview = previewOf(events, me, Date.now(), (id) => displayName(room, id));
    const user = peer ? this.client.getUser(peer) : null;
    // The SDK calls everybody offline of whom it has heard nothing.
    const presence = user?.events.presence ? (user.presence as Presence) : 'unknown';
    return {
      id: room.roomId,
      name: peer ? displayName(room, peer) : plainName(room.name) || room.roomId,
      kind: peer ? 'person' : 'room',
      membership: invited ? 'invite' : 'join',
      peer,
      presence,
      preview: invited ? (inviter ? `${displayName(room, inviter)} invites you` : 'Invitation') : preview.words,
      ts: preview.ts || room.getLastActiveTimestamp() || 0,
      unread: room.getUnreadNotificationCount(NotificationCountType.Total),
      highlight: room.getUnreadNotificationCount(NotificationCountType.Highlight) > 0,
      members: room.getJoinedMemberCount(),
      encrypted: room.hasEncryptionStateEvent(),
      inviter,
    };
  }
}
