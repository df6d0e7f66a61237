// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Faces, thumbnailOf } from './faces.ts';

const freed: string[] = [];
beforeEach(() => {
  freed.length = 0;
  let n = 0;
  vi.stubGlobal('URL', Object.assign(URL, { createObjectURL: () => `blob:${n++}`, revokeObjectURL: (at: string) => void freed.push(at) }));
});
afterEach(() => vi.unstubAllGlobals());

const answer = (type: string, status = 200) => vi.fn(async () => new Response(new Blob(['x'], { type }), { status, headers: { 'Content-Type': type } }));
const faces = (fetch: ReturnType<typeof answer>) => new Faces(() => ({ baseUrl: '', fetch }));

it('fetches each face once, as a small picture with the token of who looks', async () => {
  const fetch = answer('image/png');
  const all = faces(fetch);
  expect(await Promise.all([all.of('mxc://x/a'), all.of('mxc://x/a')])).toEqual(['blob:0', 'blob:0']);
  expect(await all.of('mxc://x/b')).toBe('blob:1');
  expect(fetch.mock.calls.map((c) => (c as unknown[])[0])).toEqual(['a', 'b'].map((id) => `/_matrix/client/v1/media/thumbnail/x/${id}?width=256&height=256&method=crop`));
  all.clear();
  await Promise.resolve();
  expect(freed.sort()).toEqual(['blob:0', 'blob:1']);
});

it.each(['https://example.org/me.png', 'mxc://x/a/../../b', 'mxc://x/a?b', 'mxc:///a', 'data:image/png;base64,AA==', ''])('asks nobody for %j', async (url) => {
  const fetch = answer('image/png');
  expect(await faces(fetch).of(url)).toBeUndefined();
  expect(fetch).not.toHaveBeenCalled();
  expect(thumbnailOf(url)).toBeUndefined();
});

it.each([['text/html', 200], ['image/svg+xml', 200], ['image/png', 404]])('shows nothing for %s with %d, and asks again', async (type, status) => {
  const fetch = answer(type, status);
  const all = faces(fetch);
  expect(await all.of('mxc://x/a')).toBeUndefined();
  expect(await all.of('mxc://x/a')).toBeUndefined();
  expect(fetch).toHaveBeenCalledTimes(2);
});

it('keeps 200 at the most', async () => {
  const all = faces(answer('image/png'));
  for (let i = 0; i < 201; i++) await all.of(`mxc://x/${i}`);
  expect(freed).toEqual(['blob:0']);
});

it('shows nobody to whoever has no token', async () => {
  expect(await new Faces(() => undefined).of('mxc://x/a')).toBeUndefined();
});
