//! A notification service that writes down what it is to show.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use zbus::{Connection, OwnedVariant};

use super::POLL;

const NAME: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";

/// A notification as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub id: u32,
    pub app: String,
    pub summary: String,
    pub body: String,
    /// Keys of the buttons.
    pub actions: Vec<String>,
    /// When it came.
    pub at: Instant,
}

/// What has been shown so far.
#[derive(Clone)]
pub struct Notices {
    shown: Arc<Mutex<Vec<Notice>>>,
    connection: Connection,
}

impl Notices {
    pub(super) async fn serve(connection: &Connection) -> anyhow::Result<Self> {
        let shown = Arc::new(Mutex::new(Vec::new()));
        connection.object_server().at(PATH, Service { shown: Arc::clone(&shown) }).await?;
        connection.request_name(NAME).await?;
        Ok(Self { shown, connection: connection.clone() })
    }

    #[must_use]
    pub fn all(&self) -> Vec<Notice> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first notification that `is_wanted`, waited for.
    pub async fn when(&self, is_wanted: impl Fn(&Notice) -> bool) -> anyhow::Result<Notice> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(found) = self.all().into_iter().find(&is_wanted) {
                return Ok(found);
            }
            anyhow::ensure!(Instant::now() < deadline, "no such notification among {:#?}", self.all());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Clicks on a notification, or on one of its buttons.
    pub async fn click(&self, notice: &Notice, action: &str) -> anyhow::Result<()> {
        self.connection.emit_signal(None::<&str>, PATH, NAME, "ActionInvoked", &(notice.id, action)).await?;
        Ok(())
    }

    /// Goes away, as on a desktop without notifications.
    pub async fn leave(&self) -> anyhow::Result<()> {
        self.connection.release_name(NAME).await?;
        Ok(())
    }
}

struct Service {
    shown: Arc<Mutex<Vec<Notice>>>,
}

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Service {
    fn get_capabilities(&self) -> Vec<String> {
        ["actions", "body", "persistence"].map(str::to_owned).into()
    }

    fn get_server_information(&self) -> (String, String, String, String) {
        ("test".to_owned(), "Postern".to_owned(), "1".to_owned(), "1.2".to_owned())
    }

    #[expect(clippy::too_many_arguments, reason = "the interface is not ours")]
    fn notify(
        &self,
        app_name: String,
        replaces_id: u32,
        _app_icon: String,
        summary: String,
        body: String,
        actions: Vec<String>,
        _hints: HashMap<String, OwnedVariant>,
        _expire_timeout: i32,
    ) -> u32 {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(shown.len()).unwrap_or(u32::MAX).saturating_add(1);
        let id = if replaces_id == 0 { next } else { replaces_id };
        let actions = actions.into_iter().step_by(2).collect();
        shown.push(Notice { id, app: app_name, summary, body, actions, at: Instant::now() });
        id
    }

    fn close_notification(&self, _id: u32) {}
}
