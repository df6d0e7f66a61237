// SPDX-License-Identifier: Apache-2.0
import type { Measurement, Quality } from './quality.ts';

export type CallPhase =
  /** Getting devices ready and sending the invite. */
  | 'preparing'
  /** The other side rings. */
  | 'ringing'
  | 'connecting'
  | 'connected'
  | 'reconnecting'
  | 'ended';

/** What the call screen draws. */
export interface CallView {
  callId: string;
  roomId: string;
  peerId: string;
  peerName: string;
  phase: CallPhase;
  /** The call was started as a video call. */
  video: boolean;
  micMuted: boolean;
  cameraOff: boolean;
  sharing: boolean;
  remoteMicMuted: boolean;
  remoteVideo: MediaStream | null;
  /** True while the other side's camera gives pictures. */
  remoteCamera: boolean;
  remoteScreen: MediaStream | null;
  local: MediaStream | null;
  /** Unix time in milliseconds of the first connection. */
  connectedAt: number | null;
  /** Why the call is over, in words; set when phase is `ended`. */
  endedWords: string;
  quality: Quality;
  measurement: Measurement | null;
  /** A line for the person on this side, e.g. that a camera is missing. */
  notice: string;
  minimised: boolean;
}

export interface IncomingView {
  callId: string;
  roomId: string;
  peerId: string;
  peerName: string;
  video: boolean;
  /** Why it cannot be accepted here, or why accepting failed; empty when all is well. */
  problem: string;
}
