// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { linkify } from './linkify.ts';
import { fileSize } from './times.ts';

const links = (text: string) => linkify(text).flatMap((p) => p.href ?? []);

it('finds web addresses and leaves the sentence around them', () => {
  expect(linkify('see https://a.example/x?y=1, then go')).toEqual([{ text: 'see ' }, { text: 'https://a.example/x?y=1', href: 'https://a.example/x?y=1' }, { text: ', then go' }]);
  expect(links('(https://a.example/) and https://w.example/a_(b).')).toEqual(['https://a.example/', 'https://w.example/a_(b)']);
});

it('makes no link of anything that could run', () => {
  expect(links('javascript:alert(1) data:text/html,x vbscript:x file:///etc')).toEqual([]);
  expect(links('<a href="https://a.example">')).toEqual(['https://a.example']);
  expect(linkify('plain')).toEqual([{ text: 'plain' }]);
  expect(linkify('')).toEqual([]);
});

it('says file sizes', () => {
  expect([900, 1536, 2_500_000, 5_000_000_000].map(fileSize)).toEqual(['900 B', '1.5 kB', '2.4 MB', '4.7 GB']);
});
