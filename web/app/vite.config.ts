// SPDX-License-Identifier: Apache-2.0
import { defineConfig } from 'vitest/config';
import react from '@vitejs/plugin-react';
import { segmenter } from './segmenter.build.ts';
import { externalApi } from './external-api.ts';

// During development the homeserver runs beside Vite; in production the binary serves both.
const homeserver = process.env.TRUNKBOARD_URL ?? 'http://localhost:8008';

export default defineConfig({
  plugins: [react(), segmenter(), externalApi()],
  server: { proxy: { '/_matrix': homeserver, '/_trunkboard': homeserver, '/_synapse': homeserver } },
  build: {
    outDir: '../dist',
    emptyOutDir: true,
    target: 'es2022',
    // A data: URI would need its own exception in the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1200,
    rolldownOptions: {
      // A page of its own needs neither the client nor the SDK.
      input: { index: 'index.html', doctor: 'doctor.html', meet: 'meet.html' },
      output: {
        // The SDK changes only with its version, the app with every release: one chunk each keeps the big one cached.
        codeSplitting: {
          groups: [
            // Vite's loader of lazy chunks goes with React, or the first page would fetch the SDK to get it.
            { name: 'react', test: /node_modules\/(react|react-dom|scheduler)\/|preload-helper/ },
            {
              name: 'matrix-sdk',
              // Without the Rust crypto, which loads by itself when encryption is switched on, and what only meetings need.
              test: (id: string) => /node_modules\/.*\.js$/.test(id) && !/node_modules\/(react|react-dom|scheduler|zustand|@matrix-org|livekit-client|@livekit|@mediapipe|@bufbuild|qrcode|dijkstrajs)\/|\/rust-crypto\//.test(id),
            },
          ],
        },
      },
    },
  },
  test: { environment: 'jsdom', include: ['src/**/*.test.{ts,tsx}'] },
});
