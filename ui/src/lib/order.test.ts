import { describe, expect, it } from 'vitest';
import { compare, count, fits, inState, kinds, NO_FILTERS, tags } from './filter';
import { rows } from './memory/fixtures';
import { byName, recentIds, RECENTS, sections } from './order';

const all = byName(rows(0));

describe('the order of the list', () => {
  it('is favourites, then recents, then all others by name', () => {
    const made = sections(all, recentIds(all));
    expect(made.map((section) => section.name)).toEqual(['favourites', 'recent', 'others']);
    expect(made[0]!.rows.map((row) => row.name)).toEqual(['orders-primary', 'search-prod-eu', 'bastion-fra']);
    expect(made[1]!.rows.map((row) => row.name)).toEqual(['sessions-cache', 'billing-replica', 'grafana', 'orders-staging']);
    expect(made[2]!.rows.map((row) => row.name)).toEqual(['analytics-warehouse', 'build-runner-07', 'feature-flags', 'kafka-broker-1', 'ledger-archive', 'search-staging', 'vault-admin']);
  });

  it('keeps the recents that it was given, whatever was used since', () => {
    const before = recentIds(all);
    const later = all.map((row) => (row.name === 'vault-admin' ? { ...row, recent: 0 } : row));
    expect(sections(later, before)[1]!.rows.map((row) => row.name)).not.toContain('vault-admin');
  });

  it('shows a favourite once and never among the recents', () => {
    expect(recentIds(all)).not.toContain('res_orders-primary');
  });

  it('has at most five recents', () => {
    expect(recentIds(all.map((row, n) => ({ ...row, favourite: null, recent: n })))).toHaveLength(RECENTS);
  });

  it('leaves out empty groups', () => {
    expect(sections(all.map((row) => ({ ...row, favourite: null })), []).map((section) => section.name)).toEqual(['others']);
  });

  it('counts numbers in names', () => {
    expect(['db-10', 'db-2', 'Alpha'].sort(compare)).toEqual(['Alpha', 'db-2', 'db-10']);
  });
});

describe('filters', () => {
  it('count what each would show', () => {
    expect(count(all)).toEqual({ all: 14, connected: 5, attention: 4, off: 4 });
    for (const filter of ['all', 'connected', 'attention', 'off'] as const) {
      expect(all.filter((row) => inState(row, filter))).toHaveLength(count(all)[filter]);
    }
  });

  it('need every tag that is set', () => {
    expect(all.filter((row) => fits(row, { ...NO_FILTERS, tags: ['prod', 'eu'] })).length).toBe(5);
    expect(all.filter((row) => fits(row, { ...NO_FILTERS, kind: 'ssh', tags: ['ci'] })).map((row) => row.name)).toEqual(['build-runner-07']);
  });

  it('offer what is used most first', () => {
    expect(kinds(all)[0]).toEqual({ value: 'http', count: 5 });
    expect(tags(all)[0]!.value).toBe('prod');
    expect(tags(all, 2)).toHaveLength(2);
  });
});
