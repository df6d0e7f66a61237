// SPDX-License-Identifier: Apache-2.0
// matrix-widget-api takes a message for the other side's if the widget id in it is right, whoever sent it. This stands before it, in a
// widget as in a client, and lets through only what the other side's window says under its own origin, and each request only once.

/** Request ids that are remembered. */
const REMEMBERED = 1000;

/**
 * Call before the API starts to listen; the function that comes back takes the guard away. `requests` is what the other side asks with:
 * toWidget when it is a client, fromWidget when it is a widget.
 */
export function guard(peer: Window, origin: string, requests: 'toWidget' | 'fromWidget'): () => void {
  const seen = new Set<string>();
  const listener = (e: MessageEvent) => {
    if (!speaksWidget(e.data)) return;
    const { api, requestId, action, response } = e.data as { api: unknown; requestId: unknown; action?: unknown; response?: unknown };
    const key = `${requestId} ${action}`;
    const right = e.source === peer && e.origin === origin && typeof requestId === 'string';
    // An answer to a question of ours is forgotten with the question; a request that comes again is an echo.
    const again = right && api === requests && response === undefined && seen.has(key);
    if (!right || again) return e.stopImmediatePropagation();
    if (api !== requests || response !== undefined) return;
    seen.add(key);
    if (seen.size > REMEMBERED) for (const oldest of seen) return void seen.delete(oldest);
  };
  window.addEventListener('message', listener);
  return () => window.removeEventListener('message', listener);
}

function speaksWidget(data: unknown): boolean {
  return typeof data === 'object' && data !== null && 'api' in data && 'requestId' in data;
}
