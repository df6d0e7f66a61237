// SPDX-License-Identifier: Apache-2.0
import type { MatrixClient, Room } from 'matrix-js-sdk';
import type { MediaLoader } from '../matrix/media.ts';
import { toast, useApp } from '../store.ts';
import { GroupCall } from './call.ts';
import { elementCall } from './settings.ts';

/** Where somebody is in a call: what every member must be allowed to set for itself. */
const MEMBER_STATE = 'org.matrix.msc3401.call.member';

/** The group calls of an account: one at a time on this device. */
export class GroupCalls {
  current: GroupCall | null = null;
  private readonly client: MatrixClient;
  private readonly media: MediaLoader;

  constructor(client: MatrixClient, media: MediaLoader) {
    this.client = client;
    this.media = media;
  }

  /** How many people are in the call of a room; 0 for no call. */
  people(room: Room): number {
    const members = this.client.matrixRTC.getActiveRoomSession(room)?.memberships ?? [];
    return new Set(members.map((m) => m.userId)).size;
  }

  /** Whether we may take part in the call of a room. */
  allowed(room: Room): boolean {
    return room.currentState.maySendStateEvent(MEMBER_STATE, this.client.getSafeUserId());
  }

  /** Opens the call of a room: starts one, or joins the one that runs. */
  async open(roomId: string): Promise<void> {
    if (this.current?.roomId === roomId) return this.minimise(false);
    const room = this.client.getRoom(roomId);
    const at = await elementCall();
    if (!room || !at || this.current) {
      if (this.current) toast('You are in another call.');
      return;
    }
    this.current = new GroupCall(
      this.client,
      this.media,
      {
        at,
        roomId,
        encrypted: room.hasEncryptionStateEvent() && this.client.getCrypto() !== undefined,
        running: this.people(room) > 0,
        theme: 'dark', // as the bar above it
        lang: navigator.language,
      },
      { onJoined: () => this.patch({ joined: true }), onOver: () => this.gone() },
    );
    useApp.setState({ group: { roomId, name: room.name, joined: false, minimised: false } });
  }

  minimise(minimised: boolean): void {
    this.patch({ minimised });
  }

  async hangUp(): Promise<void> {
    await this.current?.hangUp();
  }

  /** Ends everything at once: the page or the session goes. */
  stop(): void {
    this.current?.end();
  }

  private gone(): void {
    this.current = null;
    useApp.setState({ group: null });
  }

  private patch(change: Partial<NonNullable<ReturnType<typeof useApp.getState>['group']>>): void {
    useApp.setState((s) => (s.group ? { group: { ...s.group, ...change } } : {}));
  }
}
