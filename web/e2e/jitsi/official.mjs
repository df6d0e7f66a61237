// SPDX-License-Identifier: Apache-2.0
// Programs of others, for tests only: Jitsi's own IFrame script and React SDK, as Jitsi publishes them. The script's source travels in
// Jitsi's npm package for phones; that package is fetched into a cache outside the repository, checked against its known hash, and
// bundled there for browsers. Nothing of it is kept here.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { bundle } from '../bundle.mjs';

const run = promisify(execFile);
const VERSION = '13.2.0';
const SHA512 = 'J7itSoy85IScxeC4letOtoS33Sp0tH5hLYFHYtH+v3WQwLjganuWlFCjlDbL5ks9ebGhVNsCyCBdML9qC+SAWw==';
const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'trunkboard', `jitsi-${VERSION}`);
const SDK = fileURLToPath(new URL('./sdk.mjs', import.meta.url));

/** The folder with Jitsi's source, fetched once. */
async function source() {
  if (existsSync(join(CACHE, 'package', 'modules', 'API', 'external', 'index.js'))) return join(CACHE, 'package');
  await mkdir(join(CACHE, '..'), { recursive: true });
  const folder = await mkdtemp(`${CACHE}-`);
  try {
    await run('npm', ['pack', '--silent', '--ignore-scripts', `@jitsi/react-native-sdk@${VERSION}`, '--pack-destination', folder], { cwd: folder, timeout: 180_000 });
    const archive = join(folder, `jitsi-react-native-sdk-${VERSION}.tgz`);
    const hash = createHash('sha512').update(await readFile(archive)).digest('base64');
    if (hash !== SHA512) throw new Error(`what came as @jitsi/react-native-sdk ${VERSION} has another hash: ${hash}`);
    await run('tar', ['xzf', archive, '-C', folder, 'package/modules', 'package/react/features/base/util', 'package/react/features/base/media-cast', 'package/react/features/external-api', 'package/react/features/pip']);
    await rm(archive);
    // Another run may have been faster.
    await rename(folder, CACHE).catch(() => {});
    return join(CACHE, 'package');
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Jitsi's `JitsiMeetExternalAPI`, as a classic script that sets the global. */
export async function officialScript() {
  const folder = await source();
  const entry = join(folder, '..', 'entry.mjs');
  await writeFile(entry, "import api from './package/modules/API/external/external_api.js';\nglobalThis.JitsiMeetExternalAPI = api;\n");
  return bundle(entry, SDK);
}

/** Jitsi's React SDK, with a page that mounts it: `window.mount(props)`. */
export async function reactSdk() {
  return bundle(SDK);
}
