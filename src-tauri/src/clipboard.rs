//! Puts text on the clipboard. The page may not: what is copied is decided here, from ids.

use tauri::AppHandle;

/// Has to be called on any thread; the work is done on the main one.
pub(crate) fn put(app: &AppHandle, text: String) -> Result<(), String> {
    app.run_on_main_thread(move || system::put(&text)).map_err(|error| error.to_string())
}

#[cfg(target_os = "linux")]
mod system {
    pub(super) fn put(text: &str) {
        let clipboard = gtk::Clipboard::get(&gtk::gdk::SELECTION_CLIPBOARD);
        clipboard.set_text(text);
        // A clipboard manager may keep it when this app ends.
        clipboard.store();
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn put(text: &str) {
        let put = arboard::Clipboard::new().and_then(|mut clipboard| clipboard.set_text(text));
        if let Err(error) = put {
            tracing::warn!(%error, "the clipboard cannot be written");
        }
    }
}
