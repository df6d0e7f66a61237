// SPDX-License-Identifier: Apache-2.0
import { ClientEvent, Direction, MatrixEventEvent, RoomStateEvent, RoomStickyEventsEvent, type MatrixClient, type MatrixEvent, type ReceivedToDeviceMessage } from 'matrix-js-sdk';
import type { MediaLoader } from '../matrix/media.ts';
import { CallDriver, widgetEvent } from './driver.ts';
import { FramedCall, type FramedCallEvents } from './frame.ts';
import { groupCallUrl, type GroupCallPlace } from './url.ts';

const MOST_FED = 1000;

/** Who is in a call, with MatrixRTC 2.0; sticky. */
const MEMBER = 'org.matrix.msc4143.rtc.member';

/** After a membership event the widget is asked to look again, in milliseconds: soon, and once more if it was busy. */
const LOOK_AGAIN_MS = [200, 2000];

/** Element Call in a frame, and what passes between it and the room. */
export class GroupCall extends FramedCall {
  private readonly client: MatrixClient;
  private readonly media: MediaLoader;
  /** Ids of the events that the widget has, the newest ones. */
  private readonly fed = new Set<string>();
  private looks: ReturnType<typeof setTimeout>[] = [];

  constructor(client: MatrixClient, media: MediaLoader, place: Omit<GroupCallPlace, 'widgetId' | 'userId' | 'deviceId' | 'baseUrl'>, events: FramedCallEvents) {
    const id = `trunkboard-call-${crypto.randomUUID()}`;
    const userId = client.getSafeUserId();
    const url = groupCallUrl({ ...place, widgetId: id, userId, deviceId: client.getDeviceId()!, baseUrl: client.baseUrl });
    super(place.roomId, { id, userId, type: 'm.call', url }, events);
    this.client = client;
    this.media = media;
  }

  protected driver(): CallDriver {
    return new CallDriver(this.client, this.media, this.roomId);
  }

  protected override attached(): void {
    this.client.on(ClientEvent.Event, this.onEvent);
    this.client.on(MatrixEventEvent.Decrypted, this.onDecrypted);
    this.client.on(RoomStateEvent.Events, this.onState);
    this.client.getRoom(this.roomId)?.on(RoomStickyEventsEvent.Update, this.onSticky);
    this.client.on(ClientEvent.ReceivedToDeviceMessage, this.onToDevice);
  }

  protected override detached(): void {
    this.client.off(ClientEvent.Event, this.onEvent);
    this.client.off(MatrixEventEvent.Decrypted, this.onDecrypted);
    this.client.off(RoomStateEvent.Events, this.onState);
    this.client.getRoom(this.roomId)?.off(RoomStickyEventsEvent.Update, this.onSticky);
    this.client.off(ClientEvent.ReceivedToDeviceMessage, this.onToDevice);
    this.looks.forEach(clearTimeout);
  }

  private onEvent = (event: MatrixEvent): void => {
    if (event.getRoomId() !== this.roomId) return;
    // The SDK decrypts by itself only what it needs; onDecrypted passes it on.
    if (event.shouldAttemptDecryption()) this.client.decryptEventIfNeeded(event).catch(() => {});
    else this.feed(event);
  };

  private onDecrypted = (event: MatrixEvent): void => {
    if (event.getRoomId() === this.roomId) this.feed(event);
  };

  private onState = (event: MatrixEvent): void => {
    if (event.getRoomId() === this.roomId) this.api?.feedStateUpdate(widgetEvent(event)).catch(() => {});
  };

  /** Sticky events also come without the timeline, after a gap for example. */
  private onSticky = (added: MatrixEvent[], updated: { current: MatrixEvent }[]): void => {
    for (const event of [...added, ...updated.map((u) => u.current)]) {
      this.onEvent(event);
    }
  };

  private onToDevice = ({ message, encryptionInfo }: ReceivedToDeviceMessage): void => {
    this.api?.feedToDevice(message as never, encryptionInfo !== null).catch(() => {});
  };

  private feed(event: MatrixEvent): void {
    const id = event.getId() ?? '';
    if (event.isBeingDecrypted() || event.isDecryptionFailure() || this.fed.has(id)) return;
    // A sticky event comes by the timeline, decrypted, and as sticky: once is enough.
    this.fed.add(id);
    if (this.fed.size > MOST_FED) this.fed.delete(this.fed.values().next().value!);
    const told = this.api?.feedEvent(widgetEvent(event)).catch(() => {});
    if (event.getType() === MEMBER) void told?.then(this.lookAgain);
  }

  /**
   * Has the widget work out once more who is in the call. Element Call 0.26 does so twice at a membership event, at the same time: from
   * what it knew before the event, and with it. When somebody leaves, the first takes longer, its result stays, and at the next leave
   * whoever left is shown again (matrix-js-sdk before 43.0.0: embedded.ts tells of an event before it stores it, and
   * MatrixRTCSessionManager does not wait for its turn). A member of the room, told again, is a reason to look that changes nothing.
   */
  private lookAgain = (): void => {
    if (this.over) return;
    this.looks.forEach(clearTimeout);
    this.looks = LOOK_AGAIN_MS.map((ms) =>
      setTimeout(() => {
        const me = this.client.getRoom(this.roomId)?.getLiveTimeline().getState(Direction.Forward)?.getStateEvents('m.room.member', this.client.getSafeUserId());
        if (me) this.onState(me);
      }, ms),
    );
  };
}
