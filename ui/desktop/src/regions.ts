// F6 moves through the parts of the window: header, banner, list, detail, footer.

/** Focuses the next part that can take the focus; a part is an element with `data-region`. */
export function nextRegion(by: 1 | -1): void {
  const regions = [...document.querySelectorAll<HTMLElement>('[data-region]')].filter((region) => target(region));
  if (regions.length === 0) return;
  const at = regions.findIndex((region) => region.contains(document.activeElement));
  const next = regions[(at + by + regions.length + (at < 0 && by < 0 ? 1 : 0)) % regions.length];
  if (next) target(next)?.focus();
}

function target(region: HTMLElement): HTMLElement | null {
  const chosen = region.querySelector<HTMLElement>('[data-region-focus]');
  if (chosen) return chosen;
  if (region.tabIndex >= 0) return region;
  return region.querySelector<HTMLElement>('button:not([disabled]), input, [tabindex="0"], a[href]');
}
