// The filters above the list: by state, kind and tag.
import type { Kind, ResourceState, Row } from './generated/types';

export type StateFilter = 'all' | 'connected' | 'attention' | 'off';

export interface Filters {
  state: StateFilter;
  kind: Kind | null;
  tags: readonly string[];
}

export const NO_FILTERS: Filters = { state: 'all', kind: null, tags: [] };

/** Whether traffic passes: the states whose gate is filled. */
export function passes(state: ResourceState): boolean {
  return state === 'connected' || state === 'expiring' || state === 'degraded';
}

/** Whether a person should look at it. */
export function needsAttention(state: ResourceState): boolean {
  return state === 'expiring' || state === 'degraded' || state === 'unhealthy';
}

export function inState(row: Row, filter: StateFilter): boolean {
  switch (filter) {
    case 'all':
      return true;
    case 'connected':
      return passes(row.state);
    case 'attention':
      return needsAttention(row.state);
    case 'off':
      return row.state === 'off';
  }
}

/** Whether kind and tags let a row through; all chosen tags are needed. */
export function fits(row: Row, filters: Filters): boolean {
  return (filters.kind === null || row.kind === filters.kind) && filters.tags.every((tag) => row.tags.includes(tag));
}

export type Counts = Record<StateFilter, number>;

/** How many rows each state filter would show. */
export function count(rows: readonly Row[]): Counts {
  const counts: Counts = { all: rows.length, connected: 0, attention: 0, off: 0 };
  for (const { state } of rows) {
    if (passes(state)) counts.connected += 1;
    if (needsAttention(state)) counts.attention += 1;
    if (state === 'off') counts.off += 1;
  }
  return counts;
}

/** A kind or tag with how many rows have it. */
export interface Choice<T> {
  value: T;
  count: number;
}

export function kinds(rows: readonly Row[]): Choice<Kind>[] {
  return tally(rows, (row) => [row.kind]);
}

/** The tags in use, most used first, then by name; at most `limit` of them. */
export function tags(rows: readonly Row[], limit = 200): Choice<string>[] {
  return tally(rows, (row) => row.tags).slice(0, limit);
}

function tally<T extends string>(rows: readonly Row[], values: (row: Row) => readonly T[]): Choice<T>[] {
  const counts = new Map<T, number>();
  for (const row of rows) for (const value of values(row)) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts]
    .map(([value, count]) => ({ value, count }))
    .sort((a, b) => b.count - a.count || compare(a.value, b.value));
}

/** By name, numbers by their value: `db-2` before `db-10`. One collator: making one is slow. */
const collator = new Intl.Collator('en', { numeric: true, sensitivity: 'base' });
export function compare(a: string, b: string): number {
  return collator.compare(a, b) || (a < b ? -1 : a > b ? 1 : 0);
}
