// Data to work on the window with: the organisation of the design, and the states that it can be in.
import type { Desktop, Details, Doctor, HealthItem, Kind, Problem, ResourceState, Row, Service, Settings, View } from '../generated/types';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

export function problem(code: string, what: string, why = '', remedy = '', field: string | null = null): Problem {
  return { code, what, why, remedy, field };
}

interface Brief {
  favourite?: number;
  recent?: number;
  entry?: string;
  millis?: number;
  ends?: number;
  trouble?: Problem;
  ago?: number;
}

export function row(now: number, name: string, kind: Kind, tags: string, port: number, state: ResourceState, brief: Brief = {}): Row {
  const on = state !== 'off' && state !== 'needs_approval';
  return {
    id: `res_${name}`,
    name,
    kind,
    tags: tags.split(' '),
    address: `127.0.0.1:${port}`,
    dns_name: null,
    port,
    entry: brief.entry ?? 'gw-fra-1',
    latency_micros: brief.millis === undefined ? null : brief.millis * 1000,
    state,
    trouble: brief.trouble ? { ...brief.trouble, at: now - (brief.ago ?? 2) * MINUTE, retry_at: now + 14_000 } : null,
    wanted: on,
    may_switch: state !== 'needs_approval',
    ends_at: brief.ends === undefined ? null : now + brief.ends * MINUTE,
    favourite: brief.favourite ?? null,
    recent: brief.recent ?? null,
    port_override: null,
    streams: state === 'connected' ? 2 : 0,
    bytes_up: on ? 96_000_000 : 0,
    bytes_down: on ? 1_400_000_000 : 0,
  };
}

export const REFUSED = problem(
  'target_refused',
  'The target refused the connection.',
  'relay-dc2 reached 10.20.4.18, but nothing listens on port 3306. Your access is fine.',
  'Ask Team Billing whether it is down. We try again in 14 s.',
);

/** The 14 resources of the design. */
export function rows(now: number): Row[] {
  const away = problem('gateway_away', 'vault-admin cannot be reached.', 'gw-iad-1 does not answer and no other gateway leads there.', 'Nothing to do here; admins see it too.');
  const asked = problem('approval_pending', 'Waiting for Dana or Ravi.', 'Asked at 10:41.', '');
  const grant = problem('approval_needed', 'Granted for 4 h after a colleague approves.', 'Its policy wants a second person.', 'Request access.');
  const lossy = problem('gateway_loss', 'Gateway gw-fra-1 is losing packets.', '4 % of packets are lost on the way to it.', 'Nothing to do here; admins see it too.');
  return [
    row(now, 'orders-primary', 'postgres', 'prod eu team=payments', 15432, 'connected', { favourite: 0, recent: 0, millis: 9 }),
    row(now, 'search-prod-eu', 'http', 'prod eu', 16443, 'connected', { favourite: 1, millis: 9 }),
    row(now, 'bastion-fra', 'ssh', 'prod eu', 10022, 'expiring', { favourite: 2, millis: 8, ends: 24 }),
    row(now, 'sessions-cache', 'redis', 'prod', 16379, 'connecting', { recent: 1 }),
    row(now, 'billing-replica', 'mysql', 'prod eu', 13306, 'unhealthy', { recent: 2, millis: 9, trouble: REFUSED }),
    row(now, 'grafana', 'http', 'internal', 18300, 'connected', { recent: 3, entry: 'lb-eu', millis: 12 }),
    row(now, 'orders-staging', 'postgres', 'staging', 15433, 'off', { recent: 4, entry: 'gw-ams-2', millis: 15 }),
    row(now, 'analytics-warehouse', 'postgres', 'prod', 15440, 'needs_approval', { millis: 10, trouble: grant }),
    row(now, 'build-runner-07', 'ssh', 'ci', 10031, 'off', { entry: 'gw-ams-2', millis: 14 }),
    row(now, 'feature-flags', 'http', 'staging', 18310, 'off', { entry: 'lb-eu', millis: 12 }),
    row(now, 'search-staging', 'http', 'staging', 16444, 'off', { entry: 'gw-ams-2', millis: 15 }),
    row(now, 'kafka-broker-1', 'tcp', 'prod eu', 19092, 'degraded', { millis: 412, trouble: lossy }),
    row(now, 'ledger-archive', 'mysql', 'prod', 13310, 'needs_approval', { millis: 10, trouble: asked }),
    row(now, 'vault-admin', 'http', 'internal', 18200, 'unhealthy', { entry: 'gw-iad-1', trouble: away, ago: 9 }),
  ];
}

/** As many as asked for, each state among them. */
export function manyRows(now: number, count: number): Row[] {
  const kinds: Kind[] = ['postgres', 'http', 'ssh', 'redis', 'mysql', 'tcp'];
  const states: ResourceState[] = ['off', 'off', 'off', 'connected', 'off', 'connecting', 'off', 'unhealthy', 'off', 'off'];
  const words = ['orders', 'billing', 'search', 'ledger', 'auth', 'mail', 'stock', 'metrics', 'build', 'reports'];
  const places = ['eu', 'us', 'ap'];
  return Array.from({ length: count }, (_, n) => {
    const kind = kinds[n % kinds.length] ?? 'tcp';
    const place = places[n % places.length];
    const stage = n % 4 === 0 ? 'prod' : n % 4 === 1 ? 'staging' : 'dev';
    const state = states[n % states.length] ?? 'off';
    return {
      ...row(now, `${words[n % words.length]}-${stage}-${place}-${String(n).padStart(4, '0')}`, kind, `env=${stage} ${place} team=${words[(n >> 3) % words.length]}`, 20000 + n, state, {
        millis: 5 + (n % 40),
        trouble: state === 'unhealthy' ? REFUSED : undefined,
        favourite: n < 3 ? n : undefined,
        recent: n >= 3 && n < 9 ? n : undefined,
      }),
      id: `res_${n}`,
    };
  });
}

export const SETTINGS: Settings = {
  theme: 'system',
  density: 'normal',
  language: null,
  muted: [],
  shortcuts: true,
  start_at_login: true,
  connect_favourites: true,
  lock_with_screen: false,
  close: 'hide',
  quit: 'ask',
  update_channel: 'stable',
};

export const DESKTOP: Desktop = {
  version: '0.1.0',
  system: 'linux',
  languages: ['en', 'de'],
  system_language: 'en',
  system_dark: null,
  tray: { state: 'shown' },
  notifications: true,
  tools: [
    { id: 'terminal_psql', name: 'psql', kinds: ['postgres'] },
    { id: 'dbeaver', name: 'DBeaver', kinds: ['postgres', 'mysql'] },
    { id: 'terminal_ssh', name: 'ssh', kinds: ['ssh'] },
    { id: 'browser', name: 'Browser', kinds: ['http'] },
  ],
  settings_file: '~/.config/postern/desktop.json',
  socket: '/run/user/1000/postern/posternd.sock',
  mock: 'practice',
};

export function service(now: number): Service {
  return {
    link: { state: 'connected', version: '0.1.0' },
    sign_in: {
      state: 'signed_in',
      org: 'Northwind',
      email: 'mara@northwind.example',
      name: 'Mara Lindqvist',
      admin: false,
      ends_at: now + 6 * HOUR + 12 * MINUTE,
      must_change_password: false,
    },
    control: { state: 'connected', address: 'https://northwind.postern.example', since: now - 2 * HOUR },
    keys: { state: 'keyring', name: 'GNOME Keyring' },
    network: { state: 'off' },
    gateways: [
      { id: 'nod_1', name: 'gw-fra-1', address: '203.0.113.10:5000', state: 'reachable', error: null, spares: 1, latency_micros: 8100 },
      { id: 'nod_2', name: 'gw-ams-2', address: '203.0.113.20:5000', state: 'reachable', error: null, spares: 1, latency_micros: 14_000 },
      { id: 'nod_3', name: 'gw-iad-1', address: '203.0.113.30:5000', state: 'unreachable', error: 'No reply on port 5000 in 3 s.', spares: 0, latency_micros: null },
    ],
    health: [],
    certificate_ends: now + 9 * HOUR,
    status_address: '127.0.0.1:65220',
  };
}

export const HEALTH: HealthItem = {
  ...problem('target_refused', '1 target refuses connections.', 'billing-replica answers on the network, but not on port 3306.', 'Ask Team Billing whether it is down.'),
  severity: 'error',
  resource: 'res_billing-replica',
  since: 0,
};

export const HEALTH_SLOW: HealthItem = {
  ...problem('gateway_loss', 'gw-fra-1 loses packets.', '3 resources go through it and are slow.', 'Nothing to do here; admins see it too.'),
  severity: 'warn',
  resource: null,
  since: 0,
};

export function details(row: Row, now: number): Details {
  const on = row.state !== 'off';
  const passing = row.state === 'connected' || row.state === 'expiring' || row.state === 'degraded';
  const program: Record<Kind, string | null> = {
    postgres: `psql -h 127.0.0.1 -p ${row.port} orders`,
    mysql: `mysql -h 127.0.0.1 -P ${row.port}`,
    redis: `redis-cli -p ${row.port}`,
    ssh: `ssh -p ${row.port} 127.0.0.1`,
    http: `http://127.0.0.1:${row.port}/`,
    tcp: null,
  };
  const down = [13, 7, 13, 5, 9, 2, 2, 6, 2, 3, 2, 2, 2, 12, 5, 3, 10, 22, 22, 18, 28, 15, 23, 17, 9, 3, 34, 37, 31, 12, 17, 14, 16, 7, 2, 2, 8, 9, 7, 12];
  return {
    id: row.id,
    command: program[row.kind],
    addresses: [row.address],
    fallback: null,
    ports: null,
    assigned_port: row.port,
    since: now - 2 * HOUR,
    last_used: passing ? now - 3 * MINUTE : null,
    grant_ends: row.ends_at ?? now + 6 * HOUR,
    lease_ends: on ? now + 4 * MINUTE : null,
    route: {
      hops: [
        { name: row.entry ?? 'gw-fra-1', latency_micros: 8100, up: row.latency_micros !== null || row.state === 'off' },
        { name: 'relay-dc2', latency_micros: 900, up: true },
      ],
      latency_micros: 9000,
    },
    sessions: passing
      ? [
          { id: 'str_1', peer: '127.0.0.1:51234', gateway: 'gw-fra-1', started_at: now - 29 * MINUTE, bytes_up: 100_000, bytes_down: 4_000_000 },
          { id: 'str_2', peer: '127.0.0.1:50112', gateway: 'gw-fra-1', started_at: now - 135 * MINUTE, bytes_up: 95_000_000, bytes_down: 1_400_000_000 },
        ]
      : [],
    session_count: passing ? 2 : 0,
    traffic: passing
      ? { bucket_seconds: 15, down: down.map((n) => n * 1_700_000), up: down.map((n, i) => 4_000_000 + ((n * 7 + i * 13) % 11) * 200_000) }
      : { bucket_seconds: 15, down: [], up: [] },
    tools: DESKTOP.tools.filter((tool) => tool.kinds.includes(row.kind)),
  };
}

const GROUPS: Record<string, string> = { this_computer: 'This computer', identity: 'Identity', gateways: 'Gateways', names_and_routes: 'Names and routes' };

/** A run of the doctor that is `done` checks far. */
export function doctor(now: number, done: number): Doctor {
  const groups: [string, [string, string][]][] = [
    ['this_computer', [['service', 'Service runs, versions match (0.1.0)'], ['clock', 'Clock is right, 0.2 s off'], ['keys', 'Keys are in the system keyring'], ['ports', 'Ports free, 14 of 14']]],
    ['identity', [['sign_in', 'Signed in until 17:42'], ['certificate', 'Device certificate valid until 21:10'], ['control', 'Control plane answers']]],
    ['gateways', [['gw-fra-1', 'gw-fra-1 answers'], ['gw-ams-2', 'gw-ams-2 answers'], ['gw-iad-1', 'gw-iad-1 does not answer'], ['lb-eu', 'lb-eu answers']]],
    ['names_and_routes', [['interface', 'Interface postern0'], ['route', 'Route 100.72.0.0/16 for uid 1000'], ['dns', 'Names under .northwind go to another resolver']]],
  ];
  let n = 0;
  const all = groups.flatMap(([, checks]) => checks).length;
  const finished = done >= all;
  return {
    state: finished ? 'done' : 'running',
    started_at: now - 4200,
    ended_at: finished ? now : null,
    problem: null,
    groups: groups.map(([id, checks]) => ({
      id,
      title: GROUPS[id] ?? id,
      checks: checks.map(([check, title]) => {
        const place = n++;
        const bad = check === 'gw-iad-1' || check === 'dns';
        if (place > done) return { id: check, title, verdict: 'waiting', detail: '', advice: null, commands: [], took_micros: null };
        if (place === done) return { id: check, title, verdict: 'running', detail: '', advice: null, commands: [], took_micros: null };
        return {
          id: check,
          title,
          verdict: check === 'dns' ? 'failed' : bad ? 'warning' : 'ok',
          detail: check === 'dns'
            ? 'WARP took over DNS at 11:04, so orders.northwind is asked of 162.159.36.1, which does not know it. Loopback addresses still work.'
            : bad ? 'No reply on port 5000 in 3 s, from IPv4 or IPv6. Only vault-admin needs it.' : '',
          advice: check === 'dns' ? 'Register our names again, or add .northwind to WARP’s local domains.' : bad ? 'Admins of Northwind see this too.' : null,
          commands: check === 'dns' ? ['resolvectl query orders.northwind'] : bad ? ['nc -vz 203.0.113.30 5000'] : [],
          took_micros: (bad ? 3000 : 3 + place * 4) * 1000,
        };
      }),
    })),
  };
}

export function view(now: number): View {
  return { service: service(now), rows: rows(now), settings: { ...SETTINGS }, desktop: DESKTOP, question: null, doctor: null, now };
}
