import { describe, expect, it } from 'vitest';
import de from './de';
import en from './en';
import { LANGUAGES, language, speak, t } from './words.svelte';

type Leaf = string | ((...args: never[]) => string);

function leaves(words: object, path = ''): Map<string, Leaf> {
  const found = new Map<string, Leaf>();
  for (const [name, value] of Object.entries(words)) {
    const here = path ? `${path}.${name}` : name;
    if (typeof value === 'object') for (const [key, leaf] of leaves(value, here)) found.set(key, leaf);
    else found.set(here, value as Leaf);
  }
  return found;
}

/** A sentence with samples in its gaps. */
function spoken(leaf: Leaf): string {
  return typeof leaf === 'string' ? leaf : (leaf as (...args: unknown[]) => string)('«1»', '«2»', '«3»', '«4»');
}

const english = leaves(en);

describe.each(Object.entries(LANGUAGES))('the words of %s', (tag, words) => {
  const own = leaves(words);

  it('are all there, and no others', () => {
    expect([...own.keys()].sort()).toEqual([...english.keys()].sort());
  });

  it('are never empty and keep to the house style', () => {
    for (const [path, leaf] of own) {
      const text = spoken(leaf);
      expect(text, path).not.toBe('');
      expect(text, path).not.toMatch(/!|\boops\b|something went wrong|\bplease\b/i);
      expect(text, path).not.toMatch(/undefined|\[object/);
    }
  });

  it('take what the English ones take', () => {
    for (const [path, leaf] of english) {
      const other = own.get(path);
      expect(typeof other, path).toBe(typeof leaf);
      if (typeof leaf === 'string' || other === undefined) continue;
      // Both say the same gaps, in whatever order.
      const gaps = (text: string): string[] => [...new Set(text.match(/«\d»/g) ?? [])].sort();
      expect(gaps(spoken(other)), path).toEqual(gaps(spoken(leaf)));
    }
  });

  it('have room: a label is at most about twice as long as in English', () => {
    if (tag === 'en') return;
    const long = [...own].filter(([path, leaf]) => {
      const wanted = spoken(english.get(path) ?? '');
      return wanted.length >= 8 && wanted.length <= 24 && spoken(leaf).length > wanted.length * 2.1;
    });
    expect(long.map(([path]) => path)).toEqual([]);
  });
});

describe('a language', () => {
  it('is found by any tag of it, and English otherwise', () => {
    for (const tag of ['de', 'de-AT', 'de_DE.UTF-8', 'DE']) {
      speak(tag);
      expect(language()).toBe('de');
      expect(t()).toBe(de);
    }
    for (const tag of ['fr', '', null, 'constructor']) {
      speak(tag);
      expect(language()).toBe('en');
    }
  });
});
