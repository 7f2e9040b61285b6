import { describe, expect, it } from 'vitest';
import type { Service } from '$lib/generated/types';
import { HEALTH, HEALTH_SLOW, problem, service } from '$lib/memory/fixtures';
import { banners } from './banners';

const MINUTE = 60_000;
const made = (change: Partial<Service> = {}): Service => ({ ...service(0), ...change });
const at = (minutes: number | null, remindLate = false) => ({ endsIn: minutes === null ? null : minutes * MINUTE, endsAt: 1, remindLate });
const kinds = (one: Service, minutes: number | null = null, late = false): string[] => banners(one, at(minutes, late)).map((banner) => banner.kind);

describe('banners', () => {
  it('are none when all is well', () => {
    expect(banners(made(), at(300))).toEqual([]);
  });

  it('put what is worst first', () => {
    const found = banners(made({ health: [HEALTH_SLOW, HEALTH] }), at(5));
    expect(found.map((banner) => banner.state)).toEqual(['error', 'expiring', 'warn']);
  });

  it('warn of the end of the sign-in from 10 minutes, or from 2 when asked to wait', () => {
    expect(kinds(made(), 11)).toEqual([]);
    expect(kinds(made(), 10)).toEqual(['expiry']);
    expect(kinds(made(), 9, true)).toEqual([]);
    expect(kinds(made(), 2, true)).toEqual(['expiry']);
  });

  it('say a thing once, even when the service says it too', () => {
    const away = made({
      control: { state: 'away', address: 'https://x', since: 0, error: 'no answer', retry_at: 0 },
      health: [{ ...HEALTH_SLOW, code: 'control_unreachable' }],
    });
    expect(kinds(away)).toEqual(['away']);
  });

  it.each(['helper_refused', 'helper_missing', 'network_unavailable'])('say only once that there is no network (%s)', (code) => {
    const network = { state: 'unavailable' as const, fault: 'no_service' as const, problem: problem(code, 'It does not run.'), retry_at: 0 };
    expect(kinds(made({ network, health: [{ ...HEALTH_SLOW, code }] }))).toEqual(['network']);
  });

  it('ask only once for a new password', () => {
    const signed = service(0).sign_in;
    if (signed.state !== 'signed_in') throw new Error(signed.state);
    const once = made({ sign_in: { ...signed, must_change_password: true }, health: [{ ...HEALTH_SLOW, code: 'password_once' }] });
    expect(kinds(once)).toEqual(['password']);
  });

  it('do not swallow health that nothing else says', () => {
    expect(kinds(made({ health: [{ ...HEALTH_SLOW, code: 'control_unreachable' }] }))).toEqual(['health']);
  });

  it('ask where keys are to be kept when the keyring cannot be read', () => {
    expect(kinds(made({ keys: { state: 'unreadable', name: 'keyring', problem: problem('keyring_locked', 'The keyring is locked.') } }))).toEqual(['keys']);
  });

  it('say that the service is away before everything else', () => {
    expect(kinds(made({ link: { state: 'gone', since: 0, problem: problem('service_gone', 'Away.') }, health: [HEALTH] }))[0]).toBe('gone');
  });
});
