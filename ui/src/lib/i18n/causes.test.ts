import { describe, expect, it } from 'vitest';
import { CAUSES } from '../generated/causes';
import german from './causes.de';
import { inLanguage } from './causes';

// What a sentence of the service itself is, another program's words apart.
const OWN_WORDS = ['what', 'remedy'] as const;

describe('the sentences of the service in German', () => {
  it('are there for every cause, and for no other', () => {
    expect(Object.keys(german).sort()).toEqual([...new Set(CAUSES.map((cause) => cause.code))].sort());
  });

  it.each(CAUSES)('say what $code is and what to do', (cause) => {
    for (const part of OWN_WORDS) {
      // What was met at the start is a sentence of its own each time.
      if (cause.code === 'at_start' && part === 'what') continue;
      const said = inLanguage('de', cause.code, cause[part]);
      expect(said.lang, cause[part]).toBeUndefined();
      expect(said.text).not.toBe(cause[part]);
      expect(said.text).not.toContain('{}');
      expect(said.text).toMatch(/\.$/);
    }
  });

  it('have as many gaps as the sentences they stand for', () => {
    for (const [english, own] of Object.values(german).flat()) expect(own.split('{}').length, english).toBe(english.split('{}').length);
  });

  it('keep names and numbers', () => {
    expect(inLanguage('de', 'port_taken', 'grafana could not open port 18300.')).toEqual({ text: 'grafana konnte Port 18300 nicht öffnen.', lang: undefined });
    expect(inLanguage('de', 'dns_taken', 'Names under a and b go to another resolver.').text).toBe('Namen unter a und b gehen an einen anderen Resolver.');
  });

  it('leave what nobody foresaw as it is, marked as English', () => {
    expect(inLanguage('de', 'teapot', 'Short and stout.')).toEqual({ text: 'Short and stout.', lang: 'en' });
    expect(inLanguage('en', 'teapot', 'Short and stout.').lang).toBeUndefined();
  });
});
