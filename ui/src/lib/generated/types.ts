// Made from src-tauri by its tests; do not edit. `POSTERN_WRITE_TYPES=1 cargo test -p postern-desktop` writes it.

/**
 * What is known about an organisation's address without asking anybody.
 */
export type AddressVerdict = { 
/**
 * As it will be used: `https://northwind.postern.example`. `null`: see `problem`.
 */
url: string | null, problem: Problem | null, 
/**
 * It is the address that the service used last, whose certificate it knows.
 */
known: boolean, };

/**
 * One change to a [`View`], or something that passes by.
 */
export type Change = { "change": "view", view: View, } | { "change": "rows_changed", rows: Array<Row>, } | { "change": "rows_removed", ids: Array<string>, } | { "change": "service", service: Service, } | { "change": "settings", settings: Settings, } | { "change": "desktop", desktop: Desktop, } | { "change": "question", question: Question | null, } | { "change": "details", details: Details, } | { "change": "doctor", doctor: Doctor | null, } | { "change": "notice", notice: Notice, } | { "change": "go", place: Place, };

/**
 * What `connect` or `disconnect` did. The rows themselves come over the channel.
 */
export type Changed = { 
/**
 * How many resources were meant.
 */
selected: number, 
/**
 * How many of them are in another state than before.
 */
changed: number, 
/**
 * Those that could not follow.
 */
failed: Array<Failed>, };

/**
 * What to put on the clipboard. The app puts it there: the page may not.
 */
export type Clip = { "clip": "addresses", ids: Array<string>, } | { "clip": "commands", ids: Array<string>, } | { "clip": "report", id: string, } | { "clip": "text", text: string, };

/**
 * What closing the window does. Without a tray, `Hide` counts as `Quit`.
 */
export type CloseBehaviour = "hide" | "minimise" | "quit";

/**
 * The control plane.
 */
export type Control = { "state": "none" } | { "state": "connecting", address: string, } | { "state": "connected", address: string, since: number, } | { "state": "away", address: string, since: number, 
/**
 * Why it cannot be reached.
 */
error: string, retry_at: number, };

/**
 * What was put on the clipboard, for the feedback and its announcement.
 */
export type Copied = { text: string, 
/**
 * How many things it holds.
 */
count: number, };

/**
 * What an account proves itself with.
 */
export type Credential = { "method": "password", email: string, password: string, } | { "method": "service_token", token: string, };

export type Density = "normal" | "compact";

/**
 * This app and the machine it runs on.
 */
export type Desktop = { 
/**
 * Version of this app, for About and the footer of the sign-in page.
 */
version: string, 
/**
 * `linux`, `macos` or `windows`: Ctrl or Cmd, and the words for tray and keyring.
 */
system: string, 
/**
 * Languages that the tray and the notifications know, as BCP 47 tags.
 */
languages: Array<string>, 
/**
 * The user's language by the environment, one of `languages`.
 */
system_language: string, 
/**
 * The system asks for a dark theme. `null`: it does not say; follow `prefers-color-scheme`.
 */
system_dark: boolean | null, 
/**
 * Whether there is a tray. Without one, closing the window never hides it.
 */
tray: Tray, 
/**
 * Whether a notification service answers. `false`: the settings of notifications say so.
 */
notifications: boolean, 
/**
 * Native tools that are installed, for all kinds of resources.
 */
tools: Array<Tool>, 
/**
 * Where the settings are kept, for About.
 */
settings_file: string, 
/**
 * The socket of the service, for About and the report.
 */
socket: string, 
/**
 * The scenario of the mock service; `null` in earnest.
 */
mock: string | null, };

/**
 * What a row does not hold.
 */
export type Details = { id: string, 
/**
 * The ready command, the same string as `postern command NAME` prints. `null`: this kind has none.
 */
command: string | null, 
/**
 * Every address it is reached at: the main one first, then loopback beside the virtual network, then further ports.
 */
addresses: Array<string>, 
/**
 * Why it is not in the virtual network, although that is where it belongs: a sentence.
 */
fallback: string | null, 
/**
 * Ports beside its own: `7000-7005`.
 */
ports: string | null, 
/**
 * The port without an override.
 */
assigned_port: number, 
/**
 * Since when it is in its state.
 */
since: number | null, 
/**
 * When it was last used.
 */
last_used: number | null, 
/**
 * When the grant ends. `null`: it has no end.
 */
grant_ends: number | null, 
/**
 * When the current proof of access ends; it renews itself before.
 */
lease_ends: number | null, 
/**
 * `null`: not measured yet.
 */
route: Route | null, 
/**
 * The streams carried now, oldest first; at most 100.
 */
sessions: Array<Session>, 
/**
 * How many streams there are in all.
 */
session_count: number, traffic: Traffic, 
/**
 * Tools that are installed and open this resource; the first is the one of the key O.
 */
tools: Array<Tool>, };

/**
 * A run of the doctor.
 */
export type Doctor = { state: DoctorState, started_at: number, ended_at: number | null, 
/**
 * In the order in which they are shown.
 */
groups: Array<DoctorGroup>, 
/**
 * Why it broke off.
 */
problem: Problem | null, };

export type DoctorCheck = { 
/**
 * A stable word, unique in a run.
 */
id: string, title: string, verdict: Verdict, 
/**
 * What was seen; empty while it is not done.
 */
detail: string, 
/**
 * What to do about it.
 */
advice: string | null, 
/**
 * Commands that look at the same by hand.
 */
commands: Array<string>, 
/**
 * How long it took.
 */
took_micros: number | null, };

export type DoctorGroup = { 
/**
 * A stable word of the service: `this_computer`, `identity`, `gateways`, `resources`, `names_and_routes`.
 */
id: string, 
/**
 * The service's heading for it: `This computer`.
 */
title: string, checks: Array<DoctorCheck>, };

export type DoctorState = "running" | "done" | "stopped" | "failed";

/**
 * A resource that did not do as it was told.
 */
export type Failed = { id: string, name: string, problem: Problem, };

export type Gateway = { id: string, name: string, address: string, state: GatewayState, 
/**
 * Why it is unreachable.
 */
error: string | null, 
/**
 * Warm connections that wait for use.
 */
spares: number, latency_micros: number | null, };

export type GatewayState = "unknown" | "reachable" | "draining" | "unreachable";

/**
 * Something a person should know about the service.
 */
export type HealthItem = { severity: Severity, 
/**
 * The resource that it is about; "Show" leads there.
 */
resource: string | null, since: number, 
/**
 * Stable and made for programs, snake case: `target_refused`, `port_taken` …
 */
code: string, 
/**
 * One sentence: what failed. Never empty.
 */
what: string, 
/**
 * Why; may be empty.
 */
why: string, 
/**
 * What to do; may be empty.
 */
remedy: string, 
/**
 * Which field of a form is to blame: `address`, `email`, `password`, `trust`, `port` …
 */
field: string | null, };

export type Hop = { name: string, 
/**
 * From the hop before it.
 */
latency_micros: number | null, 
/**
 * `false`: the way is cut here.
 */
up: boolean, };

/**
 * Where the device key and the sign-in are to be kept from now on.
 */
export type KeyChoice = "keyring" | "memory" | "file";

/**
 * Where the device key is kept.
 */
export type KeyStorage = { "state": "unknown" } | { "state": "keyring", name: string, } | { "state": "file", path: string, } | { "state": "memory" } | { "state": "unreadable", name: string, problem: Problem, };

/**
 * What speaks at a resource.
 */
export type Kind = "tcp" | "http" | "postgres" | "mysql" | "redis" | "ssh";

/**
 * Whether posternd answers. While it does not, the rest shows what was last heard.
 */
export type Link = { "state": "starting" } | { "state": "connected", 
/**
 * Version of the service program.
 */
version: string, } | { "state": "gone", since: number, problem: Problem, } | { "state": "refused", problem: Problem, };

/**
 * Exactly what would be written. Keys, tokens and payloads are never part of it.
 */
export type LogExport = { redaction: Redaction, 
/**
 * What the file holds, in order.
 */
parts: Array<LogPart>, 
/**
 * Of the whole file.
 */
bytes: number, 
/**
 * How many words were replaced.
 */
replaced: number, };

export type LogPart = { 
/**
 * `service.log`, `doctor.json` …
 */
name: string, bytes: number, 
/**
 * All its lines, or the last 2,000 of them.
 */
lines: Array<string>, 
/**
 * How many lines it has in all.
 */
line_count: number, 
/**
 * How many older lines the service no longer keeps.
 */
forgotten: number, };

/**
 * How looking up a name and connecting to it went: the last step of the network guide.
 */
export type NameTrial = { 
/**
 * The name that was tried.
 */
name: string, 
/**
 * What the system answers for it.
 */
address: string | null, 
/**
 * `null`: it works.
 */
problem: Problem | null, };

/**
 * Virtual Networking Mode.
 */
export type Network = { "state": "off" } | { "state": "waiting" } | { "state": "starting" } | { "state": "up", 
/**
 * `postern0`
 */
interface: string, 
/**
 * `100.72.0.0/16`
 */
subnet: string, 
/**
 * The organisation's own range, when something on this machine has that.
 */
moved_from: string | null, 
/**
 * What has it: sentences.
 */
moved_because: Array<string>, ipv6: string | null, 
/**
 * This user's own address in it.
 */
address: string, 
/**
 * The address that answers names.
 */
resolver: string, 
/**
 * The zones whose names are asked there, without a dot in front.
 */
zones: Array<string>, 
/**
 * Through what names are asked: `resolved`, `resolv_conf` … `null`: there are none, or see `names_problem`.
 */
names: string | null, 
/**
 * Names are not asked for, for this reason; resources are reached by address.
 */
names_problem: string | null, 
/**
 * Names of resources that nobody answers, since no zone could be registered for them.
 */
left_out: Array<string>, 
/**
 * What keeps the latest changes from being applied; it is tried again.
 */
behind: string | null, since: number, } | { "state": "unavailable", fault: NetworkFault, problem: Problem, retry_at: number, };

/**
 * Why there is no virtual network; decides which step of the guide failed.
 */
export type NetworkFault = "no_service" | "not_permitted" | "no_device" | "no_subnet" | "bad_settings" | "failed";

/**
 * Something to show once.
 */
export type Notice = { level: NoticeLevel, text: string, resource: string | null, };

export type NoticeLevel = "info" | "warning" | "error";

/**
 * Kinds of notifications; each can be turned off.
 */
export type NotificationKind = "sign_in_ends" | "access_granted" | "access_lost" | "unreachable" | "update" | "service";

/**
 * A place in the window.
 */
export type Place = { "place": "home" } | { "place": "resource", id: string, } | { "place": "sign_in" } | { "place": "settings" } | { "place": "diagnostics" } | { "place": "about" };

/**
 * Whether a port may be a resource's own on this machine.
 */
export type PortVerdict = { 
/**
 * `null`: it may be used.
 */
problem: Problem | null, 
/**
 * Ports that may be used instead, best first; the assigned one is among them when it is free.
 */
free: Array<number>, 
/**
 * The port when there is no override.
 */
assigned: number, 
/**
 * The lowest and the highest port that may be chosen.
 */
lowest: number, highest: number, };

/**
 * Why something failed, in the form of the design: what failed, why, what to do; the code last and small.
 */
export type Problem = { 
/**
 * Stable and made for programs, snake case: `target_refused`, `port_taken` …
 */
code: string, 
/**
 * One sentence: what failed. Never empty.
 */
what: string, 
/**
 * Why; may be empty.
 */
why: string, 
/**
 * What to do; may be empty.
 */
remedy: string, 
/**
 * Which field of a form is to blame: `address`, `email`, `password`, `trust`, `port` …
 */
field: string | null, };

/**
 * What a person is being asked, whatever place the window shows.
 */
export type Question = { "question": "quit", 
/**
 * Resources that are switched on.
 */
connected: number, 
/**
 * Streams that "disconnect and quit" would cut.
 */
streams: number, } | { "question": "link", 
/**
 * As the link spells it; already free of control characters and at most 200 characters long.
 */
name: string, 
/**
 * The resource of that name. `null`: the account has none.
 */
id: string | null, 
/**
 * Its state now.
 */
state: ResourceState | null, 
/**
 * Its address.
 */
address: string | null, };

/**
 * What "Quit Postern?" is answered with.
 */
export type QuitAnswer = "keep_connected" | "disconnect" | "cancel";

/**
 * What "Quit" does when something is connected.
 */
export type QuitBehaviour = "ask" | "keep_connected" | "disconnect";

/**
 * How much of the logs can be recognised.
 */
export type Redaction = "names" | "pseudonyms" | "strict";

/**
 * The state words of the design, §5; the service decides them.
 */
export type ResourceState = "connected" | "connecting" | "off" | "expiring" | "degraded" | "unhealthy" | "needs_approval" | "locked";

/**
 * The way to a resource.
 */
export type Route = { 
/**
 * From this computer (not listed) to the target (the last one).
 */
hops: Array<Hop>, 
/**
 * All hops together; `null` when one of them is not measured.
 */
latency_micros: number | null, };

/**
 * One resource: small, because there may be 10,000. The rest comes by `open_details`.
 */
export type Row = { id: string, name: string, kind: Kind, 
/**
 * As the filter grammar spells them, in order: `prod`, `team=payments`.
 */
tags: Array<string>, 
/**
 * Where programs reach it, or would: `127.0.0.1:15432`, `100.72.0.9:5432`.
 */
address: string, 
/**
 * The same by name, in the virtual network: `orders.northwind:5432`; show this one where it is there.
 */
dns_name: string | null, 
/**
 * The port of `address`.
 */
port: number, 
/**
 * The node through which it is entered: `gw-fra-1`.
 */
entry: string | null, 
/**
 * To and from that node.
 */
latency_micros: number | null, state: ResourceState, 
/**
 * What is wrong with it, whatever the state: `what` is the second line of the row.
 */
trouble: Trouble | null, 
/**
 * The switch: what the user wishes. The state shows the fact.
 */
wanted: boolean, 
/**
 * Whether the switch may be moved.
 */
may_switch: boolean, 
/**
 * When access to it ends, for "Ends in 24 min".
 */
ends_at: number | null, 
/**
 * Place among the favourites, from 0; `null`: it is none.
 */
favourite: number | null, 
/**
 * Place among the recents, the last used is 0; `null`: not used of late.
 */
recent: number | null, 
/**
 * The user's own port, where there is one.
 */
port_override: number | null, 
/**
 * Streams carried now.
 */
streams: number, 
/**
 * Since the service started.
 */
bytes_up: number, bytes_down: number, };

/**
 * A file that `save_logs` wrote.
 */
export type SavedFile = { path: string, bytes: number, };

/**
 * posternd as the window shows it.
 */
export type Service = { link: Link, sign_in: SignIn, control: Control, keys: KeyStorage, network: Network, gateways: Array<Gateway>, 
/**
 * Worst first; the banner shows the first one.
 */
health: Array<HealthItem>, 
/**
 * When the device certificate ends; it renews itself before.
 */
certificate_ends: number | null, 
/**
 * Where scripts may read the status: `127.0.0.1:65220`.
 */
status_address: string | null, };

/**
 * One connection that is carried now.
 */
export type Session = { id: string, 
/**
 * Where the program's end is: `127.0.0.1:51234`.
 */
peer: string, 
/**
 * The gateway that carries it.
 */
gateway: string | null, started_at: number, bytes_up: number, bytes_down: number, };

/**
 * Everything that the settings screen changes, but for the virtual network (`set_network`), ports (`set_override`) and
 * favourites (`set_favourite`, `order_favourites`), which are not the window's alone.
 */
export type Settings = { theme: Theme, density: Density, 
/**
 * A BCP 47 tag of `desktop.languages`; `null`: the system's.
 */
language: string | null, 
/**
 * Kinds that are turned off.
 */
muted: Array<NotificationKind>, 
/**
 * Single-letter shortcuts in the list.
 */
shortcuts: boolean, 
/**
 * Start this app (hidden in the tray) when the user logs in. The system's own entry decides; this shows it.
 */
start_at_login: boolean, 
/**
 * Connect the favourites when the app starts.
 */
connect_favourites: boolean, 
/**
 * Lock Postern when the screen is locked.
 */
lock_with_screen: boolean, close: CloseBehaviour, quit: QuitBehaviour, update_channel: UpdateChannel, };

export type Severity = "info" | "warn" | "error";

export type SignIn = { "state": "unknown" } | { "state": "signed_out", 
/**
 * The organisation's address that was used last, to fill in.
 */
address: string | null, 
/**
 * The e-mail that was used last, to fill in.
 */
email: string | null, } | { "state": "signed_in", org: string, email: string, 
/**
 * The account's own name; may be empty.
 */
name: string, admin: boolean, 
/**
 * When the sign-in ends: countdown in the footer from 15 min, banner at 10 and 2.
 */
ends_at: number, 
/**
 * The password was made for one use; ask for another (`change_password`). It bars nothing.
 */
must_change_password: boolean, } | { "state": "locked", org: string, email: string, name: string, 
/**
 * When it was locked, as far as this app saw it.
 */
since: number | null, 
/**
 * How many connections were closed then, as far as this app saw it.
 */
closed: number | null, };

/**
 * What `sign_in` needs.
 */
export type SignInRequest = { 
/**
 * The organisation's address as it was typed: `northwind.postern.example`, `https://host:port`. `null`: the one
 * that the service knows already, for renewing.
 */
address: string | null, trust: Trust, credential: Credential, };

export type Theme = "system" | "light" | "dark";

/**
 * A program of this machine that can open a resource.
 */
export type Tool = { 
/**
 * For `open_with`: `terminal_ssh`, `browser`, `terminal_psql` …
 */
id: string, 
/**
 * The name of the program: `psql`, `ssh`, `Browser`. Not translated.
 */
name: string, 
/**
 * Which kinds of resources it opens.
 */
kinds: Array<Kind>, };

/**
 * Bytes in the last ten minutes, as this app saw them.
 */
export type Traffic = { 
/**
 * Length of one bucket.
 */
bucket_seconds: number, 
/**
 * Bytes per bucket, oldest first; at most 60. Empty: nothing seen yet.
 */
up: Array<number>, down: Array<number>, };

/**
 * Whether there is a tray.
 */
export type Tray = { "state": "starting" } | { "state": "shown" } | { "state": "missing", reason: string, };

/**
 * What is wrong with a resource, and since when.
 */
export type Trouble = { 
/**
 * When it was last seen.
 */
at: number, 
/**
 * When the service tries again by itself.
 */
retry_at: number | null, 
/**
 * Stable and made for programs, snake case: `target_refused`, `port_taken` …
 */
code: string, 
/**
 * One sentence: what failed. Never empty.
 */
what: string, 
/**
 * Why; may be empty.
 */
why: string, 
/**
 * What to do; may be empty.
 */
remedy: string, 
/**
 * Which field of a form is to blame: `address`, `email`, `password`, `trust`, `port` …
 */
field: string | null, };

/**
 * How the control plane proves itself.
 */
export type Trust = { "trust": "known" } | { "trust": "fingerprint", sha256: string, } | { "trust": "ca", pem: string, };

export type UpdateChannel = "stable" | "beta";

export type Verdict = "waiting" | "running" | "ok" | "warning" | "failed" | "skipped";

/**
 * Everything that the window shows.
 */
export type View = { service: Service, 
/**
 * All resources, by name. Search, filters and order are the front end's.
 */
rows: Array<Row>, settings: Settings, desktop: Desktop, 
/**
 * What a person is being asked; the window shows it as a dialog.
 */
question: Question | null, 
/**
 * The current or the last run of the doctor in this window.
 */
doctor: Doctor | null, 
/**
 * The clock that the times of this view were taken by, to correct the front end's own.
 */
now: number, };

/**
 * Which resources a command is about.
 */
export type Which = { "which": "all" } | { "which": "favourites" } | { "which": "ids", ids: Array<string>, };
