// How a row is put into words: the same for eyes and ears.
import type { Row } from '$lib/generated/types';
import * as format from '$lib/format';
import { inLanguage, type Said } from '$lib/i18n/causes';
import { language, t } from '$lib/i18n/words.svelte';

/** "Connected", "Ends in 24 min", "Slow, 412 ms". */
export function stateWords(row: Row, now: number): string {
  if (row.state === 'expiring' && row.ends_at !== null) return t().state.endsIn(format.duration(row.ends_at - now));
  if (row.state === 'degraded' && row.latency_micros !== null) {
    return t().state.slow(format.latency(row.latency_micros, language()));
  }
  return t().state[row.state];
}

/** The address that is shown: by name where there is one. */
export function addressOf(row: Row): string {
  return row.dns_name ?? row.address;
}

/** "postgres · prod · eu". */
export function tagsOf(row: Row): string {
  return [row.kind, ...row.tags].join(' · ');
}

/** Whether the second line says what is wrong instead. */
export function troubled(row: Row): boolean {
  return row.trouble !== null && (row.state === 'unhealthy' || row.state === 'degraded' || row.state === 'needs_approval');
}

/** What is wrong, and when: "The target refused the connection, 2 min ago". */
export function reasonOf(row: Row, now: number): Said {
  if (!row.trouble) return { text: '', lang: undefined };
  const said = inLanguage(language(), row.trouble.code, row.trouble.what);
  const what = said.text.replace(/\.$/, '');
  if (row.state !== 'unhealthy') return { ...said, text: what };
  const passed = now - row.trouble.at;
  return { ...said, text: t().list.secondLine(what, passed < 60_000 ? t().time.now : t().time.ago(format.duration(passed - 59_999))) };
}

/** "gw-fra-1 · 9 ms". */
export function entryOf(row: Row): string {
  if (!row.entry) return '';
  return row.latency_micros === null ? row.entry : `${row.entry} · ${format.latency(row.latency_micros, language())}`;
}
