import { describe, expect, it } from 'vitest';
import en from '$lib/i18n/en';
import { rows } from '$lib/memory/fixtures';
import { byName, recentIds } from '$lib/order';
import { actions, offers, quote, type Source } from './palette';
import { marked } from './stand-ins';

const all = byName(rows(0));
const source: Source = { rows: all, recents: recentIds(all), wanted: (row) => row.wanted, words: en, count: String };
const entries = (query: string) => offers(query, source).flatMap((offer) => offer.entries);

describe('the palette', () => {
  it('shows what was used last when nothing is typed', () => {
    const [first] = offers('', source);
    expect(first?.name).toBe('recents');
    expect(first?.entries[0]?.object).toBe('sessions-cache');
    expect(first?.entries).toHaveLength(5);
  });

  it('does the obvious thing: connects what is off, disconnects what is on', () => {
    expect(entries('orders-staging')[0]).toMatchObject({ verb: 'Connect', shell: 'postern connect orders-staging' });
    expect(entries('orders-primary')[0]).toMatchObject({ verb: 'Disconnect', shell: 'postern disconnect orders-primary' });
    expect(entries('ledger')[0]).toMatchObject({ verb: 'Request', shell: null });
  });

  it('offers the tag that is meant, with how many it is about', () => {
    const tag = entries('stag').filter((entry) => entry.object === 'staging');
    expect(tag.map((entry) => entry.verb)).toEqual(['Connect all tagged', 'Disconnect all tagged', 'Copy addresses tagged', 'Show only tag']);
    expect(tag[0]).toMatchObject({ after: '3 resources', shell: 'postern connect --filter tags:staging' });
  });

  it('finds commands by their words', () => {
    expect(entries('lock').map((entry) => entry.key)).toContain('lock');
    expect(entries('zzzz')).toEqual([]);
  });

  it('leaves out what would change nothing', () => {
    const off = all.map((row) => ({ ...row, wanted: false, state: 'off' as const, favourite: null }));
    const keys = offers('', { ...source, rows: off }).flatMap((offer) => offer.entries.map((entry) => entry.key));
    expect(keys).not.toContain('disconnect_all');
    expect(keys).not.toContain('connect_favourites');
  });

  it('shows everything that can be done with one resource', () => {
    const [offer] = actions(all[0]!, source, [{ id: 'terminal_psql', name: 'psql' }]);
    expect(offer?.entries.map((entry) => entry.act.act)).toEqual(['toggle', 'copy_address', 'copy_command', 'details', 'open', 'favourite']);
  });

  it('has no two entries with the same key', () => {
    for (const query of ['', 'stag', 'o', 'prod']) {
      const keys = entries(query).map((entry) => entry.key);
      expect(new Set(keys).size).toBe(keys.length);
    }
  });

  it('quotes a name that a shell would split', () => {
    expect(quote('orders-primary')).toBe('orders-primary');
    expect(quote("it's here; rm -rf ~")).toBe(`'it'\\''s here; rm -rf ~'`);
  });
});

describe('stand-ins', () => {
  it('are marked in a pseudonymous line and nothing is lost', () => {
    const line = '11:26 WARN res-4 502 ip-7:3306 refused';
    const pieces = marked(line, 'pseudonyms');
    expect(pieces.filter((piece) => piece.standIn).map((piece) => piece.text)).toEqual(['res-4', 'ip-7']);
    expect(pieces.map((piece) => piece.text).join('')).toBe(line);
  });
  it('are not looked for where names are kept', () => {
    expect(marked('res-4', 'names')).toEqual([{ text: 'res-4', standIn: false }]);
  });
});
