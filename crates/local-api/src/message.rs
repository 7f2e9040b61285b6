//! What travels over the local API.
//!
//! | call | body → answer |
//! |---|---|
//! | `GET /v1/hello` | nothing → [`Hello`] |
//! | `GET /v1/status` | nothing → [`Status`] |
//! | `GET /v1/events` | nothing → JSON lines of [`Numbered`]: a snapshot, then events |
//! | `POST /v1/login` | [`Login`] → [`Status`] |
//! | `POST /v1/logout`, `POST /v1/lock` | nothing → [`Status`] |
//! | `POST /v1/unlock` | [`Unlock`] → [`Status`] |
//! | `POST /v1/network` | [`NetworkChoice`] → [`NetworkStatus`] |
//! | `POST /v1/connect`, `POST /v1/disconnect` | [`Selection`] → [`ChangeReport`] |
//! | `POST /v1/override` | [`PortOverride`] → [`ResourceStatus`] |
//! | `POST /v1/key-storage` | [`KeyStorageChoice`] → [`Status`] |
//! | `POST /v1/retry` | nothing → [`Status`]; a control plane that is away is tried now |
//! | `GET /v1/sessions` | nothing → `Vec<`[`LiveSession`]`>` |
//! | `POST /v1/doctor` | nothing → [`DoctorReport`] |
//! | `POST /v1/doctor/stream` | nothing → JSON lines of [`DoctorLine`] |
//! | `POST /v1/logs` | [`LogRequest`] → [`LogExport`] |
//! | `POST /v1/names` | [`NameQuestion`](crate::names::NameQuestion) → [`NameReport`](crate::names::NameReport) |
//! | `POST /v1/control` | [`ControlCall`] → [`ControlAnswer`] |
//! | `POST /v1/shutdown` | nothing → 202 |
//!
//! Every refusal is a [`postern_proto::problem::Problem`].

mod change;
mod control;
mod doctor;
mod event;
mod gateway;
mod health;
mod key_storage;
mod log;
mod network;
mod resource;
mod route;
mod session;
mod sign_in;
mod status;

pub use change::{ChangeReport, PortOverride, Selection};
pub use control::{ControlAnswer, ControlCall};
pub use doctor::{Check, CheckGroup, DoctorLine, DoctorReport, Verdict};
pub use event::{Event, NoticeLevel, Numbered};
pub use gateway::{GatewayState, GatewayStatus};
pub use health::{HealthItem, Severity, Trouble};
pub use key_storage::{KeyPlace, KeyStorage, KeyStorageChoice};
pub use log::{LogExport, LogRequest, Redaction};
pub use network::{NameService, NetworkChoice, NetworkFault, NetworkMoved, NetworkStatus, NetworkUp};
pub use resource::{Connection, PortHolder, ResourceState, ResourceStatus};
pub use route::{Hop, Route};
pub use session::LiveSession;
pub use sign_in::{Login, SignIn, Trust, Unlock};
pub use status::{ControlLink, Hello, Status, StatusApi};

/// The version of these messages. Client and service of different versions say so in a sentence.
pub const VERSION: u32 = 1;
