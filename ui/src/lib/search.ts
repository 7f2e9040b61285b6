// Search as you type: over name, tags, kind and addresses, best match first. Pure, and quick enough for 10,000 rows a key.
import type { Row } from './generated/types';

/** Where a query met a row, for the marks. Ranges are [start, end) in UTF-16 units of the text that is shown. */
export type Range = readonly [number, number];

interface Haystack {
  /** Everything below, so that one look tells of most rows that they do not match. */
  all: string;
  name: string;
  tags: string[];
  kind: string;
  addresses: string[];
}

// Rows are immutable: a changed row is another object, and its lower-cased text is made once.
const haystacks = new WeakMap<Row, Haystack>();

function haystack(row: Row): Haystack {
  let found = haystacks.get(row);
  if (!found) {
    const name = row.name.toLowerCase();
    const tags = row.tags.map((tag) => tag.toLowerCase());
    const addresses = (row.dns_name ? [row.dns_name, row.address] : [row.address]).map((text) => text.toLowerCase());
    found = { all: [name, ...tags, row.kind, ...addresses].join('\n'), name, tags, kind: row.kind, addresses };
    haystacks.set(row, found);
  }
  return found;
}

/** Makes the lower-cased texts of rows ahead of the first key; pausing now and then, so that nothing waits for it. */
export function prepare(rows: readonly Row[], from = 0): void {
  const to = Math.min(rows.length, from + 1000);
  for (let n = from; n < to; n += 1) {
    const row = rows[n];
    if (row) haystack(row);
  }
  if (to < rows.length) setTimeout(() => prepare(rows, to), 10);
}

/** The words of a query, lower case. All of them must match. */
export function words(query: string): string[] {
  return query.toLowerCase().split(/\s+/).filter(Boolean);
}

// A name counts more than a tag, a tag more than a kind, a kind more than an address;
// the whole text more than its beginning, that more than the beginning of a part, that more than the middle.
const NAME = 1000;
const TAG = 600;
const KIND = 500;
const ADDRESS = 300;
const WHOLE = 300;
const BEGINNING = 200;
const PART = 100;

function place(text: string, word: string): number {
  const at = text.indexOf(word);
  if (at < 0) return -1;
  if (at === 0) return text.length === word.length ? WHOLE : BEGINNING;
  // A later occurrence may begin a part: "db" in "adb-db".
  for (let next = at; next > 0; next = text.indexOf(word, next + 1)) {
    if (!isWord(text.charCodeAt(next - 1))) return PART;
  }
  return 0;
}

/** A digit or a small letter. */
function isWord(code: number): boolean {
  return (code >= 48 && code <= 57) || (code >= 97 && code <= 122);
}

function score(hay: Haystack, word: string): number {
  if (!hay.all.includes(word)) return -1;
  let best = -1;
  const name = place(hay.name, word);
  if (name >= 0) {
    // Of two names that begin alike the shorter is nearer to what was typed.
    return NAME + name - Math.min(50, hay.name.length);
  }
  for (const tag of hay.tags) {
    const found = place(tag, word);
    if (found >= 0) best = Math.max(best, TAG + found);
    // `prod` is the whole value of `env=prod`.
    const equals = tag.indexOf('=');
    if (equals >= 0 && tag.slice(equals + 1) === word) best = Math.max(best, TAG + WHOLE);
  }
  const kind = place(hay.kind, word);
  if (kind >= 0) best = Math.max(best, KIND + kind);
  if (best >= 0) return best;
  for (const address of hay.addresses) {
    const found = place(address, word);
    if (found >= 0) best = Math.max(best, ADDRESS + found);
  }
  return best;
}

/** What the last search found, in the order of its rows: one letter more is searched for among these only. */
let last: { rows: readonly Row[]; query: string; found: readonly Row[] } | null = null;

/** Rows that match every word, best first; rows that match equally well keep the order they came in. */
export function search(rows: readonly Row[], query: string): readonly Row[] {
  const asked = words(query);
  if (asked.length === 0) return rows;
  const among = last !== null && last.rows === rows && query.startsWith(last.query) ? last.found : rows;
  const found: Row[] = [];
  // There are few different scores, so no two rows have to be compared.
  const groups = new Map<number, Row[]>();
  outer: for (const row of among) {
    const hay = haystack(row);
    let sum = 0;
    for (const word of asked) {
      const one = score(hay, word);
      if (one < 0) continue outer;
      sum += one;
    }
    found.push(row);
    const group = groups.get(sum);
    if (group) group.push(row);
    else groups.set(sum, [row]);
  }
  last = { rows, query, found };
  return [...groups].sort((a, b) => b[0] - a[0]).flatMap(([, group]) => group);
}

/** Where the words of a query occur in a text, in order and without overlaps. */
export function ranges(text: string, query: string): Range[] {
  const low = text.toLowerCase();
  // Lower case may be longer than the text ("İ"): then places do not fit, and nothing is marked.
  if (low.length !== text.length) return [];
  const found: [number, number][] = [];
  for (const word of words(query)) {
    const at = low.indexOf(word);
    if (at >= 0) found.push([at, at + word.length]);
  }
  found.sort((a, b) => a[0] - b[0]);
  const joined: [number, number][] = [];
  for (const range of found) {
    const last = joined[joined.length - 1];
    if (last && range[0] <= last[1]) last[1] = Math.max(last[1], range[1]);
    else joined.push(range);
  }
  return joined;
}

/** A text cut into parts, of which some are marked. */
export function marked(text: string, query: string): { text: string; hit: boolean }[] {
  const parts: { text: string; hit: boolean }[] = [];
  let from = 0;
  for (const [start, end] of query ? ranges(text, query) : []) {
    if (start > from) parts.push({ text: text.slice(from, start), hit: false });
    parts.push({ text: text.slice(start, end), hit: true });
    from = end;
  }
  if (from < text.length) parts.push({ text: text.slice(from), hit: false });
  return parts;
}
