// SPDX-License-Identifier: Apache-2.0
import { EventType, MatrixEvent, type MatrixCall, type MatrixClient } from 'matrix-js-sdk';
import type { CryptoBackend } from 'matrix-js-sdk/lib/common-crypto/CryptoBackend.js';
import { CallErrorCode } from 'matrix-js-sdk/lib/webrtc/call.js';

/**
 * The hang-up of a call in an encrypted room, encrypted beforehand: a page that is being closed has no time left for
 * that, and without it the other side would wait for a connection that never comes back.
 */
export class Farewell {
  private readonly address: string;
  private readonly body: string;

  private constructor(address: string, body: string) {
    this.address = address;
    this.body = body;
  }

  /** Undefined in a room without encryption, where a hang-up is sent as it is. */
  static async prepare(client: MatrixClient, call: MatrixCall): Promise<Farewell | undefined> {
    const room = client.getRoom(call.roomId);
    const crypto = client.getCrypto() as CryptoBackend | undefined;
    if (!room?.hasEncryptionStateEvent() || !crypto) return undefined;
    const content = { call_id: call.callId, party_id: call.ourPartyId, version: '1', reason: CallErrorCode.UserHangup };
    const event = new MatrixEvent({ type: EventType.CallHangup, room_id: call.roomId, sender: client.getSafeUserId(), content });
    await crypto.encryptEvent(event, room);
    const path = `/_matrix/client/v3/rooms/${encodeURIComponent(call.roomId)}/send/${event.getWireType()}/${encodeURIComponent(client.makeTxnId())}`;
    return new Farewell(client.baseUrl + path, JSON.stringify(event.getWireContent()));
  }

  /** Hands it to the browser, which sends it even when the page is gone. */
  send(accessToken: string | null): void {
    const headers = { Authorization: `Bearer ${accessToken}`, 'Content-Type': 'application/json' };
    void fetch(this.address, { method: 'PUT', headers, body: this.body, keepalive: true }).catch(() => {});
  }
}
