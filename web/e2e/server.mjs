// SPDX-License-Identifier: Apache-2.0
// The server that the browser tests talk to: the one at TRUNKBOARD_URL, or a fresh bin/trunkboard on free ports.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const BINARY = process.env.TRUNKBOARD_BINARY ?? fileURLToPath(new URL('../../bin/trunkboard', import.meta.url));

/** How long the server may take to answer its first request, in milliseconds. */
const START_MS = 30_000;

/**
 * Returns `{ url, close }`. `settings` are configuration keys for a server that is started here; they override
 * the ones that tests need (loopback, free ports, no rate limits, cheap passwords). `prepare` may fill its data folder first.
 */
export async function homeserver(settings = {}, prepare = undefined) {
  if (process.env.TRUNKBOARD_URL) return { url: process.env.TRUNKBOARD_URL, close: async () => {} };
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: run "make build", or name a running server in TRUNKBOARD_URL`);
  const data = await mkdtemp(join(tmpdir(), 'trunkboard-server-'));
  const announcement = join(data, 'announce.json');
  if (prepare) {
    await mkdir(join(data, 'data'), { mode: 0o700 });
    await prepare(join(data, 'data'));
  }
  const keys = {
    data_dir: join(data, 'data'),
    'listen.client': '127.0.0.1:0',
    'listen.metrics': '127.0.0.1:0',
    'turn.listen': '127.0.0.1:0',
    'sfu.listen_udp': '127.0.0.1:0',
    'sfu.listen_tcp': '127.0.0.1:0',
    'limits.enabled': 'false',
    'accounts.password_cost': 'minimum',
    'shutdown.drain': '1s',
    ...settings,
  };
  const flags = Object.entries(keys).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  const child = spawn(BINARY, ['serve', '--announce', announcement, ...flags], { stdio: ['ignore', 'pipe', 'pipe'] });
  let log = '';
  const keep = (chunk) => (log = (log + chunk).slice(-20_000));
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const exited = new Promise((resolve) => child.once('exit', resolve));
  let gone = false;
  void exited.then(() => (gone = true));
  const close = async () => {
    child.kill('SIGTERM');
    await exited;
    await rm(data, { recursive: true, force: true });
  };

  const end = Date.now() + START_MS;
  while (Date.now() < end && !gone) {
    if (existsSync(announcement)) {
      const addresses = JSON.parse(await readFile(announcement, 'utf8'));
      const client = addresses['listen.client'];
      return { url: `http://localhost:${client.slice(client.lastIndexOf(':') + 1)}`, addresses, log: () => log, signal: (name) => child.kill(name), close };
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  if (!gone) await close();
  throw new Error(`the server did not start:\n${log}`);
}
