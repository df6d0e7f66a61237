// SPDX-License-Identifier: Apache-2.0
// Programs of others, for tests only: Jitsi's own IFrame script and React SDK, as Jitsi publishes them. The script's source travels in
// Jitsi's npm package for phones; that package is fetched into a cache outside the repository, checked against its known hash, and
// bundled there for browsers. Nothing of it is kept here.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const VERSION = '13.2.0';
const SHA512 = 'J7itSoy85IScxeC4letOtoS33Sp0tH5hLYFHYtH+v3WQwLjganuWlFCjlDbL5ks9ebGhVNsCyCBdML9qC+SAWw==';
const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'trunkboard', `jitsi-${VERSION}`);
const HERE = fileURLToPath(new URL('.', import.meta.url));

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

/** The web client's Vite bundles for the tests too. Packages are found beside this file, wherever the importer lies. */
async function bundle(entry) {
  const require = createRequire(new URL('../../app/package.json', import.meta.url));
  const { build } = await import(pathToFileURL(require.resolve('vite')));
  const here = {
    name: 'packages-from-here',
    enforce: 'pre',
    resolveId(id) {
      return /^[@a-z]/i.test(id) ? this.resolve(id, join(HERE, 'sdk.mjs'), { skipSelf: true }) : null;
    },
  };
  const result = await build({
    configFile: false,
    root: HERE,
    logLevel: 'silent',
    define: { 'process.env.NODE_ENV': '"production"' },
    plugins: [here],
    resolve: { extensions: ['.web.ts', '.mjs', '.js', '.ts', '.tsx', '.json'] },
    build: { write: false, minify: false, target: 'es2022', lib: { entry, name: 'bundle', formats: ['iife'] } },
  });
  return result[0].output.find((o) => o.type === 'chunk').code;
}

/** Jitsi's `JitsiMeetExternalAPI`, as a classic script that sets the global. */
export async function officialScript() {
  const folder = await source();
  const entry = join(folder, '..', 'entry.mjs');
  await writeFile(entry, "import api from './package/modules/API/external/external_api.js';\nglobalThis.JitsiMeetExternalAPI = api;\n");
  return bundle(entry);
}

/** Jitsi's React SDK, with a page that mounts it: `window.mount(props)`. */
export async function reactSdk() {
  return bundle(join(HERE, 'sdk.mjs'));
}
