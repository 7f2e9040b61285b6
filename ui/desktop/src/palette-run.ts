// Does what was chosen in the palette.
import type { Row } from '$lib/generated/types';
import type { Model } from './model.svelte';
import type { Act } from './palette';

export async function run(model: Model, act: Act): Promise<void> {
  if ('id' in act) {
    const row = model.row(act.id);
    if (row) await runOnRow(model, row, act);
    return;
  }
  if ('tag' in act) {
    await runOnTag(model, act.act, act.tag);
    return;
  }
  switch (act.act) {
    case 'connect_all':
      return model.switchAll(true);
    case 'connect_favourites':
      return model.switchAll(true, 'favourites');
    case 'disconnect_all':
      if (model.rows.some((row) => row.streams > 0)) model.asking = 'disconnect_all';
      else await model.switchAll(false);
      return;
    case 'lock':
      await model.call('lock', {});
      return;
    case 'settings':
      return model.showSettings();
    case 'diagnostics':
      return model.showDiagnostics();
    case 'export':
      return model.showDiagnostics('export');
    case 'network':
      model.page = 'guide';
      return;
    case 'about':
      return model.showSettings('about');
    case 'theme': {
      const next = { system: 'light', light: 'dark', dark: 'system' } as const;
      return model.change({ theme: next[model.settings?.theme ?? 'system'] });
    }
    case 'sign_out':
      model.asking = 'sign_out';
      return;
    case 'quit':
      await model.call('quit', {});
      return;
  }
}

async function runOnRow(model: Model, row: Row, act: Extract<Act, { id: string }>): Promise<void> {
  switch (act.act) {
    case 'toggle':
      return model.toggle(row);
    case 'details':
      return model.go({ place: 'resource', id: row.id });
    case 'copy_address':
      await model.copy({ clip: 'addresses', ids: [row.id] });
      return;
    case 'copy_command':
      await model.copy({ clip: 'commands', ids: [row.id] });
      return;
    case 'favourite':
      return model.favourite(row);
    case 'open':
      return model.openTool(row, act.tool);
  }
}

async function runOnTag(model: Model, act: Extract<Act, { tag: string }>['act'], tag: string): Promise<void> {
  const rows = model.rows.filter((row) => row.tags.includes(tag));
  const ids = rows.map((row) => row.id);
  switch (act) {
    case 'tag_connect':
      return model.switchTo(rows.filter((row) => row.may_switch).map((row) => row.id), true);
    case 'tag_disconnect':
      return model.switchTo(rows.filter((row) => row.may_switch).map((row) => row.id), false);
    case 'tag_copy':
      await model.copy({ clip: 'addresses', ids });
      return;
    case 'tag_show':
      model.page = 'list';
      model.list.clear();
      model.list.filters = { state: 'all', kind: null, tags: [tag] };
  }
}
