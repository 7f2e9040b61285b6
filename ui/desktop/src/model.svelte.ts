// What the window knows: the view as the app sends it, and what a person does with it here.
import type { Answer, Arguments, Backend, CommandName } from '$lib/backend';
import { problemOf } from '$lib/backend';
import { passes } from '$lib/filter';
import type {
  Change, Changed, Clip, Desktop, Details, Doctor, Place, Problem, Question, Row, Service, Settings, View,
} from '$lib/generated/types';
import { t } from '$lib/i18n/words.svelte';
import { byName } from '$lib/order';
import { prepare } from '$lib/search';
import { List } from './list.svelte';
import { stateWords } from './wording';

/** A part of the window that F6 moves between, and a page that may take its place. */
export type Page = 'list' | 'settings' | 'diagnostics' | 'guide' | 'renew' | 'password' | 'keys';
export type SettingsSection = 'general' | 'connections' | 'notifications' | 'shortcuts' | 'updates' | 'keys' | 'about';
export type DiagnosticsTab = 'doctor' | 'events' | 'export';

export interface LocalNotice {
  id: number;
  level: 'info' | 'warning' | 'error';
  text: string;
  resource: string | null;
  problem: Problem | null;
}

/** Notices that stay until they are closed; more push the oldest out. */
const MOST_NOTICES = 4;
const NOTICE_MILLIS = 6000;

export class Model {
  service = $state.raw<Service | null>(null);
  settings = $state.raw<Settings | null>(null);
  desktop = $state.raw<Desktop | null>(null);
  question = $state.raw<Question | null>(null);
  doctor = $state.raw<Doctor | null>(null);
  details = $state.raw<Details | null>(null);
  /** All resources, by name. */
  rows = $state.raw<readonly Row[]>([]);
  /** The time, corrected by the app's clock; steps once a second only while something counts seconds. */
  now = $state(Date.now());
  page = $state<Page>('list');
  section = $state<SettingsSection>('general');
  tab = $state<DiagnosticsTab>('doctor');
  palette = $state(false);
  notices = $state.raw<readonly LocalNotice[]>([]);
  asking = $state<'sign_out' | 'disconnect_all' | null>(null);
  /** What is announced politely, and at once. */
  said = $state('');
  cried = $state('');
  /** Wishes that the service has not confirmed yet. */
  wishes = $state.raw<ReadonlyMap<string, boolean>>(new Map());
  readonly list: List;

  readonly mac = $derived(this.desktop?.system === 'macos');
  readonly signIn = $derived(this.service?.sign_in ?? { state: 'unknown' as const });
  readonly organisation = $derived('org' in this.signIn ? this.signIn.org : '');
  readonly connected = $derived(this.rows.filter((row) => passes(row.state)).length);
  readonly endsAt = $derived(this.signIn.state === 'signed_in' ? this.signIn.ends_at : null);
  readonly endsIn = $derived(this.endsAt === null ? null : Math.max(0, this.endsAt - this.now));

  #byId = new Map<string, Row>();
  #offset = 0;
  #notice = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #backend: Backend;

  constructor(backend: Backend) {
    this.#backend = backend;
    this.list = new List(() => this.rows);
  }

  async start(): Promise<void> {
    this.#tick();
    await this.#backend.watch((changes) => this.apply(changes));
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  row(id: string): Row | undefined {
    return this.#byId.get(id);
  }

  /** The wish that the switch shows. */
  wanted(row: Row): boolean {
    return this.wishes.get(row.id) ?? row.wanted;
  }

  apply(changes: readonly Change[]): void {
    let rows = false;
    let sort = false;
    for (const change of changes) {
      switch (change.change) {
        case 'view':
          this.#replace(change.view);
          rows = sort = true;
          break;
        case 'rows_changed':
          for (const row of change.rows) sort = this.#put(row) || sort;
          rows = true;
          break;
        case 'rows_removed':
          for (const id of change.ids) this.#byId.delete(id);
          rows = sort = true;
          break;
        case 'service':
          this.service = change.service;
          break;
        case 'settings':
          this.settings = change.settings;
          break;
        case 'desktop':
          this.desktop = change.desktop;
          break;
        case 'question':
          this.question = change.question;
          break;
        case 'details':
          if (change.details.id === this.list.openId) this.details = change.details;
          break;
        case 'doctor':
          this.doctor = change.doctor;
          break;
        case 'notice':
          this.notify(change.notice.level, change.notice.text, change.notice.resource);
          break;
        case 'go':
          this.go(change.place);
          break;
      }
    }
    if (!rows) return;
    this.rows = sort ? byName([...this.#byId.values()]) : this.rows.map((row) => this.#byId.get(row.id) ?? row);
    this.list.keepUp(this.#byId);
    if (this.list.openId !== null && !this.#byId.has(this.list.openId)) void this.open(null);
  }

  #replace(view: View): void {
    this.#offset = view.now - Date.now();
    this.now = view.now;
    this.service = view.service;
    this.settings = view.settings;
    this.desktop = view.desktop;
    this.question = view.question;
    this.doctor = view.doctor;
    this.#byId = new Map(view.rows.map((row) => [row.id, row]));
    this.wishes = new Map();
    this.list.refreshRecents(view.rows);
    setTimeout(() => prepare(view.rows), 200);
  }

  /** Whether the order by name may have changed. */
  #put(row: Row): boolean {
    const old = this.#byId.get(row.id);
    this.#byId.set(row.id, row);
    if (this.wishes.has(row.id) && row.wanted === this.wishes.get(row.id)) this.#wish([row.id], null);
    if (old && old.state !== row.state && this.list.focusedId === row.id) {
      const words = t().said.stateOf(row.name, stateWords(row, this.now));
      if (row.state === 'unhealthy') this.cried = words;
      else this.said = words;
    }
    return old?.name !== row.name;
  }

  #wish(ids: readonly string[], wish: boolean | null): void {
    const wishes = new Map(this.wishes);
    for (const id of ids) if (wish === null) wishes.delete(id); else wishes.set(id, wish);
    this.wishes = wishes;
  }

  #tick(): void {
    this.now = Date.now() + this.#offset;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tick(), this.#countsSeconds() ? 1000 : 10_000);
  }

  /** Begins to count seconds at once where a countdown appeared. */
  hurry(): void {
    this.#tick();
  }

  #countsSeconds(): boolean {
    if (document.hidden) return false;
    const ends = this.endsIn;
    return (
      (ends !== null && ends < 15 * 60_000) ||
      this.service?.control.state === 'away' ||
      this.service?.network.state === 'unavailable' ||
      this.rows.some((row) => row.ends_at !== null && row.ends_at - this.now < 2 * 60_000) ||
      this.details !== null
    );
  }

  /** Calls the app; a refusal becomes a notice and `null`. */
  async call<Name extends CommandName>(name: Name, args: Arguments<Name>): Promise<{ answer: Answer<Name> } | null> {
    try {
      return { answer: await this.#backend.call(name, args) };
    } catch (thrown) {
      this.fail(problemOf(thrown));
      return null;
    }
  }

  /** Calls the app for a form: the refusal comes back, so that it can stand at the field. */
  async ask<Name extends CommandName>(name: Name, args: Arguments<Name>): Promise<{ answer: Answer<Name> } | { problem: Problem }> {
    try {
      return { answer: await this.#backend.call(name, args) };
    } catch (thrown) {
      return { problem: problemOf(thrown) };
    }
  }

  fail(problem: Problem, resource: string | null = null): void {
    this.#push({ level: 'error', text: problem.what, resource, problem });
    this.cried = problem.what || t().app.unforeseen;
  }

  notify(level: LocalNotice['level'], text: string, resource: string | null = null): void {
    const id = this.#push({ level, text, resource, problem: null });
    if (level === 'info') setTimeout(() => this.dismiss(id), NOTICE_MILLIS);
    this.said = text;
  }

  #push(notice: Omit<LocalNotice, 'id'>): number {
    this.#notice += 1;
    // The same again replaces the older one.
    const others = this.notices.filter((old) => old.text !== notice.text || old.problem?.code !== notice.problem?.code);
    this.notices = [...others, { ...notice, id: this.#notice }].slice(-MOST_NOTICES);
    return this.#notice;
  }

  dismiss(id: number): void {
    this.notices = this.notices.filter((notice) => notice.id !== id);
  }

  // What a person does with resources.

  async toggle(row: Row): Promise<void> {
    if (row.state === 'needs_approval') return this.requestAccess(row);
    if (!row.may_switch || this.service?.link.state !== 'connected') return;
    await this.switchTo([row.id], !this.wanted(row));
  }

  async switchTo(ids: readonly string[], on: boolean): Promise<void> {
    if (ids.length === 0) return;
    this.#wish(ids, on);
    const done = await this.call(on ? 'connect' : 'disconnect', { which: { which: 'ids', ids: [...ids] } });
    this.#wish(ids, null);
    if (done) this.#report(done.answer);
  }

  async switchAll(on: boolean, which: 'all' | 'favourites' = 'all'): Promise<void> {
    const done = await this.call(on ? 'connect' : 'disconnect', { which: { which } });
    if (!done) return;
    this.#report(done.answer);
    this.said = on ? t().said.connected(done.answer.changed) : t().said.disconnected(done.answer.changed);
  }

  #report(changed: Changed): void {
    const [first] = changed.failed;
    if (!first) return;
    if (changed.failed.length === 1) this.fail(first.problem, first.id);
    else this.notify('error', `${t().said.failed(changed.failed.length)}: ${first.name} (${first.problem.what})`, first.id);
  }

  async copy(clip: Clip): Promise<boolean> {
    const done = await this.call('copy', { clip });
    if (!done) return false;
    this.said = t().said.copied(done.answer.count === 1 ? done.answer.text : t().app.copiedMany(done.answer.count));
    return true;
  }

  async requestAccess(row: Row): Promise<void> {
    const email = 'email' in this.signIn ? (this.signIn.email ?? '') : '';
    const text = t().list.requestMessage(email, row.name);
    if (await this.copy({ clip: 'text', text })) this.notify('info', t().list.requestCopied, row.id);
  }

  async favourite(row: Row): Promise<void> {
    const on = row.favourite === null;
    if (await this.call('set_favourite', { id: row.id, on })) {
      this.said = on ? t().said.favourite(row.name) : t().said.noFavourite(row.name);
    }
  }

  async moveFavourite(row: Row, by: number): Promise<void> {
    if (row.favourite === null) return;
    const ids = this.rows.filter((one) => one.favourite !== null).sort((a, b) => (a.favourite ?? 0) - (b.favourite ?? 0)).map((one) => one.id);
    const from = ids.indexOf(row.id);
    const to = Math.min(ids.length - 1, Math.max(0, from + by));
    if (from === to) return;
    ids.splice(to, 0, ...ids.splice(from, 1));
    await this.call('order_favourites', { ids });
  }

  async openTool(row: Row, tool: string | null): Promise<void> {
    if (await this.call('open_with', { id: row.id, tool })) this.said = t().said.opened(row.name);
  }

  /** Shows the details of a resource, or none. */
  async open(id: string | null): Promise<void> {
    this.list.openId = id;
    if (this.details?.id !== id) this.details = null;
    const done = await this.call('open_details', { id });
    if (done && this.list.openId === id) {
      this.details = done.answer;
      if (this.details) this.hurry();
    }
  }

  go(place: Place): void {
    this.palette = false;
    switch (place.place) {
      case 'home':
        this.page = 'list';
        break;
      case 'sign_in':
        // Who is signed in already renews it.
        this.page = this.service?.sign_in.state === 'signed_in' ? 'renew' : 'list';
        break;
      case 'resource':
        this.page = 'list';
        this.list.clear();
        this.list.focus(place.id);
        void this.open(place.id);
        break;
      case 'settings':
        this.showSettings();
        break;
      case 'about':
        this.showSettings('about');
        break;
      case 'diagnostics':
        this.showDiagnostics();
        break;
    }
  }

  showSettings(section: SettingsSection = this.section): void {
    this.section = section;
    this.page = 'settings';
  }

  showDiagnostics(tab: DiagnosticsTab = 'doctor'): void {
    this.tab = tab;
    this.page = 'diagnostics';
  }

  async change(part: Partial<Settings>): Promise<void> {
    const settings = this.settings;
    if (!settings) return;
    const wished = { ...settings, ...part };
    this.settings = wished;
    const done = await this.call('save_settings', { settings: wished });
    this.settings = done ? done.answer : settings;
  }
}
