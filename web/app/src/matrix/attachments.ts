// SPDX-License-Identifier: Apache-2.0
// Files of encrypted rooms: AES-256 in counter mode, as the spec's EncryptedFile describes ("Sending encrypted attachments").

/** What an event says about an encrypted file: its address, its key, and the hash of what lies on the server. */
export interface EncryptedFile {
  v: 'v2';
  url: string;
  key: { kty: 'oct'; alg: 'A256CTR'; key_ops: string[]; k: string; ext: true };
  /** The first counter block, 16 bytes in unpadded base64. */
  iv: string;
  /** Of the encrypted bytes, unpadded base64. */
  hashes: { sha256: string };
}

/** The lower half of the counter block counts: a stream of any length cannot reach the upper half. */
const COUNTER_BITS = 64;

function base64(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replace(/=+$/, '');
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/** Encrypts a file with a key of its own. `url` of the description is empty: the caller uploads `data` and fills it in. */
export async function encryptFile(plain: Blob): Promise<{ data: Blob; file: EncryptedFile }> {
  const key = await crypto.subtle.generateKey({ name: 'AES-CTR', length: 256 }, true, ['encrypt', 'decrypt']);
  const iv = new Uint8Array(16);
  crypto.getRandomValues(iv.subarray(0, 8));
  const data = await crypto.subtle.encrypt({ name: 'AES-CTR', counter: iv, length: COUNTER_BITS }, key, await plain.arrayBuffer());
  const hash = await crypto.subtle.digest('SHA-256', data);
  const { k } = await crypto.subtle.exportKey('jwk', key);
  return {
    data: new Blob([data], { type: 'application/octet-stream' }),
    file: {
      v: 'v2',
      url: '',
      key: { kty: 'oct', alg: 'A256CTR', key_ops: ['encrypt', 'decrypt'], k: k!, ext: true },
      iv: base64(iv),
      hashes: { sha256: base64(new Uint8Array(hash)) },
    },
  };
}

/** Reads the description of an encrypted file from an event, which a stranger wrote; undefined when it is none. */
export function encryptedFile(content: Record<string, unknown>): EncryptedFile | undefined {
  const file = content.file as Partial<EncryptedFile> | undefined;
  if (!file || typeof file !== 'object') return undefined;
  const good =
    file.v === 'v2' &&
    typeof file.url === 'string' &&
    typeof file.iv === 'string' &&
    file.key?.alg === 'A256CTR' &&
    typeof file.key.k === 'string' &&
    typeof file.hashes?.sha256 === 'string';
  return good ? (file as EncryptedFile) : undefined;
}

/** Decrypts what was downloaded. Throws when it is not what the sender uploaded. The result has the type `mimetype`. */
export async function decryptFile(data: ArrayBuffer, file: EncryptedFile, mimetype: string): Promise<Blob> {
  const hash = base64(new Uint8Array(await crypto.subtle.digest('SHA-256', data)));
  if (hash !== file.hashes.sha256.replace(/=+$/, '')) throw new Error('the file was changed on its way');
  const jwk = { kty: 'oct', alg: 'A256CTR', k: file.key.k, ext: true };
  const key = await crypto.subtle.importKey('jwk', jwk, { name: 'AES-CTR' }, false, ['decrypt']);
  const plain = await crypto.subtle.decrypt({ name: 'AES-CTR', counter: fromBase64(file.iv), length: COUNTER_BITS }, key, data);
  return new Blob([plain], { type: mimetype });
}
