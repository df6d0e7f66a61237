// SPDX-License-Identifier: Apache-2.0
import { Direction, EventType, MatrixError, Method, type IContent, type MatrixClient, type MatrixEvent, type StateEvents, type TimelineEvents } from 'matrix-js-sdk';
import {
  OpenIDRequestState,
  WidgetDriver,
  type Capability,
  type IOpenIDUpdate,
  type IRoomEvent,
  type IRtcLivekitDelegateDelayedLeaveFromWidgetRequestData,
  type IRtcLivekitDelegateDelayedLeaveFromWidgetResponseData,
  type IRtcLivekitGetTokenFromWidgetRequestData,
  type IRtcLivekitGetTokenFromWidgetResponseData,
  type IRtcTransportsResult,
  type ISendDelayedEventDetails,
  type ISendEventDetails,
  type ITurnServer,
  type IWidgetApiErrorResponseDataDetails,
  type SimpleObservable,
} from 'matrix-widget-api';
import type { MediaLoader } from '../matrix/media.ts';
import { callCapabilities } from './capabilities.ts';

/** MSC4195 under its unstable name. */
const LIVEKIT = '/_matrix/client/unstable/io.element.msc4195';

/** Events that are read from the timeline at most, however many the widget asks for. */
const MOST_EVENTS = 500;

/** An event as the widget API carries it: decrypted if it was encrypted. */
export function widgetEvent(event: MatrixEvent): IRoomEvent {
  return event.getEffectiveEvent() as unknown as IRoomEvent;
}

/** Does for a group call's widget what it may do in its room; what goes elsewhere is refused. */
export class CallDriver extends WidgetDriver {
  private readonly client: MatrixClient;
  private readonly media: MediaLoader;
  private readonly roomId: string;

  constructor(client: MatrixClient, media: MediaLoader, roomId: string) {
    super();
    this.client = client;
    this.media = media;
    this.roomId = roomId;
  }

  override async validateCapabilities(requested: Set<Capability>): Promise<Set<Capability>> {
    const allowed = callCapabilities(this.roomId, this.client.getSafeUserId(), this.client.getDeviceId()!);
    return new Set([...requested].filter((c) => allowed.has(c)));
  }

  override async sendEvent(type: string, content: unknown, stateKey: string | null = null, roomId: string | null = null): Promise<ISendEventDetails> {
    const room = this.here(roomId);
    const body = content as IContent;
    let answer;
    if (stateKey !== null) answer = await this.client.sendStateEvent(room, type as keyof StateEvents, body as StateEvents[keyof StateEvents], stateKey);
    else if (type === (EventType.RoomRedaction as string)) answer = await this.client.redactEvent(room, String(body.redacts));
    else answer = await this.client.sendEvent(room, type as keyof TimelineEvents, body as TimelineEvents[keyof TimelineEvents]);
    return { roomId: room, eventId: answer.event_id };
  }

  override async sendStickyEvent(duration: number, type: string, content: unknown, roomId: string | null = null): Promise<ISendEventDetails> {
    const room = this.here(roomId);
    const { event_id } = await this.client._unstable_sendStickyEvent(room, duration, null, type as keyof TimelineEvents, content as TimelineEvents[keyof TimelineEvents] & { msc4354_sticky_key: string });
    return { roomId: room, eventId: event_id };
  }

  override async sendDelayedEvent(delay: number, type: string, content: unknown, stateKey: string | null = null, roomId: string | null = null): Promise<ISendDelayedEventDetails> {
    const room = this.here(roomId);
    const { delay_id } =
      stateKey !== null
        ? await this.client._unstable_sendDelayedStateEvent(room, { delay }, type as keyof StateEvents, content as StateEvents[keyof StateEvents], stateKey)
        : await this.client._unstable_sendDelayedEvent(room, { delay }, null, type as keyof TimelineEvents, content as TimelineEvents[keyof TimelineEvents]);
    return { roomId: room, delayId: delay_id };
  }

  override async sendDelayedStickyEvent(delay: number, duration: number, type: string, content: unknown, roomId: string | null = null): Promise<ISendDelayedEventDetails> {
    const room = this.here(roomId);
    const { delay_id } = await this.client._unstable_sendStickyDelayedEvent(room, duration, { delay }, null, type as keyof TimelineEvents, content as TimelineEvents[keyof TimelineEvents] & { msc4354_sticky_key: string });
    return { roomId: room, delayId: delay_id };
  }

  override async cancelScheduledDelayedEvent(delayId: string): Promise<void> {
    await this.client._unstable_cancelScheduledDelayedEvent(delayId);
  }

  override async restartScheduledDelayedEvent(delayId: string): Promise<void> {
    await this.client._unstable_restartScheduledDelayedEvent(delayId);
  }

  override async sendScheduledDelayedEvent(delayId: string): Promise<void> {
    await this.client._unstable_sendScheduledDelayedEvent(delayId);
  }

  override async sendToDevice(type: string, encrypted: boolean, contents: { [userId: string]: { [deviceId: string]: object } }): Promise<void> {
    if (!encrypted) {
      const batch = Object.entries(contents).flatMap(([userId, devices]) => Object.entries(devices).map(([deviceId, payload]) => ({ userId, deviceId, payload: payload as Record<string, unknown> })));
      await this.client.queueToDevice({ eventType: type, batch });
      return;
    }
    const crypto = this.client.getCrypto();
    if (!crypto) throw new Error('This browser cannot encrypt.');
    await crypto.getUserDeviceInfo(Object.keys(contents), true);
    // One batch for each content: a key goes to everybody alike.
    const alike = new Map<string, { payload: object; devices: { userId: string; deviceId: string }[] }>();
    for (const [userId, devices] of Object.entries(contents)) {
      for (const [deviceId, payload] of Object.entries(devices)) {
        const key = JSON.stringify(payload);
        const group = alike.get(key) ?? { payload, devices: [] };
        group.devices.push({ userId, deviceId });
        alike.set(key, group);
      }
    }
    for (const { payload, devices } of alike.values()) {
      await this.client.queueToDevice(await crypto.encryptToDeviceMessages(type, devices, payload));
    }
  }

  override async readRoomTimeline(roomId: string, type: string, msgtype: string | undefined, stateKey: string | undefined, limit: number, since: string | undefined): Promise<IRoomEvent[]> {
    const events = this.client.getRoom(this.here(roomId))?.getLiveTimeline().getEvents() ?? [];
    const most = limit > 0 ? Math.min(limit, MOST_EVENTS) : MOST_EVENTS;
    const found: IRoomEvent[] = [];
    for (const event of events.toReversed()) {
      if (found.length >= most || (since !== undefined && event.getId() === since)) break;
      if (event.getType() !== type || event.isState() !== (stateKey !== undefined)) continue;
      if (stateKey !== undefined && event.getStateKey() !== stateKey) continue;
      if (type === (EventType.RoomMessage as string) && msgtype && event.getContent().msgtype !== msgtype) continue;
      found.push(widgetEvent(event));
    }
    return found;
  }

  override async readRoomState(roomId: string, type: string, stateKey: string | undefined): Promise<IRoomEvent[]> {
    const state = this.client.getRoom(this.here(roomId))?.getLiveTimeline().getState(Direction.Forward);
    if (!state) return [];
    const one = stateKey === undefined ? state.getStateEvents(type) : [state.getStateEvents(type, stateKey)].filter((e) => e !== null);
    return one.map(widgetEvent);
  }

  override async readStickyEvents(roomId: string): Promise<IRoomEvent[]> {
    const room = this.client.getRoom(this.here(roomId));
    return room ? [...room._unstable_getStickyEvents()].map(widgetEvent) : [];
  }

  override askOpenID(observer: SimpleObservable<IOpenIDUpdate>): void {
    this.client.getOpenIdToken().then(
      (token) => observer.update({ state: OpenIDRequestState.Allowed, token }),
      () => observer.update({ state: OpenIDRequestState.Blocked }),
    );
  }

  override async *getTurnServers(): AsyncGenerator<ITurnServer> {
    // The SFU tells its clients of the relay; the widget asks for none here.
  }

  override async getRtcTransports(): Promise<IRtcTransportsResult> {
    return { rtc_transports: await this.client._unstable_getRTCTransports() };
  }

  override getRtcLivekitToken(data: IRtcLivekitGetTokenFromWidgetRequestData): Promise<IRtcLivekitGetTokenFromWidgetResponseData> {
    this.here(data.room_id);
    return this.client.http.authedRequest(Method.Post, '/rtc/livekit/get_token', undefined, data, { prefix: LIVEKIT });
  }

  override delegateRtcLivekitDelayedLeave(data: IRtcLivekitDelegateDelayedLeaveFromWidgetRequestData): Promise<IRtcLivekitDelegateDelayedLeaveFromWidgetResponseData> {
    this.here(data.room_id);
    return this.client.http.authedRequest(Method.Post, '/rtc/livekit/delegate_delayed_leave', undefined, data, { prefix: LIVEKIT });
  }

  override async downloadFile(contentUri: string): Promise<{ file: XMLHttpRequestBodyInit }> {
    return { file: await this.media.blob({ url: contentUri }) };
  }

  override getKnownRooms(): string[] {
    return [this.roomId];
  }

  override processError(error: unknown): IWidgetApiErrorResponseDataDetails | undefined {
    return error instanceof MatrixError ? { matrix_api_error: error.asWidgetApiErrorData() } : undefined;
  }

  /** The widget's own room; any other is refused. */
  private here(roomId: string | null): string {
    if (roomId !== null && roomId !== this.roomId) throw new Error('This call belongs to another room.');
    return this.roomId;
  }
}
