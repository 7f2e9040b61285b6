// The order of the list: favourites in their own order, then recents, then all others by name.
import { compare } from './filter';
import type { Row } from './generated/types';

export type SectionName = 'favourites' | 'recent' | 'others' | 'matches';

export interface Section {
  name: SectionName;
  rows: readonly Row[];
}

/** How many recents the list shows. */
export const RECENTS = 5;

/** The recents of now, last used first. The list keeps this while a person reads: nothing moves by itself. */
export function recentIds(rows: Iterable<Row>): string[] {
  const recent: Row[] = [];
  for (const row of rows) if (row.recent !== null && row.favourite === null) recent.push(row);
  recent.sort((a, b) => (a.recent ?? 0) - (b.recent ?? 0));
  return recent.slice(0, RECENTS).map((row) => row.id);
}

/** Rows by name. Sorting 10,000 names takes too long for each change, so it is done when names come and go. */
export function byName(rows: readonly Row[]): Row[] {
  return [...rows].sort((a, b) => compare(a.name, b.name) || (a.id < b.id ? -1 : 1));
}

/** Cuts rows that are in order of name into the sections of the list; empty ones are left out. */
export function sections(sorted: readonly Row[], recents: readonly string[]): Section[] {
  const favourites: Row[] = [];
  const places = new Map(recents.map((id, place) => [id, place]));
  const recent: Row[] = [];
  const others: Row[] = [];
  for (const row of sorted) {
    if (row.favourite !== null) favourites.push(row);
    else if (places.has(row.id)) recent.push(row);
    else others.push(row);
  }
  favourites.sort((a, b) => (a.favourite ?? 0) - (b.favourite ?? 0));
  recent.sort((a, b) => (places.get(a.id) ?? 0) - (places.get(b.id) ?? 0));
  const all: Section[] = [
    { name: 'favourites', rows: favourites },
    { name: 'recent', rows: recent },
    { name: 'others', rows: others },
  ];
  return all.filter((section) => section.rows.length > 0);
}
