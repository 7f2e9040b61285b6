import { describe, expect, it } from 'vitest';
import { bytes, countdown, duration, latency, rate, time, took } from './format';

const plain = (text: string): string => text.replaceAll('\u2009', ' ');
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

describe('sizes', () => {
  it('count in thousands with one digit below ten', () => {
    const table: [number, string][] = [[0, '0 B'], [999, '999 B'], [1000, '1 kB'], [1400, '1.4 kB'], [96_000_000, '96 MB'], [999_600, '1 MB'], [1_400_000_000, '1.4 GB'], [-5, '0 B']];
    for (const [value, wanted] of table) expect(plain(bytes(value, 'en'))).toBe(wanted);
  });
  it('use the comma where the language does', () => {
    expect(plain(bytes(1_400_000, 'de'))).toBe('1,4 MB');
    expect(plain(rate(310_000, 'en'))).toBe('310 kB/s');
  });
  it('have a thin space before the unit', () => {
    expect(bytes(1, 'en')).toBe('1\u2009B');
  });
});

describe('latency', () => {
  it('is whole, but never nothing', () => {
    expect(plain(latency(8900, 'en'))).toBe('9 ms');
    expect(plain(latency(400, 'en'))).toBe('0.4 ms');
    expect(plain(latency(412_000, 'en'))).toBe('412 ms');
    expect(plain(latency(9400, 'en', true))).toBe('9.4 ms');
    expect(plain(took(3000, 'en'))).toBe('3.0 s');
    expect(plain(took(41, 'en'))).toBe('41 ms');
  });
});

describe('durations', () => {
  it('name the two largest units', () => {
    const table: [number, string][] = [[0, '0 s'], [400, '1 s'], [59_000, '59 s'], [24 * MINUTE, '24 min'], [23.2 * MINUTE, '24 min'], [6 * HOUR + 12 * MINUTE, '6 h 12 min'], [2 * HOUR, '2 h'], [52 * HOUR, '2 d 4 h'], [48 * HOUR, '2 d']];
    for (const [value, wanted] of table) expect(plain(duration(value))).toBe(wanted);
  });
  it('count the last minutes in seconds', () => {
    expect(countdown(581_000)).toBe('9:41');
    expect(countdown(6001)).toBe('0:07');
    expect(countdown(-1)).toBe('0:00');
  });
});

describe('times', () => {
  const now = Date.UTC(2026, 10, 20, 12, 0);
  it('of today are a clock, others have the day', () => {
    expect(time(Date.UTC(2026, 10, 20, 11, 26), now, 'en', 'UTC')).toBe('11:26');
    expect(time(Date.UTC(2026, 10, 21, 18, 0), now, 'en', 'UTC')).toBe('Sat 21 Nov, 18:00');
    expect(time(Date.UTC(2026, 10, 20, 0, 5), now, 'en', 'UTC')).toBe('00:05');
  });
});
