// The words in the language of now. Components read `t()`; a change of language redraws them.
import type { Words } from './en';
import en from './en';
import de from './de';

export const LANGUAGES: Record<string, Words> = { en, de };

let chosen = $state('en');

export const t = (): Words => LANGUAGES[chosen] ?? en;
export const language = (): string => chosen;

/** The best language for a BCP 47 tag: `de-AT` is `de`, anything unknown is English. */
export function speak(tag: string | null): void {
  const base = (tag ?? 'en').toLowerCase().split(/[-_.@]/)[0] ?? 'en';
  chosen = Object.hasOwn(LANGUAGES, base) ? base : 'en';
}
