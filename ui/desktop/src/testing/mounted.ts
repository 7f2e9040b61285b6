// Mounts the window on a practice backend, and takes it down after each test.
import type { View } from '$lib/generated/types';
import { Practice } from '$lib/memory';
import { scenario } from '$lib/memory/scenarios';
import { flushSync, mount, unmount } from 'svelte';
import { afterEach } from 'vitest';
import App from '../App.svelte';
import { Model } from '../model.svelte';

export interface Mounted {
  model: Model;
  backend: Practice;
}

afterEach(cleanup);

let taken: (() => Promise<void>)[] = [];

export async function mounted(name = 'design'): Promise<Mounted> {
  const view = scenario(name, Date.now());
  if (!view) throw new Error(`no scenario ${name}`);
  return mountedOn(view);
}

export async function mountedOn(view: View): Promise<Mounted> {
  const backend = new Practice(view, { millis: 0 });
  const model = new Model(backend);
  const target = document.createElement('div');
  target.id = 'app';
  document.body.append(target);
  const app = mount(App, { target, props: { model } });
  taken.push(async () => {
    await unmount(app);
    target.remove();
  });
  await settle();
  return { model, backend };
}

/** Lets promises, effects and short timers run. */
export async function settle(millis = 5): Promise<void> {
  await new Promise((done) => setTimeout(done, millis));
  flushSync();
  await new Promise((done) => setTimeout(done, 0));
}

export async function cleanup(): Promise<void> {
  const all = taken;
  taken = [];
  for (const take of all) await take();
  document.body.replaceChildren();
  delete document.documentElement.dataset.theme;
}

/** Presses a key on whatever has the focus. */
export async function press(key: string, options: KeyboardEventInit = {}): Promise<void> {
  (document.activeElement ?? document.body).dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true, ...options }));
  await settle();
}

export function row(name: string): HTMLElement {
  const found = document.querySelector<HTMLElement>(`[data-id="res_${name}"]`);
  if (!found) throw new Error(`no row ${name}`);
  return found;
}

/** The button with this accessible name. */
export function button(name: string, within: ParentNode = document): HTMLButtonElement {
  const all = [...within.querySelectorAll<HTMLButtonElement>('button, [role="menuitem"]')];
  const found = all.find((one) => (one.getAttribute('aria-label') ?? one.textContent ?? '').replace(/\s+/g, ' ').trim().startsWith(name));
  if (!found) throw new Error(`no button ${name} among ${all.map((one) => one.textContent?.trim()).join(' | ')}`);
  return found;
}
