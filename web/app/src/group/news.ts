// SPDX-License-Identifier: Apache-2.0
// The calls that begin in any of our rooms while we are here.
import { MatrixEventEvent, RoomEvent, type MatrixClient, type MatrixEvent, type Room } from 'matrix-js-sdk';
import { raw } from '../matrix/convert.ts';
import { roomCallOf, type RoomCall } from '../matrix/roomCall.ts';

/** What is older was not written while we are here, in milliseconds. */
const NEW_MS = 60_000;
/** Names of calls that are remembered, the newest ones. */
const REMEMBERED = 100;

export class News {
  private readonly told = new Set<string>();
  private readonly client: MatrixClient;
  private readonly onCall: (room: Room, call: RoomCall, who: string) => void;

  /** `onCall` is called once for each call that somebody else begins, in rooms that are not muted. */
  constructor(client: MatrixClient, onCall: (room: Room, call: RoomCall, who: string) => void) {
    this.client = client;
    this.onCall = onCall;
    client.on(RoomEvent.Timeline, this.onEvent);
    client.on(MatrixEventEvent.Decrypted, this.onEvent);
  }

  stop(): void {
    this.client.off(RoomEvent.Timeline, this.onEvent);
    this.client.off(MatrixEventEvent.Decrypted, this.onEvent);
  }

  private onEvent = (event: MatrixEvent): void => {
    const me = this.client.getSafeUserId();
    if (event.getTs() < Date.now() - NEW_MS || event.getSender() === me) return;
    const call = roomCallOf(raw(event), me);
    const room = this.client.getRoom(event.getRoomId());
    if (!call || !room || this.told.has(call.url)) return;
    if (this.client.getPushActionsForEvent(event)?.notify !== true) return;
    this.told.add(call.url);
    if (this.told.size > REMEMBERED) this.told.delete(this.told.values().next().value!);
    this.onCall(room, call, event.getSender()!);
  };
}
