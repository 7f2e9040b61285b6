//! What the app asks of posternd, and the two that answer: the real one and one for working on the window alone.

use futures_util::future::BoxFuture;
use postern_local_api::{
    client::ClientError,
    message::{
        ChangeReport, ControlAnswer, ControlCall, DoctorLine, Event, KeyStorageChoice, LiveSession, LogExport,
        LogRequest, Login, NetworkChoice, NetworkStatus, PortOverride, ResourceStatus, Selection, Unlock,
    },
    names::{NameQuestion, NameReport},
};
use tokio::sync::mpsc;

pub mod mock;
pub mod real;

/// How many events wait for the app. When it is full the service waits, and in the end sends a snapshot instead.
const WAITING: usize = 256;

/// What comes from the service by itself.
#[derive(Debug)]
pub enum Heard {
    Event(Box<Event>),
    /// It does not answer; it is tried again. The next thing heard is a snapshot.
    Lost(ClientError),
    /// It cannot be talked to for a reason that waiting does not mend. It is tried again, rarely.
    Refused(ClientError),
}

pub type Answer<'a, T> = BoxFuture<'a, Result<T, ClientError>>;

/// The local API as the app uses it. What changes comes by [`Service::follow`]; answers are only waited for.
pub trait Service: Send + Sync {
    /// Follows the service for as long as somebody listens. Told once at the start of the app.
    fn follow(&self) -> mpsc::Receiver<Heard>;
    /// Starts the service program. `Ok` when it answers.
    fn start(&self) -> BoxFuture<'_, Result<(), StartError>>;
    /// Whether it is gone without having stopped in good order.
    fn broke_down(&self) -> BoxFuture<'_, bool>;
    fn shutdown(&self) -> Answer<'_, ()>;
    fn login(&self, login: Login) -> Answer<'_, ()>;
    fn logout(&self) -> Answer<'_, ()>;
    fn lock(&self) -> Answer<'_, ()>;
    fn unlock(&self, unlock: Unlock) -> Answer<'_, ()>;
    fn connect(&self, selection: Selection) -> Answer<'_, ChangeReport>;
    fn disconnect(&self, selection: Selection) -> Answer<'_, ChangeReport>;
    fn port_override(&self, choice: PortOverride) -> Answer<'_, ResourceStatus>;
    fn key_storage(&self, choice: KeyStorageChoice) -> Answer<'_, ()>;
    fn network(&self, choice: NetworkChoice) -> Answer<'_, NetworkStatus>;
    fn retry(&self) -> Answer<'_, ()>;
    fn sessions(&self) -> Answer<'_, Vec<LiveSession>>;
    /// Runs the doctor; lines go to `lines` as they come. Ends after the last one, or when nobody takes them any more.
    fn doctor(&self, lines: mpsc::Sender<DoctorLine>) -> Answer<'_, ()>;
    fn logs(&self, request: LogRequest) -> Answer<'_, LogExport>;
    fn names(&self, question: NameQuestion) -> Answer<'_, NameReport>;
    fn control(&self, call: ControlCall) -> Answer<'_, ControlAnswer>;
}

/// Why posternd does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("posternd is neither beside this program nor in PATH")]
    NotInstalled,
    #[error("{program} cannot be run: {error}")]
    NotRun { program: String, error: std::io::Error },
    /// It ended by itself; its last words.
    #[error("posternd ended at once{}", if .said.is_empty() { String::new() } else { format!(": {said}") })]
    Ended { said: String },
    #[error("posternd was started, but does not answer within {} s", .after.as_secs())]
    Silent { after: std::time::Duration },
}
