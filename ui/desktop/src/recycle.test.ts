import { describe, expect, it } from 'vitest';
import { Recycler } from './recycle';

describe('elements of rows', () => {
  it('stay with their rows, and go over from rows that went to rows that came', () => {
    const recycler = new Recycler();
    expect(recycler.keys(['a', 'b', 'c'], null)).toEqual([0, 1, 2]);
    expect(recycler.keys(['b', 'c', 'd'], null)).toEqual([1, 2, 0]);
    expect(recycler.keys(['x', 'y'], null)).toEqual([1, 2]);
    expect(recycler.keys(['x', 'y', 'z'], null)).toEqual([1, 2, 3]);
  });

  it('never show another resource where the focus is', () => {
    const recycler = new Recycler();
    recycler.keys(['a', 'b'], 'a');
    expect(recycler.keys(['c', 'b'], 'a')).toEqual([2, 1]);
    expect(recycler.keys(['c', 'b'], 'c')).toEqual([2, 1]);
  });

  it('are as many as rows are drawn at most', () => {
    const recycler = new Recycler();
    for (let from = 0; from < 500; from += 7) {
      const ids = Array.from({ length: 30 }, (_, n) => `row ${from + n}`);
      const keys = recycler.keys(ids, null);
      expect(new Set(keys).size).toBe(30);
      expect(Math.max(...keys)).toBeLessThan(30);
    }
  });
});
