// SPDX-License-Identifier: Apache-2.0
// A client speaks to a widget as soon as its page has loaded, which is before the code of the widget API has: what it says in between
// is kept and said again.

/** Messages that are kept at most. */
const MOST = 100;

let kept: MessageEvent[] | undefined;
const listener = (e: MessageEvent) => void (kept && kept.length < MOST && kept.push(e));

/** Begins to keep messages; call it while the page loads. */
export function keepEarly(): void {
  kept = [];
  window.addEventListener('message', listener);
}

/** Says them again, to whoever listens by now, and keeps no more. */
export function sayAgain(): void {
  window.removeEventListener('message', listener);
  const early = kept ?? [];
  kept = undefined;
  for (const { data, origin, source } of early) window.dispatchEvent(new MessageEvent('message', { data, origin, source }));
}
