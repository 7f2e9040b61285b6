// What the palette offers for a query: resources with their obvious action first, then commands. Pure.
import { passes } from '$lib/filter';
import type { Row } from '$lib/generated/types';
import type { IconName } from '$lib/components/icons';
import type { Words } from '$lib/i18n/en';
import { search, words as wordsOf } from '$lib/search';

export type Act =
  | { act: 'toggle' | 'details' | 'copy_address' | 'copy_command' | 'favourite'; id: string }
  | { act: 'open'; id: string; tool: string | null }
  | { act: 'tag_connect' | 'tag_disconnect' | 'tag_copy' | 'tag_show'; tag: string }
  | { act: CommandAct };

type CommandAct =
  | 'connect_all' | 'connect_favourites' | 'disconnect_all' | 'lock' | 'settings' | 'diagnostics' | 'export' | 'network'
  | 'about' | 'theme' | 'sign_out' | 'quit';

export interface Entry {
  key: string;
  /** The verb, and what it is about (bold, and where the query is marked). */
  verb: string;
  object: string;
  icon: IconName;
  /** The resource whose tile is shown instead of the icon. */
  row: Row | null;
  after: string;
  /** The same in a shell, where there is such a command. */
  shell: string | null;
  act: Act;
}

export interface Offer {
  name: 'recents' | 'resources' | 'commands' | 'actions';
  entries: Entry[];
}

const MOST_ROWS = 8;
const MOST_TAGS = 1;

export interface Source {
  rows: readonly Row[];
  recents: readonly string[];
  wanted: (row: Row) => boolean;
  words: Words;
  count: (n: number) => string;
}

export function offers(query: string, source: Source): Offer[] {
  const asked = wordsOf(query);
  const rows = asked.length === 0 ? latest(source) : search(source.rows, query).slice(0, MOST_ROWS);
  const found: Offer[] = [
    { name: asked.length === 0 ? 'recents' : 'resources', entries: rows.map((row) => toggle(row, source)) },
    { name: 'commands', entries: [...tagged(query, source), ...commands(asked, source)] },
  ];
  return found.filter((offer) => offer.entries.length > 0);
}

/** Everything that can be done with one resource: what Tab shows. */
export function actions(row: Row, source: Source, tools: readonly { id: string; name: string }[]): Offer[] {
  const { words } = source;
  const name = quote(row.name);
  const one = (verb: string, icon: IconName, shell: string | null, act: Act): Entry => ({
    key: `${act.act} ${'tool' in act ? act.tool : ''}`, verb, object: row.name, icon, row: null, after: '', shell, act,
  });
  const entries = [
    toggle(row, source),
    one(words.palette.copyAddress, 'copy', null, { act: 'copy_address', id: row.id }),
    one(words.palette.copyCommand, 'copy', `postern command ${name}`, { act: 'copy_command', id: row.id }),
    one(words.palette.details, 'info', null, { act: 'details', id: row.id }),
    ...tools.map((tool) => one(`${words.detail.openIn(tool.name)}:`, 'open', null, { act: 'open', id: row.id, tool: tool.id })),
    one(row.favourite === null ? words.palette.favourite : words.palette.unfavourite, 'star', null, { act: 'favourite', id: row.id }),
  ];
  return [{ name: 'actions', entries }];
}

function latest({ rows, recents }: Source): Row[] {
  const places = new Map(recents.map((id, place) => [id, place]));
  const favourites = rows.filter((row) => row.favourite !== null).sort((a, b) => (a.favourite ?? 0) - (b.favourite ?? 0));
  const recent = rows.filter((row) => row.favourite === null && places.has(row.id)).sort((a, b) => (places.get(a.id) ?? 0) - (places.get(b.id) ?? 0));
  return [...recent, ...favourites].slice(0, 5);
}

function toggle(row: Row, { wanted, words }: Source): Entry {
  const on = wanted(row);
  return {
    key: `toggle ${row.id}`,
    verb: row.state === 'needs_approval' ? words.list.request : on ? words.palette.disconnect : words.palette.connect,
    object: row.name,
    icon: row.kind,
    row,
    after: row.dns_name ?? row.address,
    shell: row.state === 'needs_approval' ? null : `postern ${on ? 'disconnect' : 'connect'} ${quote(row.name)}`,
    act: { act: 'toggle', id: row.id },
  };
}

function tagged(query: string, { rows, words, count }: Source): Entry[] {
  const text = query.trim().toLowerCase();
  if (text.length < 2) return [];
  const counts = new Map<string, number>();
  for (const row of rows) for (const tag of row.tags) if (tag.toLowerCase().includes(text)) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  const tags = [...counts].sort((a, b) => Number(b[0].toLowerCase().startsWith(text)) - Number(a[0].toLowerCase().startsWith(text)) || b[1] - a[1]).slice(0, MOST_TAGS);
  return tags.flatMap(([tag, n]): Entry[] => {
    const some = (verb: string, icon: IconName, shell: string | null, act: Act): Entry => ({ key: `${act.act} ${tag}`, verb, object: tag, icon, row: null, after: '', shell, act });
    const filter = quote(`tags:${tag}`);
    return [
      { ...some(words.palette.connectTag, 'plug', `postern connect --filter ${filter}`, { act: 'tag_connect', tag }), after: words.palette.nResources(count(n), n) },
      some(words.palette.disconnectTag, 'power', `postern disconnect --filter ${filter}`, { act: 'tag_disconnect', tag }),
      some(words.palette.copyTag, 'copy', null, { act: 'tag_copy', tag }),
      some(words.palette.showTag, 'search', `postern resources --filter ${filter}`, { act: 'tag_show', tag }),
    ];
  });
}

function commands(asked: readonly string[], { rows, words }: Source): Entry[] {
  const { palette } = words;
  const open = rows.some((row) => passes(row.state) || row.wanted);
  const all: (Entry & { hidden?: boolean })[] = [
    command('connect_all', palette.connectAll, 'plug', 'postern connect --all'),
    { ...command('connect_favourites', palette.connectFavourites, 'star', null), hidden: !rows.some((row) => row.favourite !== null) },
    { ...command('disconnect_all', palette.disconnectAll, 'power', 'postern disconnect --all'), hidden: !open },
    command('lock', palette.lock, 'lock', 'postern lock'),
    command('settings', palette.settings, 'gear', null),
    command('diagnostics', palette.diagnostics, 'pulse', 'postern doctor'),
    command('export', palette.export, 'file', null),
    command('network', palette.network, 'net', null),
    command('theme', palette.theme, 'eye', null),
    command('about', palette.about, 'info', 'postern version'),
    command('sign_out', palette.signOut, 'key', 'postern logout'),
    command('quit', palette.quit, 'x', null),
  ];
  return all.filter((entry) => !entry.hidden && asked.every((word) => entry.verb.toLowerCase().includes(word)));
}

function command(act: CommandAct, verb: string, icon: IconName, shell: string | null): Entry {
  return { key: act, verb, object: '', icon, row: null, after: '', shell, act: { act } };
}

/** A name as a shell takes it. */
export function quote(name: string): string {
  return /^[A-Za-z0-9_.:=@/+-]+$/.test(name) ? name : `'${name.replaceAll("'", `'\\''`)}'`;
}
