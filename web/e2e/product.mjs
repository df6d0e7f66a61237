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

/** A person without a browser: makes an account and speaks the client API. */
export class Account {
  static async register(url, name) {
    const account = new Account();
    account.url = url;
    const { user_id, access_token, device_id } = await account.api('POST', '/_matrix/client/v3/register', { auth: { type: 'm.login.dummy' }, username: name, password: 'correct horse battery staple' });
    return Object.assign(account, { userId: user_id, token: access_token, deviceId: device_id, name });
  }

  /** Sends a request; throws what the server refuses with. `body` may be text, to send what no object can be. */
  async api(method, path, body, headers = {}) {
    const response = await fetch(this.url + path, {
      method,
      headers: { ...(this.token ? { Authorization: `Bearer ${this.token}` } : {}), ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
      body: body === undefined || typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) throw Object.assign(new Error(`${method} ${path}: ${response.status} ${JSON.stringify(answer)}`), { status: response.status, errcode: answer.errcode });
    return answer;
  }

  send(roomId, type, content) {
    return this.api('PUT', `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/send/${encodeURIComponent(type)}/${crypto.randomUUID()}`, content);
  }

  state(roomId, type, key, content) {
    return this.api('PUT', `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/state/${encodeURIComponent(type)}/${encodeURIComponent(key)}`, content);
  }

  join(roomId) {
    return this.api('POST', `/_matrix/client/v3/join/${encodeURIComponent(roomId)}`, {});
  }

  openid() {
    return this.api('POST', `/_matrix/client/v3/user/${encodeURIComponent(this.userId)}/openid/request_token`, {});
  }
}
