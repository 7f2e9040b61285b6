import { describe, expect, it } from 'vitest';
import { groupHeight, height, locate, page, reveal, slices, type Layout } from './pane';

const layout: Layout = { row: 44, heading: 30, groups: [3, 4, 9993] };

describe('the virtual list', () => {
  it('is as high as all its rows and headings', () => {
    expect(height(layout)).toBe(3 * 30 + 10_000 * 44);
    expect(groupHeight(layout, 0)).toBe(30 + 132);
  });

  it('draws what is seen and a few more', () => {
    const drawn = slices(layout, 0, 600);
    expect(drawn[0]).toEqual({ group: 0, from: 0, to: 3 });
    expect(drawn[2]!.from).toBe(0);
    expect(drawn.reduce((sum, slice) => sum + slice.to - slice.from, 0)).toBeLessThan(32);
  });

  it('draws few rows wherever it is scrolled to', () => {
    for (let top = 0; top < height(layout); top += 9973) {
      const rows = slices(layout, top, 600).reduce((sum, slice) => sum + slice.to - slice.from, 0);
      expect(rows).toBeGreaterThan(10);
      expect(rows).toBeLessThan(40);
    }
  });

  it('covers the part that is seen without a gap', () => {
    for (const top of [0, 5000, 123_456, height(layout) - 600]) {
      for (let index = 0; index < 10_000; index += 1) {
        const place = locate(layout, index)!;
        if (place.top + layout.row <= top || place.top >= top + 600) continue;
        const slice = slices(layout, top, 600)[place.group]!;
        expect(place.row).toBeGreaterThanOrEqual(slice.from);
        expect(place.row).toBeLessThan(slice.to);
        index += 7;
      }
    }
  });

  it('knows where a row is', () => {
    expect(locate(layout, 0)).toEqual({ group: 0, row: 0, top: 30 });
    expect(locate(layout, 3)).toEqual({ group: 1, row: 0, top: 30 + 132 + 30 });
    expect(locate(layout, 10_000)).toBeNull();
    expect(locate(layout, -1)).toBeNull();
  });

  it('scrolls only when a row is not seen whole', () => {
    expect(reveal(layout, 2, 0, 600)).toBe(0);
    const down = reveal(layout, 100, 0, 600);
    expect(locate(layout, 100)!.top + 44).toBe(down + 600);
    // Going up, the row stands below the sticky heading.
    expect(reveal(layout, 50, 100_000, 600)).toBe(locate(layout, 50)!.top - 30);
    expect(reveal(layout, 0, 100_000, 600)).toBe(0);
  });

  it('pages by what is seen, at least by one', () => {
    expect(page(layout, 600)).toBe(11);
    expect(page(layout, 10)).toBe(1);
  });

  it('has nothing to draw in an empty list', () => {
    expect(slices({ row: 44, heading: 30, groups: [] }, 0, 600)).toEqual([]);
  });
});
