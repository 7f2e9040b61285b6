// Maths of the virtual list: which rows are drawn, and where.

/** A list of groups, each with a heading above rows of one height. All lengths in px. */
export interface Layout {
  row: number;
  heading: number;
  /** How many rows each group has. */
  groups: readonly number[];
}

export interface Slice {
  group: number;
  /** First row drawn, and the one after the last. */
  from: number;
  to: number;
}

/** Height of group `index`. */
export function groupHeight(layout: Layout, index: number): number {
  return layout.heading + (layout.groups[index] ?? 0) * layout.row;
}

/** Height of everything. */
export function height(layout: Layout): number {
  return layout.groups.reduce((sum, _, index) => sum + groupHeight(layout, index), 0);
}

/** How many rows are drawn above and below the part that is seen, so that quick scrolling shows no gaps. */
export const SPARE = 8;

/** The rows to draw for each group when `top..top + view` is seen. */
export function slices(layout: Layout, top: number, view: number, spare = SPARE): Slice[] {
  let start = 0;
  return layout.groups.map((rows, group) => {
    const first = start + layout.heading;
    start += groupHeight(layout, group);
    const from = Math.floor((top - first) / layout.row) - spare;
    const to = Math.ceil((top + view - first) / layout.row) + spare;
    return { group, from: clamp(from, 0, rows), to: clamp(to, 0, rows) };
  });
}

/** Where row `index` (counted through all groups) is: its group, its place there and its distance from the top. */
export function locate(layout: Layout, index: number): { group: number; row: number; top: number } | null {
  let start = 0;
  let left = index;
  for (let group = 0; group < layout.groups.length; group += 1) {
    const rows = layout.groups[group] ?? 0;
    if (left >= 0 && left < rows) return { group, row: left, top: start + layout.heading + left * layout.row };
    left -= rows;
    start += groupHeight(layout, group);
  }
  return null;
}

/** Where to scroll so that row `index` is seen whole, below the sticky heading; `top` itself when it is. */
export function reveal(layout: Layout, index: number, top: number, view: number): number {
  const place = locate(layout, index);
  if (!place) return top;
  // The heading stays at the top of the list, above the row.
  const above = place.top - layout.heading;
  if (above < top) return Math.max(0, above);
  const below = place.top + layout.row;
  return below > top + view ? below - view : top;
}

/** How many rows a page key moves. */
export function page(layout: Layout, view: number): number {
  return Math.max(1, Math.floor((view - layout.heading) / layout.row) - 1);
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}
