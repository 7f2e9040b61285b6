// Contrast by WCAG 2.2, computed from the tokens themselves: text at least 4.8, control borders and gates at least 3.2.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const source = readFileSync(join(dirname(fileURLToPath(import.meta.url)), 'tokens.css'), 'utf8');

function block(after: string): Map<string, string> {
  const from = source.indexOf('{', source.indexOf(after));
  const body = source.slice(from, source.indexOf('}', from));
  return new Map([...body.matchAll(/--([\w-]+):\s*([^;]+);/g)].map((found) => [found[1] ?? '', (found[2] ?? '').trim()]));
}

const light = block(':root {');
const dark = block(':root[data-theme="dark"]');
const darkBySystem = block(':root:not([data-theme="light"])');

function luminance(hex: string): number {
  const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
  const [r = 0, g = 0, b = 0] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

export function contrast(one: string, other: string): number {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

// Each text or sign, and every ground that it stands on somewhere in the window.
const TEXT: Record<string, string[]> = {
  ink: ['bg', 'surface', 'strip', 'raised', 'select', 'hover', 'sunken', 'mark', 'accenttint', 'errtint', 'warntint', 'infotint', 'asktint'],
  ink2: ['bg', 'surface', 'strip', 'raised', 'select', 'hover', 'sunken', 'errtint', 'warntint', 'infotint', 'asktint'],
  ink3: ['bg', 'surface', 'strip', 'raised', 'select', 'hover', 'sunken'],
  accent: ['bg', 'surface', 'strip', 'raised', 'select', 'hover', 'accenttint', 'errtint', 'warntint', 'infotint', 'asktint'],
  err: ['bg', 'surface', 'strip', 'select', 'hover', 'errtint'],
  warn: ['bg', 'surface', 'strip', 'select', 'hover', 'warntint'],
  info: ['surface', 'raised', 'infotint'],
  ask: ['surface', 'select', 'hover', 'asktint'],
  onaccent: ['fill', 'fillhover'],
};
const SIGNS: Record<string, string[]> = {
  edge: ['bg', 'surface', 'strip', 'raised', 'select', 'hover', 'sunken'],
  fill: ['surface', 'strip', 'select', 'hover'],
  ink: ['surface', 'bg', 'strip', 'select'],
};

describe.each([['light', light], ['dark', dark]] as const)('contrast in the %s theme', (_, theme) => {
  const value = (name: string): string => {
    const found = theme.get(name);
    expect(found, name).toMatch(/^#[0-9a-f]{6}$/i);
    return found ?? '#000000';
  };
  const pairs = (table: Record<string, string[]>): [string, string][] => Object.entries(table).flatMap(([name, grounds]) => grounds.map((ground): [string, string] => [name, ground]));

  it.each(pairs(TEXT))('text %s on %s', (name, ground) => {
    expect(contrast(value(name), value(ground))).toBeGreaterThanOrEqual(4.5);
    // The house keeps a little more than the norm wants.
    expect(Math.round(contrast(value(name), value(ground)) * 10) / 10).toBeGreaterThanOrEqual(4.8);
  });

  it.each(pairs(SIGNS))('sign %s on %s', (name, ground) => {
    expect(contrast(value(name), value(ground))).toBeGreaterThanOrEqual(3.2);
  });
});

it('the dark theme is the same whether chosen or asked for by the system', () => {
  expect([...darkBySystem]).toEqual([...dark]);
});

it('both themes have the same colours', () => {
  const colours = [...light].filter(([, value]) => value.startsWith('#')).map(([name]) => name);
  expect([...dark].filter(([, value]) => value.startsWith('#')).map(([name]) => name)).toEqual(colours);
});
