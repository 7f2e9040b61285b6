// The one place where the page talks to Rust: typed commands, and one channel of changes.
// Nothing else imports `@tauri-apps/api`; tests and `npm run dev` put `memory.ts` in its place.
import { Channel, invoke, isTauri } from '@tauri-apps/api/core';
import type { Commands } from './generated/commands';
import type { Change, Problem } from './generated/types';

/** Commands but the one that begins the flow of changes, which is [`Backend.watch`]. */
export type CommandName = Exclude<keyof Commands, 'watch'>;
export type Arguments<Name extends CommandName> = Commands[Name]['arguments'];
export type Answer<Name extends CommandName> = Commands[Name]['answer'];

export interface Backend {
  /** Rejects with a `Problem`. */
  call<Name extends CommandName>(name: Name, args: Arguments<Name>): Promise<Answer<Name>>;
  /** Begins the flow: first the whole view, then lists of changes, in order. */
  watch(listener: (changes: Change[]) => void): Promise<void>;
}

/** The app that this page is the window of. */
export const app: Backend = {
  call: (name, args) => invoke(name, args),
  async watch(listener) {
    const channel = new Channel<Change[]>();
    channel.onmessage = listener;
    await invoke('watch', { channel });
  },
};

/** Whether the page runs in the app, not in a plain browser. */
export const inApp = isTauri;

/** Whatever was thrown, in the form of the design: never a raw exception. */
export function problemOf(thrown: unknown): Problem {
  if (typeof thrown === 'object' && thrown !== null && 'code' in thrown && 'what' in thrown) {
    const given = thrown as Partial<Problem>;
    return {
      code: String(given.code),
      what: String(given.what),
      why: given.why ?? '',
      remedy: given.remedy ?? '',
      field: given.field ?? null,
    };
  }
  // A string is Tauri's own: a command that is not there, arguments that do not fit. The sentence is the window's.
  return { code: 'unforeseen', what: '', why: thrown instanceof Error ? thrown.message : String(thrown), remedy: '', field: null };
}
