// What the page's content policy forbids is not in the sources: scripts and styles in markup, foreign markup, eval, and
// anything from elsewhere. Talking to Rust happens in one file.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const ui = join(dirname(fileURLToPath(import.meta.url)), '../..');

function sources(folder: string): [path: string, text: string][] {
  return readdirSync(join(ui, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.(svelte|ts|css|html)$/.test(path) && !/\.(test|bench)\.ts$|^lib\/(generated|memory)/.test(path))
    .map((path) => [`${folder}/${path}`, readFileSync(join(ui, folder, path), 'utf8')]);
}

const all = [...sources('src'), ...sources('desktop/src'), ['desktop/index.html', readFileSync(join(ui, 'desktop/index.html'), 'utf8')] as [string, string]];
const withMatch = (pattern: RegExp): string[] => all.filter(([, text]) => pattern.test(text)).map(([path]) => path);

it('there are sources to look at', () => {
  expect(all.length).toBeGreaterThan(60);
});

it('no style and no handler is written into markup', () => {
  expect(withMatch(/<[a-z][^>]*\sstyle=/i)).toEqual([]);
  expect(withMatch(/<[a-z][^>]*\son[a-z]+="/i)).toEqual([]);
  expect(all.filter(([path, text]) => path.endsWith('.html') && /<script(?![^>]*\ssrc=)|<style/i.test(text))).toEqual([]);
});

it('nothing that others wrote becomes markup or code', () => {
  expect(withMatch(/\{@html|innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function\(/)).toEqual([]);
});

it('nothing is loaded from elsewhere', () => {
  expect(withMatch(/\b(?:src|href)=["']https?:|@import|url\(["']?https?:|\bfetch\(|XMLHttpRequest|WebSocket/)).toEqual([]);
});

it('one file talks to Rust', () => {
  expect(withMatch(/from ['"]@tauri-apps/)).toEqual(['src/lib/backend.ts']);
});
