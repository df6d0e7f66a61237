// SPDX-License-Identifier: Apache-2.0
import { RoomEvent, type MatrixClient } from 'matrix-js-sdk';
import {
  CryptoEvent,
  VerificationPhase,
  VerificationRequestEvent,
  VerifierEvent,
  type ShowSasCallbacks,
  type VerificationRequest,
  type Verifier,
} from 'matrix-js-sdk/lib/crypto-api/index.js';
import type { VerificationStep, VerificationView } from '../encryption/view.ts';
import { useApp } from '../store.ts';
import { localPart, plainName } from './names.ts';
import { cancelledWords } from './verificationWords.ts';

/** Comparing emojis is the one method of this client: it needs no camera. */
export const SAS = 'm.sas.v1';

/** Events that answer a request in a room. */
const ANSWERS = new Set(['m.key.verification.ready', 'm.key.verification.cancel', 'm.key.verification.done']);

/** Runs one verification at a time: requests of others, and our own to people and to our other devices. */
export class Verifications {
  private readonly client: MatrixClient;
  private request: VerificationRequest | null = null;
  private verifier: Verifier | null = null;
  private sas: ShowSasCallbacks | null = null;
  private matched = false;
  /** We took a request of somebody else on this device. */
  private accepted = false;

  constructor(client: MatrixClient) {
    this.client = client;
    client.on(CryptoEvent.VerificationRequestReceived, this.onRequest);
    client.on(RoomEvent.Timeline, this.onTimeline);
  }

  stop(): void {
    this.client.off(CryptoEvent.VerificationRequestReceived, this.onRequest);
    this.client.off(RoomEvent.Timeline, this.onTimeline);
    this.forget();
  }

  /** Asks the other person of a room to compare emojis. */
  async askPerson(userId: string, roomId: string): Promise<void> {
    this.follow(await this.crypto().requestVerificationDM(userId, roomId));
  }

  /** Asks all other devices of this account; the first that answers takes it. */
  async askOwnDevices(): Promise<void> {
    this.follow(await this.crypto().requestOwnUserVerification());
  }

  async askOwnDevice(deviceId: string): Promise<void> {
    this.follow(await this.crypto().requestDeviceVerification(this.client.getSafeUserId(), deviceId));
  }

  async accept(): Promise<void> {
    this.accepted = true;
    await this.request?.accept();
  }

  /** Shows the emojis; the side that asked does so by itself. */
  async compare(): Promise<void> {
    const request = this.request;
    if (!request || request.phase !== VerificationPhase.Ready) return;
    this.hook(await request.startVerification(SAS));
  }

  async match(): Promise<void> {
    this.matched = true;
    this.draw();
    await this.sas?.confirm();
  }

  mismatch(): void {
    this.sas?.mismatch();
  }

  /** Ends it for both sides, or takes a finished one off the screen. */
  async close(): Promise<void> {
    const request = this.request;
    this.forget();
    if (request?.pending) await request.cancel().catch(() => {});
  }

  private onRequest = (request: VerificationRequest): void => {
    // One at a time: a second asker is answered by its own time limit.
    if (this.request?.pending || request.phase !== VerificationPhase.Requested || this.answeredInRoom(request)) return;
    this.follow(request);
  };

  /** Another device of ours may have answered, now or long before this one signed in: the crypto module does not tell. */
  private answeredInRoom(request: VerificationRequest): boolean {
    const events = (request.roomId && this.client.getRoom(request.roomId)?.getLiveTimeline().getEvents()) || [];
    return events.some((e) => ANSWERS.has(e.getType()) && e.getRelation()?.event_id === request.transactionId);
  }

  private onTimeline = (): void => {
    const request = this.request;
    if (request && !request.initiatedByMe && !this.accepted && this.answeredInRoom(request)) this.forget();
  };

  private follow(request: VerificationRequest): void {
    this.forget();
    this.request = request;
    request.on(VerificationRequestEvent.Change, this.onChange);
    this.onChange();
  }

  private forget(): void {
    this.request?.off(VerificationRequestEvent.Change, this.onChange);
    this.verifier?.off(VerifierEvent.ShowSas, this.onSas);
    this.request = null;
    this.verifier = null;
    this.sas = null;
    this.matched = false;
    this.accepted = false;
    if (useApp.getState().verification) useApp.setState({ verification: null });
  }

  private onChange = (): void => {
    const request = this.request;
    if (!request) return;
    if (request.phase === VerificationPhase.Ready && request.initiatedByMe && !this.verifier) void this.compare().catch(() => {});
    if (request.phase === VerificationPhase.Started && request.verifier) this.hook(request.verifier);
    // Another device of ours has answered, or the asker gave up before we did: there is nothing to say.
    const unanswered = !request.initiatedByMe && !this.accepted;
    if (request.phase === VerificationPhase.Cancelled && (unanswered || request.cancellationCode === 'm.accepted')) return this.forget();
    this.draw();
  };

  private hook(verifier: Verifier): void {
    if (this.verifier === verifier) return;
    this.verifier?.off(VerifierEvent.ShowSas, this.onSas);
    this.verifier = verifier;
    verifier.on(VerifierEvent.ShowSas, this.onSas);
    const shown = verifier.getShowSasCallbacks();
    if (shown) this.onSas(shown);
    // Its end shows in the phase of the request.
    verifier.verify().catch(() => {});
  }

  private onSas = (sas: ShowSasCallbacks): void => {
    this.sas = sas;
    this.draw();
  };

  private step(request: VerificationRequest): VerificationStep {
    switch (request.phase) {
      case VerificationPhase.Done:
        return 'done';
      case VerificationPhase.Cancelled:
        return 'cancelled';
      case VerificationPhase.Ready:
        return request.initiatedByMe ? 'starting' : 'agreed';
      case VerificationPhase.Started:
        return this.matched ? 'matched' : this.sas ? 'comparing' : 'starting';
      default:
        return request.initiatedByMe ? 'waiting' : 'asked';
    }
  }

  private draw(): void {
    const request = this.request;
    if (!request) return;
    const me = this.client.getSafeUserId();
    const peerId = request.otherUserId;
    const peerName = plainName(this.client.getUser(peerId)?.rawDisplayName ?? '') || localPart(peerId);
    const byMe = request.cancellingUserId === me && !request.isSelfVerification;
    const step = this.step(request);
    const view: VerificationView = {
      step,
      peerId,
      peerName,
      own: request.isSelfVerification,
      emojis: this.sas?.sas.emoji ?? [],
      words: step === 'cancelled' ? cancelledWords(request.cancellationCode, request.isSelfVerification ? 'The other device' : byMe ? 'You' : peerName) : '',
    };
    useApp.setState({ verification: view });
    // Confirming by emojis is over: the dialog that began it must not come back.
    if (step === 'done' && view.own) useApp.setState({ confirming: false });
  }

  private crypto() {
    const crypto = this.client.getCrypto();
    if (!crypto) throw new Error('This browser cannot encrypt.');
    return crypto;
  }
}
