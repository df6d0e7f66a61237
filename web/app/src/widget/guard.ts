// SPDX-License-Identifier: Apache-2.0
// matrix-widget-api takes a message for its client's if the widget id in it is right, whoever sent it. This stands before it and lets
// through only what the window around us says under the origin that it was opened from, and that only once.

/** Request ids that are remembered. */
const REMEMBERED = 1000;

/** Call before the API starts to listen; the function that comes back takes the guard away. */
export function guard(parent: Window, origin: string): () => void {
  const seen = new Set<string>();
  const listener = (e: MessageEvent) => {
    if (!speaksWidget(e.data)) return;
    const { api, requestId, action, response } = e.data as { api: unknown; requestId: unknown; action?: unknown; response?: unknown };
    const key = `${requestId} ${action}`;
    const right = e.source === parent && e.origin === origin && typeof requestId === 'string';
    // An answer to a question of ours is forgotten with the question; a request that comes again is an echo.
    const again = right && api === 'toWidget' && response === undefined && seen.has(key);
    if (!right || again) return e.stopImmediatePropagation();
    if (api !== 'toWidget' || response !== undefined) return;
    seen.add(key);
    if (seen.size > REMEMBERED) for (const oldest of seen) return void seen.delete(oldest);
  };
  window.addEventListener('message', listener);
  return () => window.removeEventListener('message', listener);
}

function speaksWidget(data: unknown): boolean {
  return typeof data === 'object' && data !== null && 'api' in data && 'requestId' in data;
}
