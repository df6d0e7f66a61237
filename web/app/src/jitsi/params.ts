// SPDX-License-Identifier: Apache-2.0
// Settings that stand in an address, as Jitsi's links carry them: `#config.startWithAudioMuted=true&userInfo.displayName="Al"`.
// Whoever makes a link chooses them, so they are read as a stranger's words: nothing is merged into an object, values are taken out
// one by one with their type checked, and what is too long is not there.

/** More of an address than this is not read, in characters. */
const LONGEST = 256 * 1024;
/** More settings than this are not read. */
const MOST = 500;

/** The settings of a fragment or query; names are dotted paths. */
export class Params {
  private readonly values = new Map<string, unknown>();

  /** `part` is `location.hash` or `location.search`; `json` says whether values are JSON, as in Jitsi's fragments, or plain text. */
  constructor(part: string, json: boolean) {
    const text = part.replace(/^[#?]/, '');
    if (text.length > LONGEST) return;
    for (const piece of text.split('&').slice(0, MOST)) {
      const at = piece.indexOf('=');
      if (at <= 0) continue;
      const name = decoded(piece.slice(0, at));
      const value = decoded(json ? piece.slice(at + 1) : piece.slice(at + 1).replace(/\+/g, ' '));
      if (name === undefined || value === undefined || this.values.has(name)) continue;
      this.values.set(name, json ? parsed(value) : value);
    }
  }

  /**
   * What was said under a dotted path, however it was split: `a.b.c=1`, `a.b={"c":1}` and `a={"b":{"c":1}}` mean the same.
   * Only own properties count, so no name finds what every object has.
   */
  get(path: string): unknown {
    const steps = path.split('.');
    for (let n = steps.length; n > 0; n--) {
      let value = this.values.get(steps.slice(0, n).join('.'));
      for (const step of steps.slice(n)) value = own(value, step);
      if (value !== undefined) return value;
    }
    return undefined;
  }

  flag(path: string): boolean | undefined {
    const value = this.get(path);
    return typeof value === 'boolean' ? value : value === 'true' ? true : value === 'false' ? false : undefined;
  }

  /** A text of at least one and at most `longest` characters, without control characters; numbers count as what they look like. */
  text(path: string, longest: number): string | undefined {
    return words(this.get(path), longest);
  }

  number(path: string): number | undefined {
    const value = this.get(path);
    return typeof value === 'number' && Number.isFinite(value) ? value : undefined;
  }

  /** A list of texts; anything else in it is left out. */
  list(path: string): string[] | undefined {
    const value = this.get(path);
    return Array.isArray(value) ? value.slice(0, MOST).filter((v): v is string => typeof v === 'string' && v.length <= 100) : undefined;
  }
}

/** A property that an object has itself. */
export function own(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined;
}

/** What a person may be shown of a stranger's words: trimmed, cut, without control characters; nothing of something else than text. */
export function words(value: unknown, longest: number): string | undefined {
  if (typeof value !== 'string' && typeof value !== 'number') return undefined;
  // eslint-disable-next-line no-control-regex
  const clean = String(value).replace(/[\u0000-\u001f\u007f]/g, ' ').trim().slice(0, longest);
  return clean || undefined;
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/** Text that is no JSON is taken as it is: people write `#userInfo.displayName=Al` by hand. */
function parsed(text: string): unknown {
  try {
    // Phones turn quotes into typographic ones when a link is pasted.
    return JSON.parse(text.replace(/[\u201c\u201d]/g, '"'));
  } catch {
    return text;
  }
}
