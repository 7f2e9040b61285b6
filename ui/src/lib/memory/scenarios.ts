// The states that the window can be in, by name: `?mock=offline` in `npm run dev`, and the tests.
import type { View } from '../generated/types';
import { HEALTH, HEALTH_SLOW, manyRows, problem, view } from './fixtures';

const MINUTE = 60_000;

export const SCENARIOS: Record<string, (view: View) => void> = {
  design: () => {},
  '0': (v) => (v.rows = []),
  '40': (v) => (v.rows = manyRows(v.now, 40)),
  '10000': (v) => (v.rows = manyRows(v.now, 10_000)),
  starting: (v) => {
    v.service.link = { state: 'starting' };
    v.service.sign_in = { state: 'unknown' };
    v.rows = [];
  },
  loading: (v) => {
    v.service.control = { state: 'connecting', address: 'https://northwind.postern.example' };
    v.rows = [];
  },
  'signed-out': (v) => {
    v.service.sign_in = { state: 'signed_out', address: 'northwind.postern.example', email: 'mara@northwind.example' };
    v.rows = [];
  },
  new: (v) => {
    v.service.sign_in = { state: 'signed_out', address: null, email: null };
    v.rows = [];
  },
  locked: (v) => {
    v.service.sign_in = { state: 'locked', org: 'Northwind', email: 'mara@northwind.example', name: 'Mara', since: v.now - 60 * MINUTE, closed: 5 };
    for (const row of v.rows) if (row.wanted) row.state = 'locked';
  },
  health: (v) => (v.service.health = [HEALTH]),
  errors: (v) => (v.service.health = [HEALTH, HEALTH_SLOW, { ...HEALTH_SLOW, code: 'range_taken', what: 'The address range moved to 100.91.0.0/16.', why: 'Tailscale took 100.72.0.0/16.', remedy: 'Nothing for names; look up addresses you wrote down.', severity: 'info' }]),
  offline: (v) => {
    v.service.control = { state: 'away', address: 'https://northwind.postern.example', since: v.now - 29 * MINUTE, error: 'No answer in 10 s.', retry_at: v.now + 8000 };
  },
  'service-gone': (v) => {
    v.service.link = { state: 'gone', since: v.now - MINUTE, problem: problem('service_gone', 'The background service does not answer.', 'It ended, or was stopped.', 'Start it again.') };
  },
  versions: (v) => {
    v.service.link = { state: 'refused', problem: problem('versions_differ', 'The service is older than this window.', 'Window 0.2.0, service 0.1.0; it was not restarted after the update.', 'Restart the service; 5 connections close for about 2 s.') };
  },
  expiring: (v) => {
    if (v.service.sign_in.state === 'signed_in') v.service.sign_in.ends_at = v.now + 9 * MINUTE + 41_000;
  },
  ending: (v) => {
    if (v.service.sign_in.state === 'signed_in') v.service.sign_in.ends_at = v.now + 61_000;
  },
  keyring: (v) => {
    v.service.keys = { state: 'unreadable', name: 'GNOME Keyring', problem: problem('keyring_locked', 'The keyring is locked, so your device key cannot be read.', 'It opens with your login password.', 'Unlock it, keep the key in memory until you quit, or in a file only you can read.') };
  },
  network: (v) => {
    v.service.network = { state: 'up', interface: 'postern0', subnet: '100.72.0.0/16', moved_from: null, moved_because: [], ipv6: null, address: '100.72.0.1', resolver: '100.72.0.2', zones: ['northwind'], names: 'resolved', names_problem: null, left_out: [], behind: null, since: v.now - MINUTE };
    for (const row of v.rows) row.dns_name = `${row.name.split('-')[0]}.northwind:5432`;
  },
  'network-many-zones': (v) => {
    SCENARIOS.network?.(v);
    if (v.service.network.state === 'up') v.service.network.zones = Array.from({ length: 512 }, (_, n) => `zone-${n}.example`);
  },
  'network-left-out': (v) => {
    SCENARIOS.network?.(v);
    if (v.service.network.state === 'up') v.service.network.left_out = ['ledger.corp.example', '*.kafka.corp.example'];
    v.service.health = [{ ...HEALTH, code: 'names_left_out', severity: 'warn', resource: null, what: 'Names without an answer: ledger.corp.example and *.kafka.corp.example.', why: 'Their zones could not be registered: they would cover the control plane or a gateway, this system refuses them, or there are too many.', remedy: "Use the addresses of these resources, or ask an admin for names in the organisation's own zone." }];
  },
  'network-refused': (v) => {
    v.service.network = { state: 'unavailable', fault: 'not_permitted', retry_at: v.now + 30_000, problem: problem('helper_refused', 'Virtual Networking is not authorised.', 'The question was closed, or your account may not answer it.', 'Ask again, or stay with loopback addresses: they work meanwhile.') };
  },
  quit: (v) => (v.question = { question: 'quit', connected: 5, streams: 3 }),
  link: (v) => (v.question = { question: 'link', name: 'orders-staging', id: 'res_orders-staging', state: 'off', address: '127.0.0.1:15433' }),
  'link-unknown': (v) => (v.question = { question: 'link', name: 'payroll', id: null, state: null, address: null }),
};

/** A view in a state; `null` when there is no such state. */
export function scenario(name: string, now: number): View | null {
  const change = Object.hasOwn(SCENARIOS, name) ? SCENARIOS[name] : undefined;
  if (!change) return null;
  const made = view(now);
  change(made);
  made.desktop = { ...made.desktop, mock: name };
  return made;
}
