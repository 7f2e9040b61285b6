// Which banners there are, worst first. What the window itself knows stands beside the health items of the service.
import type { Problem, Service } from '$lib/generated/types';

const MINUTE = 60_000;

interface Base {
  /** The same cause has the same key: hiding it lasts until it is something else. */
  key: string;
  state: 'error' | 'warn' | 'info' | 'expiring' | 'needs_approval';
}

export type Banner = Base &
  (
    | { kind: 'gone' }
    | { kind: 'keys' | 'network'; problem: Problem }
    | { kind: 'expiry'; of: number }
    | { kind: 'away'; since: number; retryAt: number }
    | { kind: 'password' }
    | { kind: 'health'; problem: Problem; resource: string | null }
  );

export interface Expiry {
  endsIn: number | null;
  endsAt: number | null;
  /** Asked to be reminded at two minutes only. */
  remindLate: boolean;
}

export function banners(service: Service, expiry: Expiry): Banner[] {
  const found: Banner[] = [];
  if (service.link.state === 'gone') found.push({ kind: 'gone', key: 'gone', state: 'error' });
  if (service.keys.state === 'unreadable') {
    found.push({ kind: 'keys', key: 'keys', state: 'needs_approval', problem: service.keys.problem });
  }
  const { endsIn, endsAt, remindLate } = expiry;
  const window = remindLate ? 2 * MINUTE : 10 * MINUTE;
  if (endsIn !== null && endsIn <= window) {
    found.push({ kind: 'expiry', key: `expiry ${endsAt}`, state: 'expiring', of: endsIn <= 2 * MINUTE ? 2 * MINUTE : 10 * MINUTE });
  }
  if (service.control.state === 'away') {
    const { since, retry_at: retryAt } = service.control;
    found.push({ kind: 'away', key: 'away', state: 'warn', since, retryAt });
  }
  if (service.network.state === 'unavailable') {
    found.push({ kind: 'network', key: `network ${service.network.problem.code}`, state: 'warn', problem: service.network.problem });
  }
  if (service.sign_in.state === 'signed_in' && service.sign_in.must_change_password) {
    found.push({ kind: 'password', key: 'password', state: 'info' });
  }
  for (const item of service.health) {
    // Said above already, with what can be done about it.
    if (SAID_ABOVE.some(([code, kind]) => code === item.code && found.some((banner) => banner.kind === kind))) continue;
    found.push({ kind: 'health', key: `${item.code} ${item.resource ?? ''} ${item.what}`, state: item.severity, problem: item, resource: item.resource });
  }
  return found.sort((a, b) => RANK[a.state] - RANK[b.state]);
}

const SAID_ABOVE: readonly (readonly [string, Banner['kind']])[] = [
  ['keyring_locked', 'keys'],
  ['keyring_missing', 'keys'],
  ['control_unreachable', 'away'],
  ['control_away', 'away'],
  ['lease_expired', 'away'],
  ['helper_refused', 'network'],
  ['helper_missing', 'network'],
  ['network_unavailable', 'network'],
  ['password_once', 'password'],
  ['sign_in_ends', 'expiry'],
];

const RANK: Record<Banner['state'], number> = { error: 0, needs_approval: 1, expiring: 2, warn: 3, info: 4 };
