// SPDX-License-Identifier: Apache-2.0
import { EventStatus, type MatrixEvent } from 'matrix-js-sdk';
import type { RawEvent, SendState } from './raw.ts';

function sendState(event: MatrixEvent): SendState {
  switch (event.status) {
    case EventStatus.NOT_SENT:
    case EventStatus.CANCELLED:
      return 'failed';
    case EventStatus.SENDING:
    case EventStatus.QUEUED:
    case EventStatus.ENCRYPTING:
      return 'sending';
    default:
      return 'sent';
  }
}

/** The plain form of an SDK event. */
export function raw(event: MatrixEvent): RawEvent {
  return {
    id: event.getId() ?? event.getTxnId() ?? '',
    type: event.getType(),
    sender: event.getSender() ?? '',
    ts: event.getTs(),
    content: event.getContent(),
    stateKey: event.getStateKey(),
    prevContent: event.isState() ? event.getPrevContent() : undefined,
    redacted: event.isRedacted(),
    unreadable: event.isDecryptionFailure() ? (event.decryptionFailureReason ?? 'UNKNOWN_ERROR') : undefined,
    state: sendState(event),
  };
}
