import { app, inApp, type Backend } from '$lib/backend';
import '$lib/style/tokens.css';
import '$lib/style/base.css';
import '$lib/style/frame.css';
import '$lib/style/screens.css';
import { mount } from 'svelte';
import App from './App.svelte';
import { Model } from './model.svelte';

/** In a plain browser (`npm run dev`) the page runs on data of its own. */
async function backend(): Promise<Backend> {
  if (import.meta.env.DEV && !inApp()) {
    const { practice } = await import('$lib/memory');
    return practice(new URLSearchParams(location.search));
  }
  return app;
}

const target = document.getElementById('app');
if (target) mount(App, { target, props: { model: new Model(await backend()) } });
