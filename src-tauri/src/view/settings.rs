//! What a person chooses. Kept in one file, which only the user may read; it applies at once.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Theme {
    #[default]
    System,
    Light,
    Dark,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Density {
    #[default]
    Normal,
    Compact,
}

/// What closing the window does. Without a tray, `Hide` counts as `Quit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum CloseBehaviour {
    /// The app goes on in the tray.
    #[default]
    Hide,
    Minimise,
    /// The same as "Quit" in the tray, with its question.
    Quit,
}

/// What "Quit" does when something is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum QuitBehaviour {
    #[default]
    Ask,
    KeepConnected,
    Disconnect,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum UpdateChannel {
    #[default]
    Stable,
    Beta,
}

/// Kinds of notifications; each can be turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum NotificationKind {
    /// The sign-in ends in 10 or in 2 minutes, or has ended.
    SignInEnds,
    /// A resource was granted.
    AccessGranted,
    /// A resource is no longer allowed.
    AccessLost,
    /// A resource that is switched on became unreachable.
    Unreachable,
    /// A new version is ready.
    Update,
    /// Something else that the service wants to be known, such as a moved address range.
    Service,
}

impl NotificationKind {
    pub const ALL: [Self; 6] =
        [Self::SignInEnds, Self::AccessGranted, Self::AccessLost, Self::Unreachable, Self::Update, Self::Service];
}

/// Everything that the settings screen changes, but for the virtual network (`set_network`), ports (`set_override`) and
/// favourites (`set_favourite`, `order_favourites`), which are not the window's alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Settings {
    pub theme: Theme,
    pub density: Density,
    /// A BCP 47 tag of `desktop.languages`; `null`: the system's.
    pub language: Option<String>,
    /// Kinds that are turned off.
    pub muted: Vec<NotificationKind>,
    /// Single-letter shortcuts in the list.
    pub shortcuts: bool,
    /// Start this app (hidden in the tray) when the user logs in. The system's own entry decides; this shows it.
    pub start_at_login: bool,
    /// Connect the favourites when the app starts.
    pub connect_favourites: bool,
    /// Lock Postern when the screen is locked.
    pub lock_with_screen: bool,
    pub close: CloseBehaviour,
    pub quit: QuitBehaviour,
    pub update_channel: UpdateChannel,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            theme: Theme::default(),
            density: Density::default(),
            language: None,
            muted: Vec::new(),
            shortcuts: true,
            start_at_login: false,
            connect_favourites: false,
            lock_with_screen: false,
            close: CloseBehaviour::default(),
            quit: QuitBehaviour::default(),
            update_channel: UpdateChannel::default(),
        }
    }
}
