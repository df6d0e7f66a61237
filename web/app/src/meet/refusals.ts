// SPDX-License-Identifier: Apache-2.0
import type { Refusal } from './api.ts';
import type { Words } from './words.ts';

/** The code of a Refusal that says: everybody agreed, and the media found no way. */
export const NO_MEDIA = 'MEDIA';
export const SIGN_IN = 'IO_TRUNKBOARD_SIGN_IN';

/** Why the server, or the way to it, refused, in the language of the page. `plain` is what a "no" and a "not there" without a code mean where they were said. */
export function refusalWords(error: Refusal, w: Words, plain: { 403: string; 404: string }): string {
  switch (error.code) {
    case SIGN_IN:
      return w.signInNeeded;
    case 'IO_TRUNKBOARD_JWT':
      return w.jwtNeeded;
    case 'IO_TRUNKBOARD_FULL':
      return w.full;
    case NO_MEDIA:
      return w.noMedia;
  }
  switch (error.status) {
    case 0:
      return w.unreachable;
    case 403:
    case 404:
      return plain[error.status];
    case 429:
      return w.tooMany;
  }
  return error.status >= 500 ? w.serverTrouble : error.message;
}
