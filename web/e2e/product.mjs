// SPDX-License-Identifier: Apache-2.0
// Somebody's product, on an origin of its own, with a page that shows a meeting in a frame.
import { createServer } from 'node:http';

/**
 * Serves pages by path: `{ '/': html, '/a.js': [type, text] }`, at http://<name>.localhost:<port>, which browsers trust with a camera.
 * Returns `{ url, close }`.
 */
export async function product(name, pages) {
  const server = createServer((request, response) => {
    const page = pages[new URL(request.url, 'http://x').pathname];
    if (page === undefined) return response.writeHead(404).end();
    const [type, text] = Array.isArray(page) ? page : ['text/html; charset=utf-8', page];
    response.writeHead(200, { 'content-type': type }).end(text);
  });
  await new Promise((go) => server.listen(0, '127.0.0.1', go));
  return {
    url: `http://${name}.localhost:${server.address().port}`,
    close: () => new Promise((go) => (server.closeAllConnections(), server.close(go))),
  };
}

export const PAGE = (scripts) => `<!doctype html><title>Product</title><div id="root" style="width:960px;height:640px"></div>${scripts.map((src) => `<script src="${src}"></script>`).join('')}`;
