// Numbers as people read them: a number, a thin space, a unit. Language comes in as a BCP 47 tag.

const THIN = '\u2009';
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const numbers = new Map<string, Intl.NumberFormat>();

/** At most `digits` digits after the point. */
export function number(value: number, language: string, digits = 0): string {
  const key = `${language} ${digits}`;
  let format = numbers.get(key);
  if (!format) numbers.set(key, (format = new Intl.NumberFormat(language, { maximumFractionDigits: digits })));
  return format.format(value);
}

/** `96 MB`, `1.4 GB`: steps of 1000, one digit after the point below 10. */
export function bytes(value: number, language: string): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let amount = Math.max(0, value);
  let unit = 0;
  // 999.5 kB would read "1,000 kB".
  while (unit < units.length - 1 && Math.round(amount) >= 1000) {
    amount /= 1000;
    unit += 1;
  }
  return `${number(amount, language, unit > 0 && amount < 9.95 ? 1 : 0)}${THIN}${units[unit]}`;
}

/** Bytes in each second: `310 kB/s`. */
export function rate(perSecond: number, language: string): string {
  return `${bytes(perSecond, language)}/s`;
}

/** `9 ms`, and `0.4 ms` where the whole would be nothing; `exact` keeps one digit below 100. */
export function latency(micros: number, language: string, exact = false): string {
  const value = micros / 1000;
  return `${number(value, language, value < 0.95 || (exact && value < 99.95) ? 1 : 0)}${THIN}ms`;
}

/** How long a check took: `41 ms`, `3.0 s`. */
export function took(milliseconds: number, language: string): string {
  if (milliseconds < 1000) return `${number(milliseconds, language)}${THIN}ms`;
  return `${new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(milliseconds / 1000)}${THIN}s`;
}

/** `2 d 4 h`, `6 h 12 min`, `24 min`, `45 s`; whole minutes rounded up so that "1 min" is never "0 min". */
export function duration(milliseconds: number): string {
  const left = Math.max(0, milliseconds);
  if (left < MINUTE) return `${Math.ceil(left / 1000)}${THIN}s`;
  if (left < HOUR) return `${Math.ceil(left / MINUTE)}${THIN}min`;
  if (left < DAY) {
    const minutes = Math.floor(left / MINUTE);
    const rest = minutes % 60;
    return `${Math.floor(minutes / 60)}${THIN}h${rest ? ` ${rest}${THIN}min` : ''}`;
  }
  const hours = Math.floor(left / HOUR);
  const rest = hours % 24;
  return `${Math.floor(hours / 24)}${THIN}d${rest ? ` ${rest}${THIN}h` : ''}`;
}

/** The time left of the last two minutes, and of countdowns: `9:41`, `0:07`. */
export function countdown(milliseconds: number): string {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

/** Times today as 11:26, else with the day. */
export function time(at: number, now: number, language: string, zone?: string): string {
  const day: Intl.DateTimeFormatOptions = { year: 'numeric', month: 'numeric', day: 'numeric', timeZone: zone };
  const clock: Intl.DateTimeFormatOptions = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23', timeZone: zone };
  const sameDay = new Date(at).toLocaleDateString('en', day) === new Date(now).toLocaleDateString('en', day);
  const text = new Date(at).toLocaleTimeString(language, clock);
  if (sameDay) return text;
  const date = new Date(at).toLocaleDateString(language === 'en' ? 'en-GB' : language, { weekday: 'short', day: 'numeric', month: 'short', timeZone: zone });
  return `${date.replace(/,/g, '')}, ${text}`;
}

/** A count, with separators: `10,000`. */
export function count(value: number, language: string): string {
  return number(value, language);
}
