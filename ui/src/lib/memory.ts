// A backend without Rust: the view is kept here, and commands change it. For tests and `npm run dev`, never for the app.
import type { Answer, Arguments, Backend, CommandName } from './backend';
import type { Change, Changed, LogExport, Problem, Row, View, Which } from './generated/types';
import { details, doctor, problem } from './memory/fixtures';
import { scenario } from './memory/scenarios';

type Handlers = { [Name in CommandName]: (args: Arguments<Name>) => Answer<Name> | Promise<Answer<Name>> };

export interface PracticeOptions {
  /** How long a resource takes to connect, and the doctor for a check. */
  millis?: number;
}

export class Practice implements Backend {
  /** What was called, for tests. */
  readonly calls: { name: CommandName; args: unknown }[] = [];
  readonly #refusals = new Map<CommandName, Problem>();
  #listener: ((changes: Change[]) => void) | null = null;
  readonly #handlers: Handlers;

  constructor(
    readonly view: View,
    readonly options: PracticeOptions = {},
  ) {
    this.#handlers = this.#made();
  }

  async call<Name extends CommandName>(name: Name, args: Arguments<Name>): Promise<Answer<Name>> {
    this.calls.push({ name, args });
    const refusal = this.#refusals.get(name);
    if (refusal) throw refusal;
    return this.#handlers[name](args);
  }

  async watch(listener: (changes: Change[]) => void): Promise<void> {
    this.#listener = listener;
    listener([{ change: 'view', view: structuredClone(this.view) }]);
  }

  /** From now on this command fails. */
  refuse(name: CommandName, problem: Problem): void {
    this.#refusals.set(name, problem);
  }

  /** Sends changes, as the app would. */
  send(...changes: Change[]): void {
    this.#listener?.(changes);
  }

  /** Changes rows and tells of it. */
  put(...rows: Row[]): void {
    for (const row of rows) this.view.rows = this.view.rows.map((old) => (old.id === row.id ? row : old));
    this.send({ change: 'rows_changed', rows });
  }

  #tell(part: 'service' | 'question' | 'settings'): void {
    if (part === 'service') this.send({ change: 'service', service: structuredClone(this.view.service) });
    if (part === 'question') this.send({ change: 'question', question: this.view.question });
    if (part === 'settings') this.send({ change: 'settings', settings: this.view.settings });
  }

  #chosen(which: Which): Row[] {
    if (which.which === 'all') return this.view.rows;
    if (which.which === 'favourites') return this.view.rows.filter((row) => row.favourite !== null);
    return this.view.rows.filter((row) => which.ids.includes(row.id));
  }

  #later(act: () => void): void {
    setTimeout(act, this.options.millis ?? 500);
  }

  #switch(which: Which, on: boolean): Changed {
    const meant = this.#chosen(which);
    const changed = meant.filter((row) => row.may_switch && row.wanted !== on);
    this.put(...changed.map((row): Row => ({ ...row, wanted: on, state: on ? 'connecting' : 'off', trouble: null })));
    if (on) {
      const ids = changed.map((row) => row.id);
      this.#later(() => this.put(...this.#chosen({ which: 'ids', ids }).filter((row) => row.wanted).map((row): Row => ({ ...row, state: 'connected' }))));
    }
    return { selected: meant.length, changed: changed.length, failed: [] };
  }

  #find(id: string): Row {
    const found = this.view.rows.find((row) => row.id === id);
    if (!found) throw problem('not_found', 'This resource is not there any more.');
    return found;
  }

  #order(ids: string[]): void {
    this.put(...this.view.rows.map((row) => ({ ...row, favourite: ids.includes(row.id) ? ids.indexOf(row.id) : null })));
  }

  #favourites(): string[] {
    return this.view.rows.filter((row) => row.favourite !== null).sort((a, b) => (a.favourite ?? 0) - (b.favourite ?? 0)).map((row) => row.id);
  }

  #made(): Handlers {
    const { view } = this;
    return {
      usable: () => null,
      check_address: ({ address }) =>
        /^(https?:\/\/)?[a-z0-9.-]+(:\d+)?$/i.test(address)
          ? { url: `https://${address.replace(/^https?:\/\//, '')}`, problem: null, known: address.startsWith('northwind') }
          : { url: null, problem: problem('bad_control_url', 'This is not an address.', '', 'It looks like northwind.postern.example.', 'address'), known: false },
      sign_in: ({ request }) => {
        const given = request.credential;
        if (given.method === 'password' && given.password === 'wrong') {
          throw problem('login_failed', 'That password does not match.', '4 tries left before a pause of 5 minutes.', '', 'password');
        }
        if (request.address?.startsWith('private') && request.trust.trust === 'known') {
          throw problem('control_untrusted', 'The certificate of this server is not known.', 'No authority of this computer signed it.', 'Compare its fingerprint with your admin.', 'trust');
        }
        const fresh = scenario('design', Date.now());
        if (fresh) {
          Object.assign(view, fresh);
          this.send({ change: 'view', view: structuredClone(fresh) });
        }
        return null;
      },
      sign_out: () => {
        view.service.sign_in = { state: 'signed_out', address: 'northwind.postern.example', email: 'mara@northwind.example' };
        this.#tell('service');
        return null;
      },
      lock: () => {
        view.service.sign_in = { state: 'locked', org: 'Northwind', email: 'mara@northwind.example', name: 'Mara', since: Date.now(), closed: 3 };
        this.#tell('service');
        return null;
      },
      unlock: ({ password }) => {
        if (password === 'wrong') throw problem('login_failed', 'That password does not match.', '', '', 'password');
        view.service.sign_in = scenario('design', Date.now())?.service.sign_in ?? { state: 'unknown' };
        this.#tell('service');
        return null;
      },
      change_password: ({ current }) => {
        if (current === 'wrong') throw problem('login_failed', 'The current password does not match.', '', '', 'current');
        return null;
      },
      connect: ({ which }) => this.#switch(which, true),
      disconnect: ({ which }) => this.#switch(which, false),
      open_details: ({ id }) => (id === null ? null : details(this.#find(id), Date.now())),
      set_favourite: ({ id, on }) => {
        const rest = this.#favourites().filter((one) => one !== id);
        this.#order(on ? [...rest, id] : rest);
        return null;
      },
      order_favourites: ({ ids }) => {
        this.#order(ids);
        return null;
      },
      check_port: ({ id, port }) => {
        const { port: assigned, name } = this.#find(id);
        const range = { lowest: 1024, highest: 64_999, assigned };
        if (port < 1024 || port > 64_999) {
          return { ...range, free: [assigned], problem: problem('port_range', `${port} cannot be used in loopback mode.`, 'Ports below 1024 belong to the system.', 'Use 1024 to 64999, or Virtual Networking.', 'port') };
        }
        if (port === 8080) return { ...range, free: [8081, assigned], problem: problem('port_taken', `${name} could not open port 8080.`, 'java (pid 4127) holds it.', 'Stop java, or use 8081.', 'port') };
        return { ...range, free: [], problem: null };
      },
      set_override: ({ id, port }) => {
        const row = this.#find(id);
        this.put({ ...row, port_override: port, port: port ?? row.port, address: `127.0.0.1:${port ?? row.port}` });
        return null;
      },
      open_with: () => null,
      copy: ({ clip }) => {
        const lines = clip.clip === 'text' ? [clip.text] : clip.clip === 'report' ? [`report of ${clip.id}`] : clip.ids.map((id) => (clip.clip === 'addresses' ? this.#find(id).address : (details(this.#find(id), 0).command ?? '')));
        return { text: lines.join('\n'), count: lines.length };
      },
      save_settings: ({ settings }) => {
        view.settings = settings;
        this.#tell('settings');
        return settings;
      },
      set_network: ({ enabled }) => {
        const up = scenario('network', Date.now());
        view.service.network = enabled && up ? up.service.network : { state: 'off' };
        this.#tell('service');
        return null;
      },
      try_name: ({ id }) => ({ name: `${this.#find(id).name}.northwind`, address: '100.72.1.9', problem: null }),
      retry_control: () => null,
      set_key_storage: ({ choice }) => {
        view.service.keys = choice === 'memory' ? { state: 'memory' } : choice === 'keyring' ? { state: 'keyring', name: 'GNOME Keyring' } : { state: 'file', path: '~/.local/state/postern/key' };
        this.#tell('service');
        return null;
      },
      doctor_start: () => {
        const step = (done: number): void => {
          view.doctor = doctor(Date.now(), done);
          this.send({ change: 'doctor', doctor: view.doctor });
          if (view.doctor.state === 'running') this.#later(() => step(done + 1));
        };
        step(0);
        return null;
      },
      doctor_stop: () => {
        if (view.doctor) view.doctor = { ...view.doctor, state: 'stopped', ended_at: Date.now() };
        this.send({ change: 'doctor', doctor: view.doctor });
        return null;
      },
      preview_logs: ({ redaction }) => preview(redaction),
      save_logs: () => ({ path: '~/Downloads/postern-2026-11-21.zip', bytes: 412_000 }),
      show_saved: () => null,
      start_service: () => {
        view.service.link = { state: 'connected', version: '0.1.0' };
        this.#tell('service');
        return null;
      },
      restart_service: () => {
        view.service.link = { state: 'connected', version: '0.1.0' };
        this.#tell('service');
        return null;
      },
      quit: () => {
        view.question = { question: 'quit', connected: 5, streams: 3 };
        this.#tell('question');
        return null;
      },
      answer_quit: () => {
        view.question = null;
        this.#tell('question');
        return null;
      },
      answer_link: () => {
        view.question = null;
        this.#tell('question');
        return null;
      },
    };
  }
}

function preview(redaction: LogExport['redaction']): LogExport {
  const name = (kept: string, standIn: string): string => (redaction === 'names' ? kept : redaction === 'strict' ? '-' : standIn);
  const lines = [
    `11:26:03 INFO  stream 01JD3K..7QF open ${name('billing-replica', 'res-4')}`,
    `11:26:03 INFO  entry ${name('gw-fra-1', 'gw-1')} 8.1 ms, egress ${name('relay-dc2', 'relay-1')}`,
    `11:26:03 WARN  ${name('billing-replica', 'res-4')} 502 target_refused`,
    `11:26:05 INFO  retry 1 in 2 s`,
    `11:26:31 INFO  lease renewed ${name('orders-primary', 'res-1')} by ${name('mara', 'user-1')}`,
  ];
  return {
    redaction,
    bytes: 412_000,
    replaced: redaction === 'names' ? 0 : 37,
    parts: [
      { name: 'service.log', bytes: 128_000, lines, line_count: 1204, forgotten: 300 },
      { name: 'doctor.json', bytes: 11_000, lines: ['{ "checks": [] }'], line_count: 1, forgotten: 0 },
      { name: 'desktop.log', bytes: 226_000, lines: ['11:00:00 INFO  window shown'], line_count: 1, forgotten: 0 },
    ],
  };
}

/** By the address of the page: `?mock=offline`. */
export function practice(query: URLSearchParams): Practice {
  const view = scenario(query.get('mock') ?? 'design', Date.now()) ?? scenario('design', Date.now());
  if (!view) throw new Error('the design has a view');
  const theme = query.get('theme');
  if (theme === 'light' || theme === 'dark') view.settings.theme = theme;
  if (query.get('density') === 'compact') view.settings.density = 'compact';
  const made = new Practice(view);
  made.view.settings.language = query.get('language');
  return made;
}
