// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { initials, localPart, parseUser, plainName, serverPart } from './names.ts';

it.each([
  ['ann', '@ann:home'],
  [' @Ann ', '@ann:home'],
  ['@ann:other.org', '@ann:other.org'],
  ['ann:other.org:8448', '@ann:other.org:8448'],
  ['@ann:[::1]:8448', '@ann:[::1]:8448'],
  ['two words', null],
  ['', null],
  ['@', null],
  ['ann:', null],
  ['ann@example.org', null],
])('reads %j as %j', (input, user) => {
  expect(parseUser(input, 'home')).toBe(user);
});

it('splits user ids', () => {
  expect(localPart('@ann:a:8448')).toBe('ann');
  expect(serverPart('@ann:a:8448')).toBe('a:8448');
  expect(localPart('odd')).toBe('odd');
});

it('makes initials of any name', () => {
  expect(['Ann Lee', 'ben', '@c:x', 'Design team of two', '👩‍🚀 Zoe', ''].map(initials)).toEqual(['AL', 'B', 'C', 'DT', '👩Z', '?']);
});

it('takes out of names what turns or hides the words around them', () => {
  expect(plainName('\u202egnp.nnA')).toBe('gnp.nnA');
  expect(plainName('A\u200bn\ufeffn\u2066 \u0000 Lee\n\n')).toBe('Ann Lee');
  expect(plainName('👩\u200d🚀 محمد')).toBe('👩\u200d🚀 محمد');
  expect(plainName('\u202e\u200b')).toBe('');
});
