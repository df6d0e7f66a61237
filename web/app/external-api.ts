// SPDX-License-Identifier: Apache-2.0
// Builds src/jitsi/external into one classic script, for pages of others, under the two names that they know it by.
import { build, type Plugin } from 'vite';

export function externalApi(): Plugin {
  return {
    name: 'trunkboard:external-api',
    apply: 'build',
    async generateBundle() {
      const result = await build({
        configFile: false,
        logLevel: 'warn',
        build: {
          write: false,
          target: 'es2022',
          lib: { entry: 'src/jitsi/external/index.ts', name: 'trunkboardExternalApi', formats: ['iife'] },
        },
      });
      const [{ output }] = result as { output: { type: string; code: string }[] }[];
      const source = `// SPDX-License-Identifier: Apache-2.0\n${output.find((o) => o.type === 'chunk')!.code}`;
      for (const fileName of ['external_api.js', 'libs/external_api.min.js']) this.emitFile({ type: 'asset', fileName, source });
    },
  };
}
