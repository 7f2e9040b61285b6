//! What the desktop around the app says: whether it has a tray, notifications, a dark theme.

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

/// Something that the desktop said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// There is a place for tray icons, or no longer one.
    TrayHost(bool),
    /// The system asks for a dark theme; `None`: it does not care.
    Dark(Option<bool>),
    NotificationService(bool),
    /// The screen was locked.
    ScreenLocked,
}

const WATCHER: &str = "org.kde.StatusNotifierWatcher";
const NOTIFICATIONS: &str = "org.freedesktop.Notifications";
const PORTAL: &str = "org.freedesktop.portal.Desktop";

/// Follows the desktop. Ends when there is no session bus: then there is no tray, and so it is said.
pub fn follow() -> mpsc::Receiver<Said> {
    // Full only while the app is busy; then the watching waits.
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        if let Err(error) = watch(&sender).await {
            tracing::info!(%error, "the desktop cannot be followed");
            let _ = sender.send(Said::TrayHost(false)).await;
        }
    });
    receiver
}

async fn watch(sender: &mpsc::Sender<Said>) -> zbus::Result<()> {
    let bus = zbus::Connection::session().await?;
    let dbus = zbus::fdo::DBusProxy::new(&bus).await?;
    let mut owners = dbus.receive_name_owner_changed().await?;
    let mut dark = Box::pin(follow_theme(&bus, sender).await);
    let mut locks = Box::pin(screen_locks(&bus).await?);
    let here = async |name: &str| match name.try_into() {
        Ok(name) => dbus.name_has_owner(name).await.unwrap_or(false),
        Err(_) => false,
    };
    let _ = sender.send(Said::TrayHost(here(WATCHER).await)).await;
    let startable = dbus.list_activatable_names().await.unwrap_or_default();
    let startable = startable.iter().any(|name| name.as_str() == NOTIFICATIONS);
    let _ = sender.send(Said::NotificationService(startable || here(NOTIFICATIONS).await)).await;
    loop {
        tokio::select! {
            change = owners.next() => {
                let Some(change) = change else { return Ok(()) };
                let Ok(arguments) = change.args() else { continue };
                let present = arguments.new_owner().is_some();
                let said = match arguments.name().as_str() {
                    WATCHER => Said::TrayHost(present),
                    NOTIFICATIONS => Said::NotificationService(present || startable),
                    _ => continue,
                };
                if sender.send(said).await.is_err() {
                    return Ok(());
                }
            }
            Some(said) = dark.next() => {
                if sender.send(said).await.is_err() {
                    return Ok(());
                }
            }
            Some(said) = locks.next() => {
                if sender.send(said).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// The portal's wish for a dark theme, now and when it changes. An empty stream where there is no portal.
async fn follow_theme(
    bus: &zbus::Connection,
    sender: &mpsc::Sender<Said>,
) -> futures_util::stream::BoxStream<'static, Said> {
    let settings = async {
        let proxy =
            zbus::Proxy::new(bus, PORTAL, "/org/freedesktop/portal/desktop", "org.freedesktop.portal.Settings").await?;
        let value: zbus::OwnedVariant = proxy.call("ReadOne", &("org.freedesktop.appearance", "color-scheme")).await?;
        let changes = proxy.receive_signal("SettingChanged").await?;
        Ok::<_, zbus::Error>((u32::try_from(value).unwrap_or(0), changes))
    };
    let Ok((scheme, changes)) = settings.await else { return futures_util::stream::empty().boxed() };
    let _ = sender.send(Said::Dark(dark(scheme))).await;
    changes
        .filter_map(async |signal| {
            let (space, key, value): (String, String, zbus::OwnedVariant) = signal.body().deserialize().ok()?;
            let ours = space == "org.freedesktop.appearance" && key == "color-scheme";
            ours.then(|| Said::Dark(dark(u32::try_from(value).unwrap_or(0))))
        })
        .boxed()
}

/// Each time the screen is locked. Desktops have interfaces of their own for it, which end alike
/// (`org.gnome.ScreenSaver`, `org.freedesktop.ScreenSaver`, …). Whoever makes it up can lock Postern, and no more.
async fn screen_locks(bus: &zbus::Connection) -> zbus::Result<impl futures_util::Stream<Item = Said> + use<>> {
    let rule = zbus::MatchRule::builder().msg_type(zbus::message::Type::Signal).member("ActiveChanged").build()?;
    let signals = zbus::MessageStream::for_match_rule(rule, bus, None).await?;
    Ok(signals.filter_map(async |signal| {
        let signal = signal.ok()?;
        let ours = signal.header().interface().is_some_and(|interface| interface.as_str().ends_with(".ScreenSaver"));
        let locked = ours && signal.body().deserialize::<bool>().ok()?;
        locked.then_some(Said::ScreenLocked)
    }))
}

/// 1 means dark, 2 light, 0 no wish (org.freedesktop.appearance).
const fn dark(scheme: u32) -> Option<bool> {
    match scheme {
        1 => Some(true),
        2 => Some(false),
        _ => None,
    }
}
