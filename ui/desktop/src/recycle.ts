// Which drawn row gets which element: making elements is what typing and scrolling would cost most.

/** Gives each drawn row a key. Rows that stay keep theirs; new ones take those of rows that went. */
export class Recycler {
  #keys = new Map<string, number>();
  #next = 0;

  /**
   * The keys of `ids`, in their order. The element of `pinned` (the row that has the focus) is given to no other row, or
   * the focus would be on another resource all of a sudden.
   */
  keys(ids: readonly string[], pinned: string | null): number[] {
    const drawn = new Set(ids);
    const free: number[] = [];
    for (const [id, key] of this.#keys) if (!drawn.has(id) && id !== pinned) free.push(key);
    // The lowest first, so that neighbours tend to stay neighbours.
    free.reverse();
    const before = this.#keys;
    this.#keys = new Map(ids.map((id) => [id, before.get(id) ?? free.pop() ?? this.#next++]));
    return [...this.#keys.values()];
  }
}
