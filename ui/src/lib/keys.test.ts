import { describe, expect, it } from 'vitest';
import { globalAction, listAction, SHORTCUTS, type Key } from './keys';
import en from './i18n/en';

const key = (name: string, held: Partial<Key> = {}): Key => ({ key: name, ctrlKey: false, metaKey: false, shiftKey: false, altKey: false, ...held });

describe('keys in the list', () => {
  it('do what the design says', () => {
    const table: [Key, unknown][] = [
      [key('ArrowDown'), { do: 'move', by: 1 }],
      [key('ArrowUp'), { do: 'move', by: -1 }],
      [key('ArrowDown', { shiftKey: true }), { do: 'extend', by: 1 }],
      [key('PageDown'), { do: 'page', by: 1 }],
      [key('Home'), { do: 'first' }],
      [key('End'), { do: 'last' }],
      [key('Enter'), { do: 'toggle' }],
      [key(' '), { do: 'details' }],
      [key('c'), { do: 'copy_address' }],
      [key('C', { shiftKey: true }), { do: 'copy_command' }],
      [key('o'), { do: 'open' }],
      [key('f'), { do: 'favourite' }],
      [key('x'), { do: 'mark' }],
      [key('r'), { do: 'retry' }],
      [key('a', { ctrlKey: true }), { do: 'mark_all' }],
      [key('Escape'), { do: 'escape' }],
      [key('/'), { do: 'search', text: '' }],
      [key('g'), { do: 'search', text: 'g' }],
      [key('ä'), { do: 'search', text: 'ä' }],
      [key('ArrowUp', { altKey: true }), { do: 'move_favourite', by: -1 }],
    ];
    for (const [pressed, wanted] of table) expect(listAction(pressed, false, true)).toEqual(wanted);
  });

  it('start the search with any letter when single letters are turned off', () => {
    expect(listAction(key('c'), false, false)).toEqual({ do: 'search', text: 'c' });
    expect(listAction(key('Enter'), false, false)).toEqual({ do: 'toggle' });
  });

  it('leave to the system what they do not know', () => {
    for (const pressed of [key('Tab'), key('F5'), key('c', { ctrlKey: true }), key('Shift'), key('q', { metaKey: true })]) {
      expect(listAction(pressed, false, true)).toBeNull();
    }
  });
});

describe('keys of the window', () => {
  it('use Ctrl, and Cmd on macOS', () => {
    expect(globalAction(key('k', { ctrlKey: true }), false)).toBe('palette');
    expect(globalAction(key('k', { metaKey: true }), true)).toBe('palette');
    expect(globalAction(key('k', { ctrlKey: true }), true)).toBeNull();
    expect(globalAction(key('k'), false)).toBeNull();
  });

  it('go through the parts with F6, back with Shift', () => {
    expect(globalAction(key('F6'), false)).toBe('region');
    expect(globalAction(key('F6', { shiftKey: true }), false)).toBe('region_back');
  });
});

it('every shortcut that settings list has a name', () => {
  for (const shortcut of SHORTCUTS) expect(en.shortcut[shortcut.name]).toBeTruthy();
});
