//! The window, and everything else that Tauri draws or decides.

use std::{sync::Arc, time::Duration};

use tauri::{
    AppHandle, Builder, Manager as _, RunEvent, WebviewUrl, WebviewWindow, WebviewWindowBuilder, WindowEvent, Wry,
    window::Color,
};

use crate::{app::App, command, view::CloseBehaviour};

/// The one window; the capability file names it.
const LABEL: &str = "main";
/// The grounds of the page in both themes (`--bg` of its tokens).
const LIGHT: Color = Color(0xef, 0xf2, 0xf0, 0xff);
const DARK: Color = Color(0x0e, 0x11, 0x10, 0xff);

/// Runs the app until it ends.
pub(crate) fn run(app: Arc<App>, hidden: bool, when_up: impl FnOnce(&AppHandle) + Send + 'static) -> tauri::Result<()> {
    let state = Arc::clone(&app);
    let built = builder(Arc::clone(&app))
        .setup(move |shell| {
            state.begin(shell.handle().clone());
            if !hidden {
                open(shell.handle());
            }
            when_up(shell.handle());
            Ok(())
        })
        .build(tauri::generate_context!())?;
    built.run(move |_, event| {
        // The last window may close while the tray goes on.
        if let RunEvent::ExitRequested { api, code: None, .. } = event
            && !app.is_quitting()
        {
            api.prevent_exit();
        }
    });
    Ok(())
}

fn builder(app: Arc<App>) -> Builder<Wry> {
    let closing = Arc::clone(&app);
    let builder = Builder::default();
    #[cfg(not(target_os = "linux"))]
    let builder =
        builder.plugin(tauri_plugin_autostart::Builder::new().arg("--hidden").app_name("postern-desktop").build());
    builder
        .manage(app)
        .invoke_handler(tauri::generate_handler![
            command::watch,
            command::usable,
            command::check_address,
            command::sign_in,
            command::sign_out,
            command::lock,
            command::unlock,
            command::change_password,
            command::connect,
            command::disconnect,
            command::open_details,
            command::set_favourite,
            command::order_favourites,
            command::check_port,
            command::set_override,
            command::open_with,
            command::copy,
            command::save_settings,
            command::set_network,
            command::try_name,
            command::retry_control,
            command::set_key_storage,
            command::doctor_start,
            command::doctor_stop,
            command::preview_logs,
            command::save_logs,
            command::show_saved,
            command::start_service,
            command::restart_service,
            command::quit,
            command::answer_quit,
            command::answer_link,
        ])
        .on_window_event(move |window, event| match event {
            WindowEvent::CloseRequested { api, .. } => {
                match closing.closing() {
                    CloseBehaviour::Hide => drop(window.hide()),
                    CloseBehaviour::Minimise => drop(window.minimize()),
                    CloseBehaviour::Quit => closing.quit_by_closing(),
                }
                api.prevent_close();
            }
            WindowEvent::Destroyed => closing.window_gone(),
            _ => {}
        })
}

/// Opens the window, or shows the one that is there.
pub(crate) fn open(shell: &AppHandle) {
    if shell.get_webview_window(LABEL).is_some() {
        reveal(shell);
        return;
    }
    let dark = shell.try_state::<Arc<App>>().is_some_and(|app| app.is_dark());
    if let Err(error) = build(shell, dark) {
        tracing::error!(%error, "the window cannot be made");
    }
}

fn build(shell: &AppHandle, dark: bool) -> tauri::Result<WebviewWindow> {
    let ground = if dark { DARK } else { LIGHT };
    WebviewWindowBuilder::new(shell, LABEL, WebviewUrl::default())
        .title("Postern")
        .inner_size(1000.0, 700.0)
        .min_inner_size(380.0, 520.0)
        // A hidden page is not painted, so it is shown at once, on the ground that the page will have.
        .background_color(ground)
        // The page is ours and stays; a link in it leads nowhere.
        .on_navigation(|url| {
            url.scheme() == "tauri"
                || url.host_str() == Some("tauri.localhost")
                || cfg!(debug_assertions) && url.host_str() == Some("localhost")
        })
        .build()
}

/// Shows the window in front.
fn reveal(shell: &AppHandle) {
    let Some(window) = shell.get_webview_window(LABEL) else { return };
    for step in [window.show(), window.unminimize(), window.set_focus()] {
        if let Err(error) = step {
            tracing::debug!(%error, "the window cannot be shown");
        }
    }
}

/// Tells whoever started us that the window can be used: one line on standard output.
pub(crate) fn say_ready(after: Duration) {
    use std::io::Write as _;
    let line = serde_json::json!({ "ready": true, "usable_ms": u64::try_from(after.as_millis()).unwrap_or(u64::MAX) });
    // Nobody may be listening.
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests;
