// SPDX-License-Identifier: Apache-2.0
import { EventDirection, MatrixCapabilities, WidgetEventCapability, type Capability } from 'matrix-widget-api';

const MEMBER_STATE = 'org.matrix.msc3401.call.member';

/** What goes both ways in a call, as room events. */
const EXCHANGED = [
  'org.matrix.rageshake_request',
  'io.element.call.encryption_keys',
  'm.reaction',
  'm.room.redaction',
  'io.element.call.reaction',
  'org.matrix.msc4310.rtc.decline',
  'org.matrix.msc4143.rtc.member',
];

/** What a call only sends: its ringing. */
const SENT = ['org.matrix.msc4075.call.notify', 'org.matrix.msc4075.rtc.notification'];

/** State that a call reads. */
const READ = ['m.room.create', 'm.room.name', 'm.room.member', 'm.room.encryption', MEMBER_STATE];

/** Messages to devices: the keys of the media, and what Element Call asks for besides. */
const TO_DEVICES = [
  'io.element.call.encryption_keys',
  'm.call.invite',
  'm.call.candidates',
  'm.call.answer',
  'm.call.hangup',
  'm.call.reject',
  'm.call.select_answer',
  'm.call.negotiate',
  'm.call.sdp_stream_metadata_changed',
  'org.matrix.call.sdp_stream_metadata_changed',
  'm.call.replaces',
];

/**
 * All that Element Call may do in one room on behalf of one device: its own membership, what a call exchanges, nothing of the room's
 * messages. What it asks for beyond that is refused.
 */
export function callCapabilities(roomId: string, userId: string, deviceId: string): Set<Capability> {
  const both = [EventDirection.Send, EventDirection.Receive];
  const own = [userId, `_${userId}_${deviceId}_m.call`, `${userId}_${deviceId}_m.call`];
  return new Set<Capability>([
    MatrixCapabilities.AlwaysOnScreen,
    MatrixCapabilities.MSC4039DownloadFile,
    MatrixCapabilities.MSC4157SendDelayedEvent,
    MatrixCapabilities.MSC4157UpdateDelayedEvent,
    MatrixCapabilities.MSC4407SendStickyEvent,
    MatrixCapabilities.MSC4407ReceiveStickyEvent,
    MatrixCapabilities.MSC4515RtcTransports,
    MatrixCapabilities.MSC4533RtcLivekitGetToken,
    MatrixCapabilities.MSC4533RtcLivekitDelegateDelayedLeave,
    `org.matrix.msc2762.timeline:${roomId}`,
    ...own.map((key) => WidgetEventCapability.forStateEvent(EventDirection.Send, MEMBER_STATE, key).raw),
    ...READ.map((type) => WidgetEventCapability.forStateEvent(EventDirection.Receive, type).raw),
    ...SENT.map((type) => WidgetEventCapability.forRoomEvent(EventDirection.Send, type).raw),
    ...both.flatMap((direction) => EXCHANGED.map((type) => WidgetEventCapability.forRoomEvent(direction, type).raw)),
    ...both.flatMap((direction) => TO_DEVICES.map((type) => WidgetEventCapability.forToDeviceEvent(direction, type).raw)),
  ]);
}
