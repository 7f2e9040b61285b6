import { describe, expect, it } from 'vitest';
import { manyRows, rows } from './memory/fixtures';
import { marked, ranges, search } from './search';

const all = rows(0);
const names = (query: string): string[] => search(all, query).map((row) => row.name);

describe('search', () => {
  it('finds a part of a name, a tag, a kind and an address', () => {
    expect(names('primary')).toEqual(['orders-primary']);
    expect(names('ci')).toEqual(['build-runner-07']);
    expect(names('redis')).toEqual(['sessions-cache']);
    expect(names('18300')).toEqual(['grafana']);
  });

  it('puts names before tags and beginnings before middles', () => {
    const found = names('sta');
    expect(found.slice(0, 2).sort()).toEqual(['orders-staging', 'search-staging']);
    expect(found[2]).toBe('feature-flags');
    expect(names('search')[0]).toBe('search-staging'.length < 'search-prod-eu'.length ? 'search-staging' : 'search-prod-eu');
  });

  it('puts the whole name first', () => {
    const two = [{ ...all[0]!, id: 'a', name: 'db-archive' }, { ...all[0]!, id: 'b', name: 'db' }, { ...all[0]!, id: 'c', name: 'old-db' }];
    expect(search(two, 'db').map((row) => row.name)).toEqual(['db', 'db-archive', 'old-db']);
  });

  it('wants every word, in any order', () => {
    expect(names('eu ssh')).toEqual(['bastion-fra']);
    expect(names('eu nothing')).toEqual([]);
  });

  it('does not care about case or spaces around', () => {
    expect(names('  ORDERS-Primary ')).toEqual(['orders-primary']);
  });

  it('finds the value of a tag that has a key', () => {
    expect(names('payments')).toEqual(['orders-primary']);
  });

  it('finds the name in the virtual network', () => {
    expect(search([{ ...all[0]!, dns_name: 'orders.northwind:5432' }], 'northwind')).toHaveLength(1);
  });

  it('gives all rows in their order for an empty query', () => {
    expect(names('  ')).toEqual(all.map((row) => row.name));
  });

  it('sees a changed row as it is now', () => {
    const [first] = all;
    expect(search([{ ...first!, name: 'renamed' }], 'renamed')).toHaveLength(1);
  });

  it('finds the same letter by letter as at once', () => {
    const many = manyRows(0, 10_000);
    for (const word of ['orders', 'postgres eu', '10.20', 'prod redis', 'zzz']) {
      for (let length = 1; length <= word.length; length += 1) {
        const typed = search(many, word.slice(0, length));
        expect(typed).toEqual(search([...many], word.slice(0, length)));
        search(many, word.slice(0, length));
      }
    }
  });

  it('finds the one among 10,000', () => {
    expect(search(manyRows(0, 10_000), '9999').map((row) => row.id)).toContain('res_9999');
  });
});

describe('marks', () => {
  it('marks each word once and joins what overlaps', () => {
    expect(ranges('orders-staging', 'stag order')).toEqual([[0, 5], [7, 11]]);
    expect(ranges('orders', 'ord rder')).toEqual([[0, 5]]);
  });

  it('cuts a text without losing any of it', () => {
    const parts = marked('k8s-prod-eu', 'prod');
    expect(parts.map((part) => part.text).join('')).toBe('k8s-prod-eu');
    expect(parts.filter((part) => part.hit).map((part) => part.text)).toEqual(['prod']);
  });

  it('marks nothing where lower case is longer than the text', () => {
    expect(ranges('İstanbul', 'stan')).toEqual([]);
  });
});
