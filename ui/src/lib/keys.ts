// The keyboard map. One table: the list, the footer's hints, Settings › Shortcuts and the docs read from here.

export interface Key {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  shiftKey: boolean;
  altKey: boolean;
}

/** What a key means anywhere in the window. */
export type GlobalAction = 'palette' | 'search' | 'settings' | 'region' | 'region_back' | 'zoom_in' | 'zoom_out' | 'zoom_reset' | 'lock';

/** What a key means while the list has focus. */
export type ListAction =
  | { do: 'move'; by: number }
  | { do: 'page'; by: number }
  | { do: 'first' }
  | { do: 'last' }
  | { do: 'extend'; by: number }
  | { do: 'toggle' }
  | { do: 'details' }
  | { do: 'copy_address' }
  | { do: 'copy_command' }
  | { do: 'open' }
  | { do: 'favourite' }
  | { do: 'move_favourite'; by: number }
  | { do: 'mark' }
  | { do: 'mark_all' }
  | { do: 'retry' }
  | { do: 'escape' }
  | { do: 'search'; text: string };

/** Ctrl, or Cmd on macOS. */
function command(key: Key, mac: boolean): boolean {
  return mac ? key.metaKey && !key.ctrlKey : key.ctrlKey && !key.metaKey;
}

export function globalAction(key: Key, mac: boolean): GlobalAction | null {
  if (key.key === 'F6') return key.shiftKey ? 'region_back' : 'region';
  if (!command(key, mac) || key.altKey) return null;
  switch (key.key.toLowerCase()) {
    case 'k':
      return 'palette';
    case 'f':
      return 'search';
    case ',':
      return 'settings';
    case 'l':
      return key.shiftKey ? 'lock' : null;
    case '+':
    case '=':
      return 'zoom_in';
    case '-':
      return 'zoom_out';
    case '0':
      return 'zoom_reset';
    default:
      return null;
  }
}

/** `letters`: whether single letters act (Settings › Shortcuts). Keys without meaning are left to the system. */
export function listAction(key: Key, mac: boolean, letters: boolean): ListAction | null {
  if (command(key, mac) && !key.altKey) return key.key.toLowerCase() === 'a' && !key.shiftKey ? { do: 'mark_all' } : null;
  if (key.ctrlKey || key.metaKey) return null;
  if (key.altKey) {
    if (key.key === 'ArrowUp') return { do: 'move_favourite', by: -1 };
    if (key.key === 'ArrowDown') return { do: 'move_favourite', by: 1 };
    return null;
  }
  switch (key.key) {
    case 'ArrowDown':
      return key.shiftKey ? { do: 'extend', by: 1 } : { do: 'move', by: 1 };
    case 'ArrowUp':
      return key.shiftKey ? { do: 'extend', by: -1 } : { do: 'move', by: -1 };
    case 'PageDown':
      return { do: 'page', by: 1 };
    case 'PageUp':
      return { do: 'page', by: -1 };
    case 'Home':
      return { do: 'first' };
    case 'End':
      return { do: 'last' };
    case 'Enter':
      return { do: 'toggle' };
    case ' ':
      return { do: 'details' };
    case 'Escape':
      return { do: 'escape' };
    case '/':
      return { do: 'search', text: '' };
  }
  if ([...key.key].length !== 1) return null;
  if (letters) {
    switch (key.key.toLowerCase()) {
      case 'c':
        return key.shiftKey ? { do: 'copy_command' } : { do: 'copy_address' };
      case 'o':
        return { do: 'open' };
      case 'f':
        return { do: 'favourite' };
      case 'x':
        return { do: 'mark' };
      case 'r':
        return { do: 'retry' };
    }
  }
  return { do: 'search', text: key.key };
}

/** Rows of Settings › Shortcuts: the name in the word list, and the caps of the key. `Mod` is Ctrl or Cmd. */
export const SHORTCUTS = [
  { name: 'move', keys: ['↑', '↓'] },
  { name: 'jump', keys: ['Home', 'End', 'PgUp', 'PgDn'] },
  { name: 'toggle', keys: ['↵'] },
  { name: 'details', keys: ['Space'] },
  { name: 'copyAddress', keys: ['C'] },
  { name: 'copyCommand', keys: ['⇧', 'C'] },
  { name: 'open', keys: ['O'] },
  { name: 'favourite', keys: ['F'] },
  { name: 'moveFavourite', keys: ['Alt', '↑', '↓'] },
  { name: 'mark', keys: ['X'] },
  { name: 'extend', keys: ['⇧', '↓'] },
  { name: 'markAll', keys: ['Mod', 'A'] },
  { name: 'retry', keys: ['R'] },
  { name: 'search', keys: ['/'] },
  { name: 'palette', keys: ['Mod', 'K'] },
  { name: 'settings', keys: ['Mod', ','] },
  { name: 'lock', keys: ['Mod', '⇧', 'L'] },
  { name: 'regions', keys: ['F6'] },
  { name: 'zoom', keys: ['Mod', '+'] },
  { name: 'leave', keys: ['Esc'] },
] as const;

export function cap(key: string, mac: boolean): string {
  return key === 'Mod' ? (mac ? '⌘' : 'Ctrl') : key;
}
