// SPDX-License-Identifier: Apache-2.0
// The pictures that people chose of themselves, from this server's media: an <img> cannot send a token, so each is fetched and given a
// blob address. Pictures that lie elsewhere (https:) are not fetched, or their owner would learn who meets whom; those stay initials.

/** Edge in pixels: the largest face on a tile, on a screen of two dots a pixel. */
const EDGE = 256;
/** Faces that are kept; the one that was not asked for the longest is freed when there are more. */
const KEPT = 200;
/** A blob address has our origin: whatever could run script there (HTML, SVG) is never given one. */
const SAFE = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif', 'image/bmp']);

/** Sends a request with the token of whoever looks. */
export type AsMe = (url: string, init: RequestInit) => Promise<Response>;

/** Where the server has the thumbnail of an mxc: address; undefined for other addresses. */
export function thumbnailOf(mxc: string): string | undefined {
  const match = /^mxc:\/\/([^/?#]+)\/([^/?#]+)$/.exec(mxc);
  return match ? `/_matrix/client/v1/media/thumbnail/${encodeURIComponent(match[1]!)}/${encodeURIComponent(match[2]!)}?width=${EDGE}&height=${EDGE}&method=crop` : undefined;
}

export class Faces {
  private readonly kept = new Map<string, Promise<string | undefined>>();

  /** `asMe` is undefined while one has no token: then there are no faces. */
  constructor(private readonly asMe: () => { baseUrl: string; fetch: AsMe } | undefined) {}

  /** A blob address for an mxc: address; undefined when there is no picture to show. Fetched once. */
  of(mxc: string): Promise<string | undefined> {
    const known = this.kept.get(mxc);
    if (known) {
      this.kept.delete(mxc);
      this.kept.set(mxc, known);
      return known;
    }
    const path = thumbnailOf(mxc);
    const me = this.asMe();
    if (!path || !me) return Promise.resolve(undefined);
    const face = this.fetch(me.baseUrl + path, me.fetch).catch(() => undefined);
    this.kept.set(mxc, face);
    void face.then((address) => {
      // A server that was busy may answer next time.
      if (!address && this.kept.get(mxc) === face) this.kept.delete(mxc);
    });
    if (this.kept.size > KEPT) {
      const [oldest] = this.kept.keys();
      this.free(oldest!);
    }
    return face;
  }

  private async fetch(url: string, asMe: AsMe): Promise<string | undefined> {
    const response = await asMe(url, { headers: { Authorization: '' } });
    if (!response.ok) return undefined;
    const blob = await response.blob();
    return SAFE.has(blob.type) ? URL.createObjectURL(blob) : undefined;
  }

  private free(mxc: string): void {
    void this.kept.get(mxc)?.then((address) => address && URL.revokeObjectURL(address));
    this.kept.delete(mxc);
  }

  /** Nobody is shown any more. */
  clear(): void {
    for (const mxc of [...this.kept.keys()]) this.free(mxc);
  }
}
