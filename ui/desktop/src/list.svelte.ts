// What the list shows of the resources, and where in it a person is.
import { count, fits, inState, NO_FILTERS, type Filters } from '$lib/filter';
import type { Row } from '$lib/generated/types';
import { recentIds, sections, type Section } from '$lib/order';
import { search } from '$lib/search';

export class List {
  query = $state('');
  filters = $state.raw<Filters>(NO_FILTERS);
  focusedId = $state<string | null>(null);
  /** The resource whose details are open. */
  openId = $state<string | null>(null);
  marked = $state.raw<ReadonlySet<string>>(new Set());
  marking = $state(false);
  recents = $state.raw<readonly string[]>([]);

  readonly #rows: () => readonly Row[];

  constructor(rows: () => readonly Row[]) {
    this.#rows = rows;
  }

  readonly searching = $derived(this.query.trim() !== '');
  readonly filtered = $derived(this.filters.state !== 'all' || this.filters.kind !== null || this.filters.tags.length > 0);
  readonly found = $derived.by(() => (this.searching ? search(this.#rows(), this.query) : this.#rows()));
  readonly fitting = $derived(
    this.filters.kind === null && this.filters.tags.length === 0 ? this.found : this.found.filter((row) => fits(row, this.filters)),
  );
  readonly counts = $derived(count(this.fitting));
  readonly shown = $derived(this.filters.state === 'all' ? this.fitting : this.fitting.filter((row) => inState(row, this.filters.state)));
  readonly sections = $derived.by<Section[]>(() => {
    if (!this.searching) return sections(this.shown, this.recents);
    return this.shown.length > 0 ? [{ name: 'matches', rows: this.shown }] : [];
  });
  /** The rows as they follow each other. */
  readonly order = $derived<readonly Row[]>(
    this.sections.length === 1 ? (this.sections[0]?.rows ?? []) : this.sections.flatMap((section) => section.rows),
  );
  readonly #place = $derived(this.focusedId === null ? -1 : this.order.findIndex((row) => row.id === this.focusedId));
  /** How many rows match the search alone but not the filters. */
  readonly hidden = $derived(this.found.length - this.shown.length);
  /** The row that the keys are about: the focused one, else the first. */
  readonly current = $derived<Row | null>(this.order[Math.max(0, this.#place)] ?? null);

  refreshRecents(rows: Iterable<Row> = this.#rows()): void {
    this.recents = recentIds(rows);
  }

  /** After rows came or went: what is gone is no longer marked. */
  keepUp(byId: ReadonlyMap<string, Row>): void {
    if ([...this.marked].some((id) => !byId.has(id))) {
      this.marked = new Set([...this.marked].filter((id) => byId.has(id)));
      this.marking = this.marked.size > 0;
    }
  }

  focus(id: string | null): void {
    this.focusedId = id;
  }

  place(): number {
    return this.#place;
  }

  moveTo(place: number): void {
    const row = this.order[Math.min(this.order.length - 1, Math.max(0, place))];
    if (row) this.focusedId = row.id;
  }

  toggleMark(id: string): void {
    const marked = new Set(this.marked);
    if (!marked.delete(id)) marked.add(id);
    this.marked = marked;
    this.marking = marked.size > 0;
  }

  extend(by: number): void {
    const from = this.current;
    if (!from) return;
    const marked = new Set(this.marked).add(from.id);
    this.moveTo(Math.max(0, this.#place) + by);
    if (this.current) marked.add(this.current.id);
    this.marked = marked;
    this.marking = true;
  }

  markAll(): void {
    this.marked = new Set(this.order.map((row) => row.id));
    this.marking = this.marked.size > 0;
  }

  unmark(): void {
    this.marked = new Set();
    this.marking = false;
  }

  /** No search and no filters. */
  clear(): void {
    this.query = '';
    this.filters = NO_FILTERS;
  }
}
