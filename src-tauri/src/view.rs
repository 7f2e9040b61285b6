//! What the front end sees: plain data, made in Rust and only laid out by the window.
//!
//! The first message on the channel of `watch` holds one [`Change::View`]: everything. Each later message is a list of
//! changes to it, in order, at most one message every 100 ms. TypeScript for all of this is generated into
//! `ui/src/lib/generated/`; a test fails when that is out of step (`POSTERN_WRITE_TYPES=1` writes it anew).
//!
//! Times are milliseconds since 1970 UTC, durations say their unit in their name, `null` means "none" or "not known".
//! Sentences (`what`, `why`, `remedy`, `detail`, `text`) are ready to be shown, and come from the service where it has one.

use serde::{Deserialize, Serialize};

pub mod details;
pub mod doctor;
pub mod row;
pub mod service;
pub mod settings;

pub use details::{Details, Hop, Route, Session, Tool, Traffic};
pub use doctor::{Doctor, DoctorCheck, DoctorGroup, DoctorState, LogExport, LogPart, Redaction, SavedFile, Verdict};
pub use row::{Kind, ResourceState, Row, Trouble};
pub use service::{
    AddressVerdict, Control, Credential, Gateway, GatewayState, HealthItem, KeyChoice, KeyStorage, Link, Network,
    NetworkFault, Notice, NoticeLevel, Service, Severity, SignIn, SignInRequest, Trust,
};
pub use settings::{CloseBehaviour, Density, NotificationKind, QuitBehaviour, Settings, Theme, UpdateChannel};

/// Why something failed, in the form of the design: what failed, why, what to do; the code last and small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[error("{what}")]
pub struct Problem {
    /// Stable and made for programs, snake case: `target_refused`, `port_taken` …
    pub code: String,
    /// One sentence: what failed. Never empty.
    pub what: String,
    /// Why; may be empty.
    pub why: String,
    /// What to do; may be empty.
    pub remedy: String,
    /// Which field of a form is to blame: `address`, `email`, `password`, `trust`, `port` …
    pub field: Option<String>,
}

/// Everything that the window shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct View {
    pub service: Service,
    /// All resources, by name. Search, filters and order are the front end's.
    pub rows: Vec<Row>,
    pub settings: Settings,
    pub desktop: Desktop,
    /// What a person is being asked; the window shows it as a dialog.
    pub question: Option<Question>,
    /// The current or the last run of the doctor in this window.
    pub doctor: Option<Doctor>,
    /// The clock that the times of this view were taken by, to correct the front end's own.
    pub now: u64,
}

/// One change to a [`View`], or something that passes by.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Change {
    /// All of it: replaces whatever the front end holds. Always the first; comes again when much has changed at once.
    View {
        view: Box<View>,
    },
    /// These rows are new or different; others stay as they are.
    RowsChanged {
        rows: Vec<Row>,
    },
    /// These resources are gone.
    RowsRemoved {
        ids: Vec<String>,
    },
    /// Everything of the service but its resources.
    Service {
        service: Box<Service>,
    },
    Settings {
        settings: Box<Settings>,
    },
    Desktop {
        desktop: Box<Desktop>,
    },
    /// Asked, or answered (`null`).
    Question {
        question: Option<Question>,
    },
    /// The resource that `open_details` named: at once, and at most once a second while it changes.
    Details {
        details: Box<Details>,
    },
    /// The run of the doctor went on.
    Doctor {
        doctor: Option<Doctor>,
    },
    /// Something to show once, in the window's notice area.
    Notice {
        notice: Notice,
    },
    /// The window should show this place: somebody chose it in the tray, in a notification or by a second start.
    Go {
        place: Place,
    },
}

/// A place in the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "place")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Place {
    /// The list; sign-in or the lock where those apply.
    Home,
    /// The list with the details of this resource.
    Resource {
        id: String,
    },
    SignIn,
    Settings,
    Diagnostics,
    About,
}

/// What a person is being asked, whatever place the window shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "question")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Question {
    /// "Quit Postern?" Answer with `answer_quit`.
    Quit {
        /// Resources that are switched on.
        connected: u32,
        /// Streams that "disconnect and quit" would cut.
        streams: u32,
    },
    /// A link asks for a resource; it never acts by itself. Answer with `answer_link`.
    Link {
        /// As the link spells it; already free of control characters and at most 200 characters long.
        name: String,
        /// The resource of that name. `null`: the account has none.
        id: Option<String>,
        /// Its state now.
        state: Option<ResourceState>,
        /// Its address.
        address: Option<String>,
    },
}

/// What "Quit Postern?" is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum QuitAnswer {
    /// The app ends, the service goes on.
    KeepConnected,
    /// Disconnect everything, then end.
    Disconnect,
    Cancel,
}

/// This app and the machine it runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Desktop {
    /// Version of this app, for About and the footer of the sign-in page.
    pub version: String,
    /// `linux`, `macos` or `windows`: Ctrl or Cmd, and the words for tray and keyring.
    pub system: String,
    /// Languages that the tray and the notifications know, as BCP 47 tags.
    pub languages: Vec<String>,
    /// The user's language by the environment, one of `languages`.
    pub system_language: String,
    /// The system asks for a dark theme. `null`: it does not say; follow `prefers-color-scheme`.
    pub system_dark: Option<bool>,
    /// Whether there is a tray. Without one, closing the window never hides it.
    pub tray: Tray,
    /// Whether a notification service answers. `false`: the settings of notifications say so.
    pub notifications: bool,
    /// Native tools that are installed, for all kinds of resources.
    pub tools: Vec<Tool>,
    /// Where the settings are kept, for About.
    pub settings_file: String,
    /// The socket of the service, for About and the report.
    pub socket: String,
    /// The scenario of the mock service; `null` in earnest.
    pub mock: Option<String>,
}

/// Whether there is a tray.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Tray {
    /// Not known yet.
    Starting,
    Shown,
    /// This desktop shows none, for this reason.
    Missing {
        reason: String,
    },
}

/// Which resources a command is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "which")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Which {
    All,
    Favourites,
    /// By id. At most 10,000 of them.
    Ids {
        ids: Vec<String>,
    },
}

/// What `connect` or `disconnect` did. The rows themselves come over the channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Changed {
    /// How many resources were meant.
    pub selected: u32,
    /// How many of them are in another state than before.
    pub changed: u32,
    /// Those that could not follow.
    pub failed: Vec<Failed>,
}

/// A resource that did not do as it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Failed {
    pub id: String,
    pub name: String,
    pub problem: Problem,
}

/// What to put on the clipboard. The app puts it there: the page may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "clip")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Clip {
    /// The address, DNS name first; several as lines.
    Addresses { ids: Vec<String> },
    /// The ready command, such as `psql -h 127.0.0.1 -p 15432`; several as lines.
    Commands { ids: Vec<String> },
    /// State, trouble, route and versions of one resource, for an admin.
    Report { id: String },
    /// Text that the page shows: a command of the doctor, a path. At most 64 KiB.
    Text { text: String },
}

/// What was put on the clipboard, for the feedback and its announcement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Copied {
    pub text: String,
    /// How many things it holds.
    pub count: u32,
}

/// How looking up a name and connecting to it went: the last step of the network guide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct NameTrial {
    /// The name that was tried.
    pub name: String,
    /// What the system answers for it.
    pub address: Option<String>,
    /// `null`: it works.
    pub problem: Option<Problem>,
}

/// Whether a port may be a resource's own on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct PortVerdict {
    /// `null`: it may be used.
    pub problem: Option<Problem>,
    /// Ports that may be used instead, best first; the assigned one is among them when it is free.
    pub free: Vec<u16>,
    /// The port when there is no override.
    pub assigned: u16,
    /// The lowest and the highest port that may be chosen.
    pub lowest: u16,
    pub highest: u16,
}

#[cfg(test)]
pub(crate) mod tests;
