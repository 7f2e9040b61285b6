// Made from src-tauri by its tests; do not edit. `POSTERN_WRITE_TYPES=1 cargo test -p postern-desktop` writes it.

import type { Channel } from "@tauri-apps/api/core";
import type { AddressVerdict, Change, Changed, Clip, Copied, Details, KeyChoice, LogExport, NameTrial, PortVerdict, Problem, QuitAnswer, Redaction, SavedFile, Settings, SignInRequest, Which } from "./types";

/** Every command: its arguments and its answer. A refusal is a `Problem`. */
export interface Commands {
  /**
   * Begins the flow of changes: at once one message with the whole view, then lists of changes. A second call (after a
   * reload) replaces the first.
   */
  watch: { arguments: { channel: Channel<Array<Change>> }; answer: null };
  /**
   * The page shows its first content and can be used: call it once, after the first paint. The app says so on its
   * standard output.
   */
  usable: { arguments: Record<string, never>; answer: null };
  /**
   * Looks at an organisation's address as it is typed; asks nobody.
   */
  check_address: { arguments: { address: string }; answer: AddressVerdict };
  /**
   * Signs in, or renews the sign-in (open connections go on). Takes as long as the control plane takes.
   *
   * Codes to expect: `bad_control_url`, `control_untrusted` (ask for the fingerprint), `bad_trust`, `login_failed`,
   * `login_locked`, `control_unreachable`, `clock_skew`, `service_gone`. `field` says which field is to blame.
   */
  sign_in: { arguments: { request: SignInRequest }; answer: null };
  /**
   * Signs out: everything is disconnected, the device key is thrown away.
   */
  sign_out: { arguments: Record<string, never>; answer: null };
  /**
   * Locks: streams are cut, addresses refuse connections until `unlock`.
   */
  lock: { arguments: Record<string, never>; answer: null };
  /**
   * Unlocks with the password of the account.
   */
  unlock: { arguments: { password: string }; answer: null };
  /**
   * Changes the password of the account that is signed in.
   */
  change_password: { arguments: { current: string, new: string }; answer: null };
  /**
   * Switches resources on.
   */
  connect: { arguments: { which: Which }; answer: Changed };
  /**
   * Switches resources off; their streams are cut.
   */
  disconnect: { arguments: { which: Which }; answer: Changed };
  /**
   * Gives the details of a resource and sends them again (`details`) when they change, until another or none is opened.
   * `null` for a resource that is not there (any more).
   */
  open_details: { arguments: { id: string | null }; answer: Details | null };
  /**
   * Makes a resource a favourite (at the end of them) or no longer one.
   */
  set_favourite: { arguments: { id: string, on: boolean }; answer: null };
  /**
   * Gives the favourites this order. Ids that are no favourites are left out, favourites that are not named go last.
   */
  order_favourites: { arguments: { ids: Array<string> }; answer: null };
  /**
   * Whether a port may be used for a resource, and which may instead. Nothing is changed.
   */
  check_port: { arguments: { id: string, port: number }; answer: PortVerdict };
  /**
   * Gives a resource a port of the user's own, or the assigned one again (`null`).
   */
  set_override: { arguments: { id: string, port: number | null }; answer: null };
  /**
   * Opens a resource in a native tool, connecting it first where it is off. `tool` is the id of one of its tools;
   * `null`: the first.
   */
  open_with: { arguments: { id: string, tool: string | null }; answer: null };
  /**
   * Puts something on the clipboard.
   */
  copy: { arguments: { clip: Clip }; answer: Copied };
  /**
   * Keeps the settings and applies them. Gives them back as they are kept.
   */
  save_settings: { arguments: { settings: Settings }; answer: Settings };
  /**
   * Switches the virtual network on or off. Answers when it is up, or when it is known why not.
   */
  set_network: { arguments: { enabled: boolean }; answer: null };
  /**
   * Looks up the name of a resource in the virtual network, as programs would.
   */
  try_name: { arguments: { id: string }; answer: NameTrial };
  /**
   * Tries a control plane that is away now, not when the service would by itself.
   */
  retry_control: { arguments: Record<string, never>; answer: null };
  /**
   * Chooses where the device key and the sign-in are kept.
   */
  set_key_storage: { arguments: { choice: KeyChoice }; answer: null };
  /**
   * Starts the doctor; results come as `doctor` changes. A run that goes on is not started again.
   */
  doctor_start: { arguments: Record<string, never>; answer: null };
  /**
   * Stops the doctor.
   */
  doctor_stop: { arguments: Record<string, never>; answer: null };
  /**
   * What a log export would hold, word for word.
   */
  preview_logs: { arguments: { redaction: Redaction }; answer: LogExport };
  /**
   * Writes the last preview into a new file in the user's download folder, readable by the user alone.
   */
  save_logs: { arguments: Record<string, never>; answer: SavedFile };
  /**
   * Shows the folder of the file that was saved last.
   */
  show_saved: { arguments: Record<string, never>; answer: null };
  /**
   * Starts posternd where it does not run.
   */
  start_service: { arguments: Record<string, never>; answer: null };
  /**
   * Stops posternd and starts it again, for instance after an update. Connections close and come back.
   */
  restart_service: { arguments: Record<string, never>; answer: null };
  /**
   * The same as "Quit" in the tray: asks where something is connected, else ends the app.
   */
  quit: { arguments: Record<string, never>; answer: null };
  /**
   * Answers "Quit Postern?". `remember` keeps the answer for the next time.
   */
  answer_quit: { arguments: { answer: QuitAnswer, remember: boolean }; answer: null };
  /**
   * Answers a link: connect the resource and show it, or let it be.
   */
  answer_link: { arguments: { connect: boolean }; answer: null };
}
