// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { endedWords, foundNoWay } from './endings.ts';

it.each([
  ['user_hangup', true, 'connected', 'Call ended'],
  ['user_hangup', false, 'connected', 'Call ended'],
  ['user_hangup', false, 'ringing', 'Ann declined'],
  ['user_hangup', true, 'ringing', 'Call ended'],
  [undefined, false, 'ringing', 'Ann declined'],
  ['invite_timeout', true, 'ringing', 'Ann did not answer'],
  ['user_busy', false, 'ringing', 'Ann is busy'],
  ['ice_failed', true, 'connecting', 'No connection could be made'],
  ['ice_failed', true, 'reconnecting', 'The connection was lost'],
  ['something_new', false, 'connected', 'Call ended'],
  ['something_new', false, 'connecting', 'The call could not be set up'],
] as const)('explains %s (by us: %s) while %s', (reason, byUs, before, words) => {
  expect(endedWords(reason, byUs, before, 'Ann')).toBe(words);
});

it.each([
  ['ice_failed', 'connecting', true],
  ['ice_timeout', 'ringing', true],
  ['ice_failed', 'reconnecting', false],
  ['user_hangup', 'connecting', false],
] as const)('sends people to the doctor after %s while %s: %s', (reason, before, wanted) => {
  expect(foundNoWay(reason, before)).toBe(wanted);
});
