import { svelte } from '@sveltejs/vite-plugin-svelte';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const ui = fileURLToPath(new URL('..', import.meta.url));

export default defineConfig(({ mode }) => ({
  plugins: [svelte({ configFile: fileURLToPath(new URL('svelte.config.js', import.meta.url)) })],
  resolve: {
    alias: { $lib: `${ui}src/lib` },
    // Tests mount components in jsdom: take the browser's build of Svelte there, not the server's.
    conditions: mode === 'test' ? ['browser'] : undefined,
  },
  build: {
    target: 'es2022',
    // The page may load nothing but its own files: no data: fonts or scripts, icons are part of the page.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
  },
  server: { port: 1420, strictPort: true, host: '127.0.0.1', fs: { allow: [ui] } },
  test: {
    root: ui,
    environment: 'jsdom',
    include: ['src/**/*.test.ts', 'desktop/src/**/*.test.ts'],
    benchmark: { include: ['src/**/*.bench.ts'] },
    setupFiles: ['desktop/src/testing/setup.ts'],
    css: false,
    // A scan of a screen takes a second on a slow machine; nothing here asserts on time.
    testTimeout: 30_000,
    // Svelte sources among the packages go through the compiler.
    server: { deps: { inline: [/bits-ui/, /svelte-toolbelt/, /runed/] } },
  },
}));
