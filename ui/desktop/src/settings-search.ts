// "Find a setting": which section holds what, by the words of the language of now.
import type { Words } from '$lib/i18n/en';
import { words as wordsOf } from '$lib/search';
import type { SettingsSection } from './model.svelte';

export interface Hit {
  section: SettingsSection;
  words: string;
}

export function matching(query: string, { settings }: Words): Hit[] {
  const held: Record<SettingsSection, string[]> = {
    general: [
      settings.theme, settings.density, settings.language, settings.connectFavourites, settings.startAtLogin,
      settings.lockWithScreen,       settings.whenClosed, settings.whenQuit,
    ],
    connections: [settings.mode, settings.loopback, settings.network, settings.ports, settings.status],
    notifications: [
      settings.notifications, settings.kind_sign_in_ends, settings.kind_access_granted, settings.kind_access_lost,
      settings.kind_unreachable, settings.kind_update, settings.kind_service,
    ],
    shortcuts: [settings.shortcuts, settings.letters],
    updates: [settings.updates, settings.channel],
    keys: [settings.keys, settings.keysWhere, settings.certificate],
    about: [settings.about, settings.licence, settings.settingsFile],
  };
  const asked = wordsOf(query);
  return (Object.keys(held) as SettingsSection[]).flatMap((section) =>
    held[section].filter((text) => asked.every((word) => text.toLowerCase().includes(word))).map((words) => ({ section, words })),
  );
}
