// SPDX-License-Identifier: Apache-2.0
// One server and one browser for all tests of a file.
import assert from 'node:assert/strict';
import { after, afterEach, before } from 'node:test';
import { launch } from './pages.mjs';
import { homeserver } from './server.mjs';

/**
 * Starts them before the first test of the file and stops them after the last. Returns `person`: somebody whose window is closed after
 * the test; what went wrong in the page fails it.
 */
export function desk() {
  let server;
  let browser;
  const open = [];
  before(async () => {
    server = await homeserver();
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });
  afterEach(async () => {
    const problems = open.flatMap((c) => c.problems.map((p) => `${c.name}: ${p}`));
    await Promise.all(open.splice(0).map((c) => c.close()));
    assert.deepEqual(problems, []);
  });
  return async function person(options) {
    const client = await browser.person(server.url, options);
    open.push(client);
    return client;
  };
}
