// SPDX-License-Identifier: Apache-2.0
import { ConnectionError, HTTPError, MatrixError } from 'matrix-js-sdk/lib/http-api/errors.js';
import { describe, expect, it } from 'vitest';
import { wentWrong } from './wrong.ts';

describe('what went wrong', () => {
  const url = 'https://example.org/_matrix/client/v3/rooms/x/invite';
  it.each([
    ['a refusal of the server', new MatrixError({ errcode: 'M_FORBIDDEN', error: 'you may not invite here' }, 403, url), 'You may not invite here.'],
    ['too much at once', new MatrixError({ errcode: 'M_LIMIT_EXCEEDED', error: 'Too Many Requests' }, 429, url), 'Too many tries. Please wait a moment.'],
    ['an answer without words', new MatrixError({ errcode: 'M_UNKNOWN' }, 502, url), 'The server did not do it (502).'],
    ['an answer that is none of Matrix', new HTTPError('bad gateway', 502), 'The server did not do it (502).'],
    ['no answer', new ConnectionError('fetch failed', new TypeError('Failed to fetch')), 'The server cannot be reached. Check your connection and try again.'],
    ['a request that did not go out', new TypeError('Failed to fetch'), 'The server cannot be reached. Check your connection and try again.'],
    ['words of our own', new Error('There is nobody called ann.'), 'There is nobody called ann.'],
    ['no error at all', 'x', 'That did not work.'],
  ])('is said without codes and addresses: %s', (_, error, words) => {
    expect(wentWrong(error)).toBe(words);
  });
});
