import { bench, describe } from 'vitest';
import { fits, NO_FILTERS } from './filter';
import { manyRows } from './memory/fixtures';
import { byName, recentIds, sections } from './order';
import { search } from './search';

const rows = manyRows(0, 10_000);
const sorted = byName(rows);
search(rows, 'warm');

describe('10,000 resources', () => {
  bench('search one letter', () => void search(rows, 'o'));
  bench('search a word', () => void search(rows, 'orders'));
  bench('search two words', () => void search(rows, 'prod eu'));
  bench('search an address', () => void search(rows, '29999'));
  bench('search without a match', () => void search(rows, 'zzzz'));
  bench('filter by tag and kind', () => void rows.filter((row) => fits(row, { ...NO_FILTERS, kind: 'postgres', tags: ['env=prod'] })));
  bench('order into groups', () => void sections(sorted, recentIds(rows)));
});
