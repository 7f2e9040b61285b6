//! Hands notifications to the system. A system without a notification service is no error; the settings say so.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::Notification;
use crate::view::Place;

/// Threads that wait for a click; beyond it a notification is shown without being waited for.
const WAITING: usize = 16;

/// Remembers which bubble stands for which cause.
#[derive(Debug, Default)]
pub struct Bubbles {
    shown: Arc<Mutex<BTreeMap<String, u32>>>,
    waiting: Arc<AtomicUsize>,
}

impl Bubbles {
    /// Shows one, in place of the earlier one of the same cause. `clicked` runs on another thread, if ever. `failed`
    /// likewise, when there is no service.
    pub fn show(
        &self,
        notification: Notification,
        button: &'static str,
        clicked: impl FnOnce(Place) + Send + 'static,
        failed: impl FnOnce(String) + Send + 'static,
    ) {
        let (shown, waiting) = (Arc::clone(&self.shown), Arc::clone(&self.waiting));
        // The system's service is asked on a thread of its own: it may take its time.
        std::thread::spawn(move || {
            let before = shown.lock().unwrap_or_else(PoisonError::into_inner).get(&notification.key).copied();
            match system::show(&notification, button, before) {
                Ok(bubble) => {
                    shown.lock().unwrap_or_else(PoisonError::into_inner).insert(notification.key, bubble.id());
                    if waiting.fetch_add(1, Ordering::Relaxed) < WAITING && bubble.await_click() {
                        clicked(notification.place);
                    }
                    waiting.fetch_sub(1, Ordering::Relaxed);
                }
                Err(error) => failed(error),
            }
        });
    }
}

#[cfg(target_os = "linux")]
mod system {
    use notify_rust::{Hint, NotificationHandle, Timeout, Urgency};

    use super::Notification;

    pub(super) struct Bubble(NotificationHandle);

    pub(super) fn show(from: &Notification, button: &str, before: Option<u32>) -> Result<Bubble, String> {
        let mut notification = notify_rust::Notification::new();
        notification
            .appname("Postern")
            .icon("postern-desktop")
            .summary(&from.title)
            .body(&body(&from.body))
            .hint(Hint::DesktopEntry("postern-desktop".to_owned()))
            .urgency(if from.urgent { Urgency::Critical } else { Urgency::Normal })
            .timeout(Timeout::Default)
            .action("default", button)
            .action("show", button);
        if let Some(id) = before {
            notification.id(id);
        }
        notification.show().map(Bubble).map_err(|error| error.to_string())
    }

    /// Where the service reads markup, names must not be taken for some.
    fn body(text: &str) -> String {
        let markup = notify_rust::get_capabilities().is_ok_and(|can| can.iter().any(|one| one == "body-markup"));
        if markup { text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;") } else { text.to_owned() }
    }

    impl Bubble {
        pub(super) fn id(&self) -> u32 {
            self.0.id()
        }

        /// Waits until it is closed. Whether it was clicked.
        pub(super) fn await_click(self) -> bool {
            let mut clicked = false;
            self.0.wait_for_action(|action| clicked = matches!(action, "default" | "show"));
            clicked
        }
    }
}

/// Elsewhere there are none yet; the window shows the same.
#[cfg(not(target_os = "linux"))]
mod system {
    use super::Notification;

    pub(super) struct Bubble;

    pub(super) fn show(_: &Notification, _: &str, _: Option<u32>) -> Result<Bubble, String> {
        Err("notifications are not made on this system yet".to_owned())
    }

    impl Bubble {
        pub(super) fn id(&self) -> u32 {
            0
        }

        pub(super) fn await_click(self) -> bool {
            false
        }
    }
}
