// Sentences of the service in the language of the window. They are English on the wire; each language has a table of
// them by the code of the cause. What is in no table (words of other programs, say) stays English and is marked as that.
import german from './causes.de';

/** For each code: sentences as the service says them, with `{}` for what it fills in, and the same in the other language. */
export type Sentences = Record<string, readonly (readonly [string, string])[]>;

const TABLES: Record<string, Sentences> = { de: german };

export interface Said {
  text: string;
  /** For the `lang` attribute: set when the text is of another language than the window. */
  lang: 'en' | undefined;
}

/** A sentence of the cause `code` in `language`. */
export function inLanguage(language: string, code: string, text: string): Said {
  if (language === 'en' || text === '') return { text, lang: undefined };
  for (const [english, own] of TABLES[language]?.[code] ?? []) {
    const gaps = pattern(english).exec(text);
    if (gaps) return { text: filled(own, gaps.slice(1)), lang: undefined };
  }
  return { text, lang: 'en' };
}

const patterns = new Map<string, RegExp>();

function pattern(english: string): RegExp {
  let found = patterns.get(english);
  if (!found) {
    const parts = english.split('{}').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    found = new RegExp(`^${parts.join('(.+)')}$`, 's');
    patterns.set(english, found);
  }
  return found;
}

function filled(text: string, gaps: readonly string[]): string {
  let next = 0;
  return text.replace(/\{\}/g, () => (gaps[next++] ?? '').replaceAll(' and ', ' und '));
}
