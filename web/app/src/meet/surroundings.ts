// SPDX-License-Identifier: Apache-2.0
import type { MeetApi } from './api.ts';
import type { Listener, Media, Start } from './media.ts';
import type { Words } from './words.ts';

/** What a meeting needs of its surroundings. */
export interface Surroundings {
  api: (name: string) => MeetApi;
  media: () => Promise<{ Media: new (listener: Listener, start: Start) => Media }>;
  words: () => Words;
  /** Survives a reload of this tab, nothing else. */
  memory: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>;
  /** The end-to-end key, in and out of the page's address. */
  key: { get(): string | undefined; set(key: string): void };
  /** Requests with a signed-in person's own token, if there is one. */
  signedIn?: { userId: string; fetch: typeof fetch };
  relayOnly: boolean;
  small: boolean;
}
