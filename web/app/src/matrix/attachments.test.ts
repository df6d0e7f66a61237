// SPDX-License-Identifier: Apache-2.0
// @vitest-environment node
import { expect, it } from 'vitest';
import { decryptFile, encryptedFile, encryptFile } from './attachments.ts';

const words = 'a picture of a cat';

it('a file comes back as it was, and its bytes on the server say nothing', async () => {
  const { data, file } = await encryptFile(new Blob([words]));
  const bytes = await data.arrayBuffer();
  expect(new TextDecoder().decode(bytes)).not.toContain('cat');
  const plain = await decryptFile(bytes, file, 'text/plain');
  expect(await plain.text()).toBe(words);
  expect(plain.type).toBe('text/plain');
});

it('no two files share a key or a counter', async () => {
  const [a, b] = await Promise.all([encryptFile(new Blob([words])), encryptFile(new Blob([words]))]);
  expect(a.file.key.k).not.toBe(b.file.key.k);
  expect(a.file.iv).not.toBe(b.file.iv);
});

it('a changed file is refused', async () => {
  const { data, file } = await encryptFile(new Blob([words]));
  const bytes = new Uint8Array(await data.arrayBuffer());
  bytes[3]! ^= 1;
  await expect(decryptFile(bytes.buffer, file, 'text/plain')).rejects.toThrow('changed');
});

// Made with OpenSSL: the same bytes under the spec's layout of key and counter.
it('reads what another implementation encrypted', async () => {
  const file = {
    v: 'v2' as const,
    url: 'mxc://x/y',
    key: { kty: 'oct' as const, alg: 'A256CTR' as const, key_ops: ['decrypt'], k: 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8', ext: true as const },
    iv: 'oKGio6SlpqcAAAAAAAAAAA',
    hashes: { sha256: 'BNPKBCeMHZsvXGMUJCHwr8AF2OBsDCvqN9gUod4+KxY' },
  };
  const data = Uint8Array.from('bf5c0b2cfe80330debf849c8e7d82d2348bf'.match(/../g)!, (hex) => parseInt(hex, 16));
  expect(await (await decryptFile(data.buffer, file, 'text/plain')).text()).toBe(words);
});

it('takes no description of another shape', async () => {
  const { file } = await encryptFile(new Blob([words]));
  expect(encryptedFile({ file })).toEqual(file);
  for (const odd of [undefined, null, 5, 'x', {}, { ...file, v: 'v1' }, { ...file, hashes: {} }, { ...file, key: { ...file.key, alg: 'A128CTR' } }, { ...file, iv: 5 }]) {
    expect(encryptedFile({ file: odd })).toBeUndefined();
  }
});
