import svelte from 'eslint-plugin-svelte';
import ts from 'typescript-eslint';
import svelteConfig from './desktop/svelte.config.js';

export default ts.config(
  { ignores: ['**/dist/**', '**/node_modules/**', 'src/lib/generated/**'] },
  ...ts.configs.recommended,
  ...svelte.configs.recommended,
  {
    rules: {
      eqeqeq: 'error',
      'no-eval': 'error',
      'no-implied-eval': 'error',
      'no-console': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // The page may talk to Rust in one place only.
      'no-restricted-imports': ['error', { patterns: ['@tauri-apps/*'] }],
    },
  },
  {
    files: ['**/*.svelte', '**/*.svelte.ts'],
    languageOptions: { parserOptions: { parser: ts.parser, extraFileExtensions: ['.svelte'], svelteConfig } },
    rules: {
      // Nothing of what others wrote becomes markup.
      'svelte/no-at-html-tags': 'error',
      // Places and widths that are computed; the page's policy allows no style in markup, and Svelte sets these by script.
      'svelte/no-inline-styles': 'off',
      // Sets and maps here are replaced, never changed; 10,000 rows are too many for reactive ones.
      'svelte/prefer-svelte-reactivity': 'off',
    },
  },
  { files: ['src/lib/backend.ts'], rules: { 'no-restricted-imports': 'off' } },
);
