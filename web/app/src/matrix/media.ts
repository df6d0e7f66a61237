// SPDX-License-Identifier: Apache-2.0
import { getHttpUriForMxc } from 'matrix-js-sdk';
import type { TokenKeeper } from '../auth/tokens.ts';
import { decryptFile, type EncryptedFile } from './attachments.ts';

/** Blob addresses kept for pictures on screen; the oldest unused one is freed when there are more. */
const MAX_KEPT = 200;

const SAFE_PICTURES = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif', 'image/bmp']);

/** Where an event's file lies: an mxc address, and how to decrypt what lies there. */
export interface MediaSource {
  url: string;
  file?: EncryptedFile;
  /** What the sender calls it; only said of encrypted files, of which the server cannot know. */
  mimetype?: string;
}

/**
 * Downloads media with the access token (authenticated media, Matrix 1.11) and hands out blob addresses, because
 * an <img> cannot send a token.
 */
export class MediaLoader {
  private readonly baseUrl: string;
  private readonly keeper: TokenKeeper;
  private readonly kept = new Map<string, Promise<string>>();

  constructor(baseUrl: string, keeper: TokenKeeper) {
    this.baseUrl = baseUrl;
    this.keeper = keeper;
  }

  /** A blob address for a picture. With `size`, a thumbnail that fits into that square of pixels, but for encrypted ones. */
  url(source: MediaSource, size?: number): Promise<string> {
    const key = `${(!source.file && size) || ''}|${source.url}`;
    const known = this.kept.get(key);
    if (known) {
      this.kept.delete(key);
      this.kept.set(key, known);
      return known;
    }
    const loading = this.blob(source, size).then((blob) => {
      // A blob address has our origin: whatever could run script there (HTML, SVG) is never given one to open.
      if (!SAFE_PICTURES.has(blob.type)) throw new Error('not a picture');
      return URL.createObjectURL(blob);
    });
    this.kept.set(key, loading);
    loading.catch(() => this.kept.delete(key));
    if (this.kept.size > MAX_KEPT) {
      const [oldest, address] = this.kept.entries().next().value!;
      this.kept.delete(oldest);
      address.then(URL.revokeObjectURL, () => {});
    }
    return loading;
  }

  async blob({ url: mxc, file, mimetype }: MediaSource, size?: number): Promise<Blob> {
    const http = size && !file
      ? getHttpUriForMxc(this.baseUrl, mxc, size, size, 'scale', false, true, true)
      : getHttpUriForMxc(this.baseUrl, mxc, undefined, undefined, undefined, false, true, true);
    if (!http) throw new Error('not a media address');
    const response = await this.keeper.fetch(http, { headers: { Authorization: 'Bearer' } });
    if (!response.ok) throw new Error(`media: ${response.status}`);
    return file ? decryptFile(await response.arrayBuffer(), file, mimetype ?? 'application/octet-stream') : response.blob();
  }

  clear(): void {
    for (const address of this.kept.values()) address.then(URL.revokeObjectURL, () => {});
    this.kept.clear();
  }
}
