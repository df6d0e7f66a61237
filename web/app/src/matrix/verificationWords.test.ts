// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { cancelledWords, unreadable } from './verificationWords.ts';

it('says who stopped a verification and warns of different emojis', () => {
  expect(cancelledWords('m.user', 'Ben')).toBe('Ben stopped it.');
  expect(cancelledWords('m.mismatched_sas', 'Ben')).toContain('not the same');
  expect(cancelledWords('m.timeout', 'Ben')).toContain('too long');
  expect(cancelledWords(null, 'Ben')).toContain('try again');
});

it('offers to confirm the device only where that can help', () => {
  expect(unreadable('HISTORICAL_MESSAGE_BACKUP_UNCONFIGURED', false).confirm).toBe(true);
  expect(unreadable('MEGOLM_UNKNOWN_INBOUND_SESSION_ID', false).confirm).toBe(true);
  expect(unreadable('MEGOLM_UNKNOWN_INBOUND_SESSION_ID', true)).toMatchObject({ confirm: false, words: expect.stringContaining('not here yet') });
  expect(unreadable('HISTORICAL_MESSAGE_USER_NOT_JOINED', false).confirm).toBe(false);
  expect(unreadable('MEGOLM_KEY_WITHHELD_FOR_UNVERIFIED_DEVICE', false).confirm).toBe(true);
  expect(unreadable('something new', true).words).toContain('cannot be read');
});
