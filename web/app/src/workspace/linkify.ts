// SPDX-License-Identifier: Apache-2.0

export type TextPart = { text: string; href?: string };

const LINK = /\bhttps?:\/\/[^\s<>"'`]+/gi;
const TRAILING = /[.,:;!?)\]}»”’]+$/;

/** Cuts a text into plain parts and web addresses. A sentence's closing signs stay outside the link. */
export function linkify(text: string): TextPart[] {
  const parts: TextPart[] = [];
  let from = 0;
  for (const match of text.matchAll(LINK)) {
    let href = match[0];
    const tail = TRAILING.exec(href)?.[0] ?? '';
    // A closing bracket belongs to the address when it was opened inside it.
    const keep = tail.startsWith(')') && href.includes('(') ? 1 : 0;
    href = href.slice(0, href.length - tail.length + keep);
    if (!URL.canParse(href)) continue;
    if (match.index > from) parts.push({ text: text.slice(from, match.index) });
    parts.push({ text: href, href });
    from = match.index + href.length;
  }
  if (from < text.length) parts.push({ text: text.slice(from) });
  return parts;
}
