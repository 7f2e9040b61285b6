// Every screen in every state: it stands, and axe finds nothing to mend. Contrast is computed from the tokens, in
// `tokens.test.ts`: jsdom draws nothing.
import axe from 'axe-core';
import { describe, expect, it } from 'vitest';
import type { Model } from './model.svelte';
import type { View } from '$lib/generated/types';
import { button, mounted, mountedOn, press, row, settle } from './testing/mounted';

async function violations(): Promise<string[]> {
  const found = await axe.run(document.documentElement, {
    rules: { 'color-contrast': { enabled: false } },
    resultTypes: ['violations'],
  });
  return found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).join('\n  ')}`);
}

const SCREENS: [name: string, scenario: string, go?: (model: Model) => unknown][] = [
  ['list', 'design'],
  ['list of 10,000', '10000'],
  ['empty list', '0'],
  ['loading', 'loading'],
  ['starting', 'starting'],
  ['sign-in', 'signed-out'],
  ['first sign-in', 'new'],
  ['lock', 'locked'],
  ['banner', 'health'],
  ['several health items', 'errors', () => button('and 2 more').click()],
  ['offline', 'offline'],
  ['service gone', 'service-gone'],
  ['other version', 'versions'],
  ['sign-in about to end', 'expiring'],
  ['locked keyring', 'keyring', (model) => (model.page = 'keys')],
  ['virtual network', 'network'],
  ['quit question', 'quit'],
  ['link question', 'link'],
  ['unknown link', 'link-unknown'],
  ['search', 'design', (model) => (model.list.query = 'prod')],
  ['no match', 'design', (model) => (model.list.query = 'zzzz')],
  ['nothing in this filter', '40', (model) => (model.list.filters = { state: 'attention', kind: 'ssh', tags: ['nothing'] })],
  ['detail', 'design', (model) => model.go({ place: 'resource', id: 'res_orders-primary' })],
  ['unhealthy detail', 'design', (model) => model.go({ place: 'resource', id: 'res_billing-replica' })],
  ['detail that needs approval', 'design', (model) => model.go({ place: 'resource', id: 'res_ledger-archive' })],
  ['detail that is off', 'design', (model) => model.go({ place: 'resource', id: 'res_orders-staging' })],
  ['selection', 'design', (model) => model.list.markAll()],
  ['palette', 'design', (model) => (model.palette = true)],
  ['sign out question', 'design', (model) => (model.asking = 'sign_out')],
  ['renewal', 'design', (model) => (model.page = 'renew')],
  ['password', 'design', (model) => (model.page = 'password')],
  ['settings: general', 'design', (model) => model.showSettings('general')],
  ['settings: connections', 'design', (model) => model.showSettings('connections')],
  ['settings: connections, names left out', 'network-left-out', (model) => model.showSettings('connections')],
  ['settings: connections, network refused', 'network-refused', (model) => model.showSettings('connections')],
  ['settings: notifications', 'design', (model) => model.showSettings('notifications')],
  ['settings: shortcuts', 'design', (model) => model.showSettings('shortcuts')],
  ['settings: updates', 'design', (model) => model.showSettings('updates')],
  ['settings: keys', 'keyring', (model) => model.showSettings('keys')],
  ['about', 'design', (model) => model.showSettings('about')],
  ['guide', 'design', (model) => (model.page = 'guide')],
  ['guide: refused', 'network-refused', (model) => (model.page = 'guide')],
  ['guide: up', 'network', (model) => (model.page = 'guide')],
  ['guide: names left out', 'network-left-out', (model) => (model.page = 'guide')],
  ['doctor', 'design', (model) => model.showDiagnostics()],
  ['events', 'errors', (model) => model.showDiagnostics('events')],
  ['export', 'design', (model) => model.showDiagnostics('export')],
  ['in German', 'design', (model) => model.change({ language: 'de' })],
  ['account menu', 'design', () => press(' ', {}).then(() => button('Northwind').dispatchEvent(new PointerEvent('pointerdown', { bubbles: true, button: 0 })))],
];

describe('axe finds nothing to mend', () => {
  it.each(SCREENS)('%s', async (_, scenario, go) => {
    const { model } = await mounted(scenario);
    await go?.(model);
    await settle(20);
    expect(await violations()).toEqual([]);
  });
});

// Written by the same Rust that serves the window (`postern-desktop --mock`).
const FIXTURES = import.meta.glob<View>('../../src/lib/generated/fixtures/*.json', { import: 'default', eager: true });

describe('what the app itself sends stands, in both languages', () => {
  it.each(Object.entries(FIXTURES))('%s', async (_, view) => {
    const { model } = await mountedOn(structuredClone(view));
    expect(model.rows).toHaveLength(view.rows.length);
    const [worst] = [...view.rows].sort((a, b) => Number(b.trouble !== null) - Number(a.trouble !== null));
    if (worst && model.signIn.state === 'signed_in') model.go({ place: 'resource', id: worst.id });
    await settle(20);
    expect(await violations()).toEqual([]);
    await model.change({ language: 'de' });
    await settle(10);
    expect(document.body.textContent).not.toMatch(/undefined|NaN|\[object/);
  });

  it('is there at all', () => {
    expect(Object.keys(FIXTURES).length).toBeGreaterThan(10);
  });
});

describe('the list', () => {
  it('draws only the rows that are seen of 10,000', async () => {
    await mounted('10000');
    const drawn = document.querySelectorAll('[role="row"][data-id]').length;
    expect(drawn).toBeGreaterThan(5);
    expect(drawn).toBeLessThan(60);
    expect(document.querySelector('[role="grid"]')?.getAttribute('aria-rowcount')).toBe('10000');
  });

  it('reads a row as a person would', async () => {
    await mounted();
    expect(row('orders-primary').getAttribute('aria-label')).toBe('orders-primary, postgres, prod, eu, team=payments, 127.0.0.1:15432, Connected');
  });

  it('moves with the arrows and keeps one tab stop', async () => {
    const { model } = await mounted();
    row('orders-primary').focus();
    await press('ArrowDown');
    expect(document.activeElement).toBe(row('search-prod-eu'));
    await press('End');
    expect(model.list.current?.name).toBe('vault-admin');
    expect(document.querySelectorAll('[role="row"][tabindex="0"]')).toHaveLength(1);
  });

  it('has the focus when the window opens, and takes keys that nothing else has', async () => {
    const { model } = await mounted();
    expect(document.activeElement).toBe(row('orders-primary'));
    (document.activeElement as HTMLElement).blur();
    await press('/');
    expect(document.activeElement?.id).toBe('search');
    expect(model.list.query).toBe('');
  });

  it('lets the search be reached from a filter that was clicked', async () => {
    const { model } = await mounted();
    document.querySelector<HTMLElement>('.filters button, [role="radio"]')?.focus();
    await press('/');
    expect(document.activeElement?.id).toBe('search');
    await press('/');
    expect(model.list.query, 'in the field it is a letter').toBe('');
  });

  it('never recycles the focused row', async () => {
    const { model } = await mounted('10000');
    model.list.focus('res_9000');
    await settle();
    const far = document.querySelector('[data-id="res_9000"]');
    expect(far).not.toBeNull();
    document.querySelector('.list')?.dispatchEvent(new Event('scroll'));
    await settle();
    expect(document.querySelector('[data-id="res_9000"]')).toBe(far);
  });

  it('connects with Enter, and shows the wish at once and the fact when it comes', async () => {
    const { backend, model } = await mounted();
    row('orders-staging').focus();
    await press('Enter');
    expect(backend.calls).toContainEqual({ name: 'connect', args: { which: { which: 'ids', ids: ['res_orders-staging'] } } });
    await settle(20);
    expect(model.row('res_orders-staging')?.state).toBe('connected');
    expect(row('orders-staging').querySelector('[role="switch"]')?.getAttribute('aria-checked')).toBe('true');
  });

  it('announces what became of the focused row, and of no other', async () => {
    const { backend, model } = await mounted();
    row('orders-primary').focus();
    const [first, second] = backend.view.rows;
    backend.put({ ...second!, state: 'unhealthy' });
    await settle();
    expect(model.said + model.cried).not.toContain('search-prod-eu');
    backend.put({ ...first!, state: 'unhealthy' });
    await settle();
    expect(model.cried).toBe('orders-primary: Unhealthy');
  });

  it('copies address and command with C and Shift C', async () => {
    const { backend } = await mounted();
    row('orders-primary').focus();
    await press('c');
    await press('C', { shiftKey: true });
    expect(backend.calls.filter((call) => call.name === 'copy').map((call) => call.args)).toEqual([
      { clip: { clip: 'addresses', ids: ['res_orders-primary'] } },
      { clip: { clip: 'commands', ids: ['res_orders-primary'] } },
    ]);
  });

  it('opens details with Space and closes them with Esc, which returns to the row', async () => {
    const { model } = await mounted();
    row('orders-primary').focus();
    await press(' ');
    expect(model.list.openId).toBe('res_orders-primary');
    expect(document.querySelector('aside')?.getAttribute('aria-label')).toBe('Details of orders-primary');
    document.querySelector<HTMLElement>('aside button')?.focus();
    await press('Escape');
    expect(model.list.openId).toBeNull();
    expect(document.activeElement).toBe(row('orders-primary'));
  });

  it('selects with X, extends with Shift and arrows, and counts what each part will change', async () => {
    const { model } = await mounted();
    row('grafana').focus();
    await press('x');
    await press('ArrowDown', { shiftKey: true });
    expect(model.list.marked.size).toBe(2);
    expect(button('Connect 1').disabled).toBe(false);
    expect(button('Disconnect 1').disabled).toBe(false);
    await press('Escape');
    expect(model.list.marking).toBe(false);
  });

  it('starts the search with a letter that has no meaning', async () => {
    const { model } = await mounted();
    row('orders-primary').focus();
    await press('g');
    expect(model.list.query).toBe('g');
    expect(document.activeElement?.id).toBe('search');
    await press('ArrowDown');
    expect((document.activeElement as HTMLElement).dataset.id).toBe(model.list.order[0]?.id);
  });

  it('keeps its order while programs use resources', async () => {
    const { backend, model } = await mounted();
    const before = model.list.order.map((one) => one.id);
    const last = backend.view.rows.find((one) => one.name === 'vault-admin')!;
    backend.put({ ...last, recent: 0 });
    await settle();
    expect(model.list.order.map((one) => one.id)).toEqual(before);
    window.dispatchEvent(new Event('blur'));
    await settle();
    expect(model.list.sections[1]?.rows[0]?.name).toBe('vault-admin');
  });

  it('forgets a resource that is gone, and its details', async () => {
    const { backend, model } = await mounted();
    model.go({ place: 'resource', id: 'res_grafana' });
    await settle();
    backend.send({ change: 'rows_removed', ids: ['res_grafana'] });
    await settle();
    expect(model.list.openId).toBeNull();
    expect(document.querySelector('aside')).toBeNull();
    expect(model.rows.some((one) => one.name === 'grafana')).toBe(false);
  });

  it('goes through the parts of the window with F6', async () => {
    await mounted('health');
    const seen: (string | undefined)[] = [];
    for (let n = 0; n < 4; n += 1) {
      await press('F6');
      seen.push(document.activeElement?.closest<HTMLElement>('[data-region]')?.dataset.region);
    }
    expect(seen).toEqual(['header', 'banner', 'list', 'header']);
  });
});

describe('a banner', () => {
  it.each([
    ['nothing but to hide it where an update is ready', 'update_ready', ['Hide']],
    ['a diagnosis of what is wrong', 'clock_skew', ['Diagnose', 'Hide']],
  ])('offers %s', async (_, code, offers) => {
    const view = structuredClone(FIXTURES['../../src/lib/generated/fixtures/update.json']!);
    for (const item of view.service.health) item.code = code;
    await mountedOn(view);
    const buttons = [...document.querySelectorAll<HTMLElement>('.banners button')];
    expect(buttons.map((one) => one.getAttribute('aria-label') ?? one.textContent?.trim())).toEqual(offers);
  });
});

describe('a service that is away', () => {
  it('leaves the list as it was, but draws no gate open', async () => {
    const { backend } = await mounted('service-gone');
    expect(row('orders-primary').dataset.state).toBe('off');
    expect(row('orders-primary').getAttribute('aria-label')).toContain('Not known');
    row('orders-primary').focus();
    await press('Enter');
    expect(backend.calls.some((call) => call.name === 'disconnect')).toBe(false);
    button('Start it').click();
    await settle();
    expect(row('orders-primary').dataset.state).toBe('connected');
  });
});

describe('the palette', () => {
  it('opens with Ctrl K and does what is chosen', async () => {
    const { backend, model } = await mounted();
    await press('k', { ctrlKey: true });
    const field = document.querySelector<HTMLInputElement>('[role="combobox"]')!;
    field.value = 'orders-staging';
    field.dispatchEvent(new Event('input', { bubbles: true }));
    await settle();
    expect(document.querySelector('[role="option"][aria-selected="true"]')?.textContent).toContain('orders-staging');
    expect(document.querySelector('.below code')?.textContent).toBe('postern connect orders-staging');
    field.focus();
    await press('Enter');
    expect(backend.calls.at(-1)?.name).toBe('connect');
    expect(model.palette).toBe(false);
  });
});

describe('sign-in', () => {
  it('says at the field what was wrong, and keeps what was typed', async () => {
    const { backend } = await mounted('signed-out');
    const submit = async (): Promise<void> => {
      document.querySelector('form')?.dispatchEvent(new SubmitEvent('submit', { bubbles: true, cancelable: true }));
      await settle(10);
    };
    await submit();
    const field = document.querySelector<HTMLInputElement>('#password')!;
    field.value = 'wrong';
    field.dispatchEvent(new Event('input', { bubbles: true }));
    await submit();
    expect(field.getAttribute('aria-invalid')).toBe('true');
    expect(document.querySelector('[role="alert"]')?.textContent).toContain('That password does not match.');
    expect(document.activeElement).toBe(field);
    field.value = 'right';
    field.dispatchEvent(new Event('input', { bubbles: true }));
    await submit();
    expect(backend.calls.filter((call) => call.name === 'sign_in')).toHaveLength(2);
    expect(document.querySelector('[role="grid"]')).not.toBeNull();
  });

  it('takes Enter in the fingerprint for the button, not for a new line', async () => {
    const { backend } = await mounted('new');
    const type = (id: string, text: string): void => {
      const field = document.querySelector<HTMLInputElement | HTMLTextAreaElement>(id)!;
      field.value = text;
      field.dispatchEvent(new Event('input', { bubbles: true }));
      field.focus();
    };
    const submit = async (): Promise<void> => {
      document.querySelector('form')?.requestSubmit();
      await settle(10);
    };
    type('#address', 'private.example');
    type('#email', 'mara@private.example');
    await submit();
    type('#password', 'right');
    await submit();
    type('#fingerprint', 'ab12');
    await press('Enter');
    await settle(10);
    const asked = backend.calls.filter((call) => call.name === 'sign_in');
    expect(asked).toHaveLength(2);
    expect(JSON.stringify(asked[1])).toContain('"sha256":"ab12"');
    expect(document.querySelector('[role="grid"]')).not.toBeNull();
  });
});

describe('a larger text', () => {
  it('folds the window as a smaller one would, and back', async () => {
    await mounted();
    const root = document.documentElement.classList;
    expect(root.contains('small')).toBe(false);
    for (let n = 0; n < 5; n += 1) await press('+', { ctrlKey: true });
    expect(document.body.style.getPropertyValue('zoom')).toBe('2');
    expect(root.contains('small')).toBe(true);
    expect(document.querySelector('.list-body')?.classList.contains('narrow')).toBe(true);
    await press('0', { ctrlKey: true });
    expect(root.contains('small')).toBe(false);
    expect(document.querySelector('.list-body')?.classList.contains('wide')).toBe(true);
  });
});

describe('settings', () => {
  it('apply at once, and fall back when they cannot be kept', async () => {
    const { backend, model } = await mounted();
    model.showSettings('general');
    await settle();
    button('Dark').click();
    await settle();
    expect(document.documentElement.dataset.theme).toBe('dark');
    backend.refuse('save_settings', { code: 'disk_full', what: 'The settings could not be kept.', why: '', remedy: '', field: null });
    button('Light').click();
    await settle();
    expect(document.documentElement.dataset.theme).toBe('dark');
    expect(document.querySelector('.notices')?.textContent).toContain('The settings could not be kept.');
  });

  it('speak German when asked, the whole window with them', async () => {
    const { model } = await mounted();
    await model.change({ language: 'de' });
    await settle();
    expect(document.documentElement.lang).toBe('de');
    expect(row('orders-primary').getAttribute('aria-label')).toContain('Verbunden');
  });

  it('turn one kind of notification off and leave the others', async () => {
    const { backend, model } = await mounted();
    model.showSettings('notifications');
    await settle();
    button('Access ended').click();
    await settle();
    expect(backend.view.settings.muted).toEqual(['access_lost']);
  });
});

describe('a port of one’s own', () => {
  it('is refused with its reason and a free one beside it', async () => {
    const { backend, model } = await mounted();
    model.go({ place: 'resource', id: 'res_grafana' });
    await settle(10);
    const field = document.querySelector<HTMLInputElement>('aside form input')!;
    const type = async (text: string): Promise<void> => {
      field.value = text;
      field.dispatchEvent(new Event('input', { bubbles: true }));
      await settle(10);
    };
    await type('8080');
    expect(field.getAttribute('aria-invalid')).toBe('true');
    expect(document.querySelector('aside form')?.textContent).toContain('java (pid 4127) holds it.');
    await type('x');
    expect(document.querySelector('aside form')?.textContent).toContain('A port is a number.');
    await type('18301');
    document.querySelector('aside form')?.dispatchEvent(new SubmitEvent('submit', { bubbles: true, cancelable: true }));
    await settle(10);
    expect(backend.calls).toContainEqual({ name: 'set_override', args: { id: 'res_grafana', port: 18301 } });
  });
});

describe('the guide', () => {
  it('goes through its steps, and tries one name at the end', async () => {
    const { model } = await mounted();
    model.page = 'guide';
    await settle();
    expect(document.querySelector('[aria-current="step"] h2')?.textContent).toBe('Authorise the network helper');
    const first = document.querySelector('.steps li');
    expect(first?.className, 'nobody has looked yet').toContain('ahead');
    button('Authorise').click();
    await settle(10);
    expect(first?.className).toContain('done');
    expect(document.querySelector('[aria-current="step"] h2')?.textContent).toBe('Try one resource');
  });

  it('does not list hundreds of zones', async () => {
    const { model } = await mounted('network-many-zones');
    model.page = 'guide';
    await settle();
    const step = document.querySelectorAll('.steps li')[2]?.textContent ?? '';
    expect(step).toContain('.zone-7.example and 504 more');
    expect(step).not.toContain('zone-8.example');
  });

  it('says at its step why it failed, and how to go back', async () => {
    const { backend, model } = await mounted('network-refused');
    model.page = 'guide';
    await settle();
    expect(document.querySelector('li.failed h2')?.textContent).toBe('Authorise the network helper');
    button('Stay with loopback').click();
    await settle(10);
    expect(backend.calls).toContainEqual({ name: 'set_network', args: { enabled: false } });
  });
});

describe('diagnostics', () => {
  it('show results as they come, then what is to be mended', async () => {
    const { model } = await mounted();
    model.showDiagnostics();
    await settle();
    expect(document.querySelector('[role="progressbar"]')).not.toBeNull();
    await settle(400);
    expect(document.querySelector('h1')?.textContent).toBe('2 things to mend');
  });

  it('preview the export again for each level of redaction', async () => {
    const { model } = await mounted();
    model.showDiagnostics('export');
    await settle(10);
    expect(document.querySelector('pre ins')?.textContent).toBe('res-4');
    button('Names kept').click();
    await settle(10);
    expect(document.querySelector('pre')?.textContent).toContain('billing-replica');
    button('Save file').click();
    await settle(10);
    expect(document.body.textContent).toContain('Saved as ~/Downloads/');
  });
});

describe('questions', () => {
  it('open on the safest button, and Esc is no answer that changes anything', async () => {
    const { backend } = await mounted('quit');
    await settle(30);
    expect(document.activeElement?.textContent).toBe('Keep connected');
    button('Disconnect and quit').click();
    await settle();
    expect(backend.calls).toContainEqual({ name: 'answer_quit', args: { answer: 'disconnect', remember: false } });
  });

  it('of a link never act by themselves', async () => {
    const { backend } = await mounted('link');
    await settle(30);
    expect(document.activeElement?.textContent).toBe('Show only');
    expect(backend.calls.some((call) => call.name === 'connect' || call.name === 'answer_link')).toBe(false);
  });
});

describe('a problem', () => {
  it('that nobody foresaw is still said in words, with its code', async () => {
    const { model } = await mounted();
    model.fail({ code: 'unforeseen', what: '', why: 'boom', remedy: '', field: null });
    await settle();
    expect(document.querySelector('.notices')?.textContent).toContain('This was not foreseen');
    expect(document.querySelector('.notices .code')?.textContent).toBe('unforeseen');
  });
});
