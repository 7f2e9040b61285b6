//! A host for tray icons: what registers can be asked for its menu, and an item of that can be clicked by its label.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::Context as _;
use zbus::{Connection, ObjectPath, OwnedVariant, Variant, message::Header};

use super::{DEADLINE, POLL};

const WATCHER: &str = "org.kde.StatusNotifierWatcher";
const WATCHER_PATH: &str = "/StatusNotifierWatcher";
const ITEM: &str = "org.kde.StatusNotifierItem";
const MENU: &str = "com.canonical.dbusmenu";

/// An item as `GetLayout` gives it: number, properties, items below.
type Layout = (i32, HashMap<String, OwnedVariant>, Vec<OwnedVariant>);

/// One line of a menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MenuItem {
    id: i32,
    /// Without mnemonics; empty for a line between groups.
    pub label: String,
    pub enabled: bool,
    /// `None`: cannot be checked.
    pub checked: Option<bool>,
    pub items: Vec<Self>,
}

impl MenuItem {
    /// This one and all below it.
    #[must_use]
    pub fn all(&self) -> Vec<&Self> {
        std::iter::once(self).chain(self.items.iter().flat_map(Self::all)).collect()
    }
}

/// The tray of one desktop.
#[derive(Clone)]
pub struct Tray {
    registered: Arc<Mutex<Vec<String>>>,
    connection: Connection,
}

impl Tray {
    pub(super) async fn serve(connection: &Connection) -> anyhow::Result<Self> {
        let registered = Arc::new(Mutex::new(Vec::new()));
        let watcher = Watcher { registered: Arc::clone(&registered) };
        connection.object_server().at(WATCHER_PATH, watcher).await?;
        connection.request_name(WATCHER).await?;
        Ok(Self { registered, connection: connection.clone() })
    }

    /// Goes away, as on a desktop without a tray.
    pub async fn leave(&self) -> anyhow::Result<()> {
        self.connection.release_name(WATCHER).await?;
        Ok(())
    }

    /// A property of the icon, once there is an icon: `Title`, `Status`, `ToolTip` …
    pub async fn property(&self, name: &str) -> anyhow::Result<OwnedVariant> {
        let (service, path) = self.item().await?;
        self.property_of(&service, &path, name).await
    }

    /// The whole menu: its items are those of the root.
    pub async fn menu(&self) -> anyhow::Result<MenuItem> {
        let (service, path) = self.menu_path().await?;
        let body = (0_i32, -1_i32, Vec::<String>::new());
        let reply = self.connection.call_method(Some(service.as_str()), path.as_str(), Some(MENU), "GetLayout", &body);
        let reply = reply.await.context("the menu does not answer")?;
        let (_revision, root): (u32, Layout) = reply.body().deserialize().context("the menu has another form")?;
        let (id, properties, children) = root;
        let properties = properties.iter().map(|(key, value)| (key.as_str(), &**value)).collect();
        read_item(id, &properties, children.iter().map(|child| &**child))
    }

    /// The menu once `holds` says yes.
    pub async fn menu_when(&self, holds: impl Fn(&MenuItem) -> bool) -> anyhow::Result<MenuItem> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let menu = self.menu().await;
            match menu {
                Ok(menu) if holds(&menu) => return Ok(menu),
                last => anyhow::ensure!(Instant::now() < deadline, "the menu stays {last:#?}"),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Clicks the item whose label begins with `label`, once there is one that can be clicked.
    pub async fn click(&self, label: &str) -> anyhow::Result<()> {
        self.click_below(&[], label).await
    }

    /// The same below other items, each named by the beginning of its label.
    pub async fn click_below(&self, above: &[&str], label: &str) -> anyhow::Result<()> {
        let is_it = |item: &&MenuItem| item.enabled && item.items.is_empty() && item.label.starts_with(label);
        let find = |menu: &MenuItem| {
            let mut root = menu.clone();
            for name in above {
                root = root.items.into_iter().find(|item| item.label.starts_with(name))?;
            }
            root.all().into_iter().find(is_it).map(|item| item.id)
        };
        let deadline = Instant::now() + DEADLINE;
        loop {
            let menu =
                self.menu_when(|menu| find(menu).is_some()).await.with_context(|| format!("{above:?} {label:?}"))?;
            let item = find(&menu).context("the item went away")?;
            let (service, path) = self.menu_path().await?;
            let body = (item, "clicked", Variant::I32(0), 0_u32);
            match self.connection.call_method(Some(service.as_str()), path.as_str(), Some(MENU), "Event", &body).await {
                Ok(_) => return Ok(()),
                // The menu was made anew in between, and its items have other numbers.
                Err(zbus::Error::MethodError(..)) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                Err(error) => return Err(error).with_context(|| format!("cannot click {label:?}")),
            }
        }
    }

    /// A left click on the icon itself.
    pub async fn activate(&self) -> anyhow::Result<()> {
        let (service, path) = self.item().await?;
        let body = (0_i32, 0_i32);
        self.connection.call_method(Some(service.as_str()), path.as_str(), Some(ITEM), "Activate", &body).await?;
        Ok(())
    }

    /// Bus name and path of the icon.
    async fn item(&self) -> anyhow::Result<(String, String)> {
        let registered = super::until("an icon in the tray", || {
            Ok(self.registered.lock().unwrap_or_else(PoisonError::into_inner).last().cloned())
        })
        .await?;
        let at = registered.find('/').unwrap_or(registered.len());
        let (service, path) = registered.split_at(at);
        let path = if path.is_empty() { "/StatusNotifierItem" } else { path };
        Ok((service.to_owned(), path.to_owned()))
    }

    async fn menu_path(&self) -> anyhow::Result<(String, String)> {
        let (service, path) = self.item().await?;
        let menu = self.property_of(&service, &path, "Menu").await?;
        let menu: ObjectPath<'_> = menu.downcast_ref().context("the menu's path has another form")?;
        Ok((service, menu.to_string()))
    }

    async fn property_of(&self, service: &str, path: &str, name: &str) -> anyhow::Result<OwnedVariant> {
        let interface = Some("org.freedesktop.DBus.Properties");
        let reply = self.connection.call_method(Some(service), path, interface, "Get", &(ITEM, name)).await?;
        Ok(reply.body().deserialize::<OwnedVariant>()?)
    }
}

fn read_item<'a>(
    id: i32,
    properties: &HashMap<&str, &Variant<'_>>,
    children: impl Iterator<Item = &'a Variant<'a>>,
) -> anyhow::Result<MenuItem> {
    let text = |name: &str| match properties.get(name) {
        Some(Variant::Str(text)) => text.as_str().to_owned(),
        _ => String::new(),
    };
    let flag = |name: &str| !matches!(properties.get(name), Some(Variant::Bool(false)));
    let checked = match (text("toggle-type").as_str(), properties.get("toggle-state")) {
        ("", _) => None,
        (_, Some(Variant::I32(state))) => Some(*state == 1),
        _ => Some(false),
    };
    let mut items = Vec::new();
    for child in children {
        let item = read_child(child)?;
        items.extend(item);
    }
    let label = text("label").replace("__", "\u{0}").replace('_', "").replace('\u{0}', "_");
    Ok(MenuItem { id, label, enabled: flag("enabled") && text("type") != "separator", checked, items })
}

/// `None`: not to be seen.
fn read_child(child: &Variant<'_>) -> anyhow::Result<Option<MenuItem>> {
    let child = match child {
        Variant::Variant(inner) => inner,
        other => other,
    };
    let Variant::Structure(parts) = child else { anyhow::bail!("an item of the menu is {child:?}") };
    let [Variant::I32(id), Variant::Dict(properties), Variant::Array(children)] = parts.fields() else {
        anyhow::bail!("an item of the menu is {parts:?}")
    };
    let properties: HashMap<&str, &Variant<'_>> = properties
        .iter()
        .filter_map(|(key, value)| {
            let Variant::Str(key) = key else { return None };
            let value = match value {
                Variant::Variant(inner) => inner,
                other => other,
            };
            Some((key.as_str(), value))
        })
        .collect();
    if matches!(properties.get("visible"), Some(Variant::Bool(false))) {
        return Ok(None);
    }
    read_item(*id, &properties, children.inner().iter()).map(Some)
}

struct Watcher {
    registered: Arc<Mutex<Vec<String>>>,
}

#[zbus::interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    /// Either a bus name, or a path on the caller.
    fn register_status_notifier_item(&self, service: String, #[zbus(header)] header: Header<'_>) {
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        let item = if service.starts_with('/') { format!("{sender}{service}") } else { service };
        self.registered.lock().unwrap_or_else(PoisonError::into_inner).push(item);
    }

    fn register_status_notifier_host(&self, _service: String) {}

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }

    #[zbus(property)]
    fn protocol_version(&self) -> i32 {
        0
    }

    #[zbus(property)]
    fn registered_status_notifier_items(&self) -> Vec<String> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
