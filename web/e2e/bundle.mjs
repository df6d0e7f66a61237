// SPDX-License-Identifier: Apache-2.0
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { pathToFileURL } from 'node:url';

/** One classic script of a module and what it imports, by the web client's Vite. Packages are found beside the file `from`, wherever the importer lies. */
export async function bundle(entry, from = entry) {
  const require = createRequire(new URL('../app/package.json', import.meta.url));
  const { build } = await import(pathToFileURL(require.resolve('vite')));
  const packages = {
    name: 'packages-beside-from',
    enforce: 'pre',
    resolveId(id) {
      return /^[@a-z]/i.test(id) ? this.resolve(id, from, { skipSelf: true }) : null;
    },
  };
  const result = await build({
    configFile: false,
    root: dirname(from),
    logLevel: 'silent',
    define: { 'process.env.NODE_ENV': '"production"' },
    plugins: [packages],
    resolve: { extensions: ['.web.ts', '.mjs', '.js', '.ts', '.tsx', '.json'] },
    build: { write: false, minify: false, target: 'es2022', lib: { entry, name: 'bundle', formats: ['iife'] } },
  });
  return result[0].output.find((o) => o.type === 'chunk').code;
}
