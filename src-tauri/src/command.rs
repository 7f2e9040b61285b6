//! The commands of the front end: all that the page can ask for.
//!
//! Each one names what it does and takes typed arguments; an answer of `null` means "done". What changes on the way
//! comes over the channel of [`watch`]. `ui/src/lib/generated/commands.ts` is made from this file by a test, so each
//! signature is spelled with types of [`crate::view`] and plain ones.

use std::sync::Arc;

use tauri::{State, ipc::Channel};

use crate::{
    app::App,
    view::{
        AddressVerdict, Change, Changed, Clip, Copied, Details, KeyChoice, LogExport, NameTrial, PortVerdict, Problem,
        QuitAnswer, Redaction, SavedFile, Settings, SignInRequest, Which,
    },
};

type Handle<'a> = State<'a, Arc<App>>;

/// Begins the flow of changes: at once one message with the whole view, then lists of changes. A second call (after a
/// reload) replaces the first.
#[tauri::command]
pub(crate) async fn watch(app: Handle<'_>, channel: Channel<Vec<Change>>) -> Result<(), Problem> {
    app.watch(channel);
    Ok(())
}

/// The page shows its first content and can be used: call it once, after the first paint. The app says so on its
/// standard output.
#[tauri::command]
pub(crate) async fn usable(app: Handle<'_>) -> Result<(), Problem> {
    app.usable();
    Ok(())
}

/// Looks at an organisation's address as it is typed; asks nobody.
#[tauri::command]
pub(crate) async fn check_address(app: Handle<'_>, address: String) -> Result<AddressVerdict, Problem> {
    Ok(app.check_address(&address))
}

/// Signs in, or renews the sign-in (open connections go on). Takes as long as the control plane takes.
///
/// Codes to expect: `bad_control_url`, `control_untrusted` (ask for the fingerprint), `bad_trust`, `login_failed`,
/// `login_locked`, `control_unreachable`, `clock_skew`, `service_gone`. `field` says which field is to blame.
#[tauri::command]
pub(crate) async fn sign_in(app: Handle<'_>, request: SignInRequest) -> Result<(), Problem> {
    app.sign_in(request).await
}

/// Signs out: everything is disconnected, the device key is thrown away.
#[tauri::command]
pub(crate) async fn sign_out(app: Handle<'_>) -> Result<(), Problem> {
    app.sign_out().await
}

/// Locks: streams are cut, addresses refuse connections until `unlock`.
#[tauri::command]
pub(crate) async fn lock(app: Handle<'_>) -> Result<(), Problem> {
    app.lock().await
}

/// Unlocks with the password of the account.
#[tauri::command]
pub(crate) async fn unlock(app: Handle<'_>, password: String) -> Result<(), Problem> {
    app.unlock(password).await
}

/// Changes the password of the account that is signed in.
#[tauri::command]
pub(crate) async fn change_password(app: Handle<'_>, current: String, new: String) -> Result<(), Problem> {
    app.change_password(current, new).await
}

/// Switches resources on.
#[tauri::command]
pub(crate) async fn connect(app: Handle<'_>, which: Which) -> Result<Changed, Problem> {
    app.connect(which).await
}

/// Switches resources off; their streams are cut.
#[tauri::command]
pub(crate) async fn disconnect(app: Handle<'_>, which: Which) -> Result<Changed, Problem> {
    app.disconnect(which).await
}

/// Gives the details of a resource and sends them again (`details`) when they change, until another or none is opened.
/// `null` for a resource that is not there (any more).
#[tauri::command]
pub(crate) async fn open_details(app: Handle<'_>, id: Option<String>) -> Result<Option<Details>, Problem> {
    app.open_details(id).await
}

/// Makes a resource a favourite (at the end of them) or no longer one.
#[tauri::command]
pub(crate) async fn set_favourite(app: Handle<'_>, id: String, on: bool) -> Result<(), Problem> {
    app.set_favourite(&id, on)
}

/// Gives the favourites this order. Ids that are no favourites are left out, favourites that are not named go last.
#[tauri::command]
pub(crate) async fn order_favourites(app: Handle<'_>, ids: Vec<String>) -> Result<(), Problem> {
    app.order_favourites(&ids)
}

/// Whether a port may be used for a resource, and which may instead. Nothing is changed.
#[tauri::command]
pub(crate) async fn check_port(app: Handle<'_>, id: String, port: u16) -> Result<PortVerdict, Problem> {
    app.check_port(&id, port)
}

/// Gives a resource a port of the user's own, or the assigned one again (`null`).
#[tauri::command]
pub(crate) async fn set_override(app: Handle<'_>, id: String, port: Option<u16>) -> Result<(), Problem> {
    app.set_override(&id, port).await
}

/// Opens a resource in a native tool, connecting it first where it is off. `tool` is the id of one of its tools;
/// `null`: the first.
#[tauri::command]
pub(crate) async fn open_with(app: Handle<'_>, id: String, tool: Option<String>) -> Result<(), Problem> {
    app.open_with(&id, tool.as_deref()).await
}

/// Puts something on the clipboard.
#[tauri::command]
pub(crate) async fn copy(app: Handle<'_>, clip: Clip) -> Result<Copied, Problem> {
    app.copy(clip)
}

/// Keeps the settings and applies them. Gives them back as they are kept.
#[tauri::command]
pub(crate) async fn save_settings(app: Handle<'_>, settings: Settings) -> Result<Settings, Problem> {
    app.save_settings(settings)
}

/// Switches the virtual network on or off. Answers when it is up, or when it is known why not.
#[tauri::command]
pub(crate) async fn set_network(app: Handle<'_>, enabled: bool) -> Result<(), Problem> {
    app.set_network(enabled).await
}

/// Looks up the name of a resource in the virtual network, as programs would.
#[tauri::command]
pub(crate) async fn try_name(app: Handle<'_>, id: String) -> Result<NameTrial, Problem> {
    app.try_name(&id).await
}

/// Tries a control plane that is away now, not when the service would by itself.
#[tauri::command]
pub(crate) async fn retry_control(app: Handle<'_>) -> Result<(), Problem> {
    app.retry_control().await
}

/// Chooses where the device key and the sign-in are kept.
#[tauri::command]
pub(crate) async fn set_key_storage(app: Handle<'_>, choice: KeyChoice) -> Result<(), Problem> {
    app.set_key_storage(choice).await
}

/// Starts the doctor; results come as `doctor` changes. A run that goes on is not started again.
#[tauri::command]
pub(crate) async fn doctor_start(app: Handle<'_>) -> Result<(), Problem> {
    app.doctor_start()
}

/// Stops the doctor.
#[tauri::command]
pub(crate) async fn doctor_stop(app: Handle<'_>) -> Result<(), Problem> {
    app.doctor_stop();
    Ok(())
}

/// What a log export would hold, word for word.
#[tauri::command]
pub(crate) async fn preview_logs(app: Handle<'_>, redaction: Redaction) -> Result<LogExport, Problem> {
    app.preview_logs(redaction).await
}

/// Writes the last preview into a new file in the user's download folder, readable by the user alone.
#[tauri::command]
pub(crate) async fn save_logs(app: Handle<'_>) -> Result<SavedFile, Problem> {
    app.save_logs()
}

/// Shows the folder of the file that was saved last.
#[tauri::command]
pub(crate) async fn show_saved(app: Handle<'_>) -> Result<(), Problem> {
    app.show_saved()
}

/// Starts posternd where it does not run.
#[tauri::command]
pub(crate) async fn start_service(app: Handle<'_>) -> Result<(), Problem> {
    app.start_service().await
}

/// Stops posternd and starts it again, for instance after an update. Connections close and come back.
#[tauri::command]
pub(crate) async fn restart_service(app: Handle<'_>) -> Result<(), Problem> {
    app.restart_service().await
}

/// The same as "Quit" in the tray: asks where something is connected, else ends the app.
#[tauri::command]
pub(crate) async fn quit(app: Handle<'_>) -> Result<(), Problem> {
    app.quit().await
}

/// Answers "Quit Postern?". `remember` keeps the answer for the next time.
#[tauri::command]
pub(crate) async fn answer_quit(app: Handle<'_>, answer: QuitAnswer, remember: bool) -> Result<(), Problem> {
    app.answer_quit(answer, remember).await
}

/// Answers a link: connect the resource and show it, or let it be.
#[tauri::command]
pub(crate) async fn answer_link(app: Handle<'_>, connect: bool) -> Result<(), Problem> {
    app.answer_link(connect).await
}
