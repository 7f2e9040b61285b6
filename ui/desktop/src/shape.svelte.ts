// How large the window is for its content: its size by the page's zoom. Folds follow this, so that larger text folds
// columns as a smaller window would.
const STEPS = [0.8, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2];

let step = $state(STEPS.indexOf(1));
let outer = $state.raw({ width: 1000, height: 700 });

const scale = (): number => STEPS[step] ?? 1;

/** Width and height in px of the page. */
export const width = (): number => outer.width / scale();
export const height = (): number => outer.height / scale();

/** Below this the details take the place of the list. */
export const ONE_PANE = 720;
const LESS = 900;
const SHORT = 560;

/** Width of the list beside its details. */
export function listWidth(withDetails: boolean): number {
  if (!withDetails || width() < ONE_PANE) return width();
  return width() - (width() < LESS ? 320 : 360);
}

export function measure(): void {
  outer = { width: window.innerWidth, height: window.innerHeight };
}

export function zoom(action: 'zoom_in' | 'zoom_out' | 'zoom_reset'): void {
  step = action === 'zoom_reset' ? STEPS.indexOf(1) : Math.min(STEPS.length - 1, Math.max(0, step + (action === 'zoom_in' ? 1 : -1)));
}

/** Tells the styles. */
export function apply(): void {
  const root = document.documentElement;
  root.classList.toggle('medium', width() < LESS);
  root.classList.toggle('small', width() < ONE_PANE);
  root.classList.toggle('short', height() < SHORT);
  root.style.setProperty('--window-height', `${Math.round(height())}px`);
  document.body.style.setProperty('zoom', String(scale()));
  // WebKit applies the zoom to strokes of an SVG twice.
  root.style.setProperty('--overzoom', navigator.vendor.startsWith('Apple') ? String(scale()) : '1');
}
