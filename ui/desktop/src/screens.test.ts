// Every screen in every state: it stands, and axe finds nothing to mend. Contrast is computed from the tokens, in
// `tokens.test.ts`: jsdom draws nothing.
import axe from 'axe-core';
import { describe, expect, it } from 'vitest';
import type { Model } from './model.svelte';
import { button, mounted, press, row, settle } from './testing/mounted';

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
