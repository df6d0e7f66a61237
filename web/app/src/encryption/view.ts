// SPDX-License-Identifier: Apache-2.0
// What the screens draw of the encryption, and the store holds.

/** Where the encryption of this device stands. */
export type EncryptionPhase =
  /** Nothing is known yet. */
  | 'starting'
  /** This browser cannot do it; `problem` says why. */
  | 'off'
  /** The account has no identity yet: nobody has set up its encryption. */
  | 'unset'
  /** The identity and the backup are being made. */
  | 'working'
  /** The account has an identity, and this device has not shown yet that it belongs to it. */
  | 'locked'
  | 'ready';

export interface EncryptionView {
  phase: EncryptionPhase;
  problem: string;
}

/** How far a comparison of emojis is. */
export type VerificationStep =
  /** Somebody asks us. */
  | 'asked'
  /** We asked; the other side has not answered. */
  | 'waiting'
  /** Both agreed; the side that asked starts. */
  | 'agreed'
  | 'starting'
  /** The emojis are on the screen. */
  | 'comparing'
  /** We said that they match; the other side has not yet. */
  | 'matched'
  | 'done'
  | 'cancelled';

export interface VerificationView {
  step: VerificationStep;
  peerId: string;
  peerName: string;
  /** The other side is a device of our own. */
  own: boolean;
  emojis: [emoji: string, name: string][];
  /** Why it ended, when it was cancelled. */
  words: string;
}
