// Ctrl + and Ctrl -: the page grows up to twice its size; the list folds its columns by its own width.
const STEPS = [0.8, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2];
let step = STEPS.indexOf(1);

export function zoom(action: 'zoom_in' | 'zoom_out' | 'zoom_reset'): void {
  step = action === 'zoom_reset' ? STEPS.indexOf(1) : Math.min(STEPS.length - 1, Math.max(0, step + (action === 'zoom_in' ? 1 : -1)));
  document.body.style.setProperty('zoom', String(STEPS[step] ?? 1));
}
