//! The client's side: warm connections to the entries of the data path, and [`carry`], which carries a local connection
//! over one of them.

use std::{fmt, io, sync::Arc};

use postern_proto::{
    head::{Refused, Request},
    id::NodeId,
    problem::Problem,
};
use tokio::net::TcpStream;

use crate::{
    stream::{EndCause, StreamControl, StreamEnd},
    tls::{ClientTls, TlsError},
};

/// An entry into the data path: one node at one address, with the idle connections to it.
pub struct Entry {
    node: NodeId,
    address: String,
}

impl Entry {
    /// `address` is `host:port`; the name is resolved with every dial.
    pub fn new(node: NodeId, address: impl Into<String>, tls: ClientTls) -> Result<Arc<Self>, TlsError> {
        let _ = tls;
        Ok(Arc::new(Self { node, address: address.into() }))
    }

    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Takes a renewed certificate for the connections to come.
    pub fn set_tls(&self, tls: ClientTls) {
        let _ = tls;
    }

    /// Makes a spare connection ready, in the background, because a stream is to be expected.
    pub fn warm(self: &Arc<Self>) {}

    /// How many connections stand idle.
    #[must_use]
    pub const fn idle(&self) -> usize {
        0
    }

    /// Closes the idle connections and keeps no more; running streams go on.
    pub fn close(&self) {}
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("node", &self.node).field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why an entry could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{address} cannot be reached")]
    Unreachable { address: String, source: io::Error },
    #[error("{address} does not answer")]
    TimedOut { address: String },
    #[error("{address} is not the gateway that it should be, or does not accept this device")]
    Handshake { address: String, source: io::Error },
}

/// One try to open a stream: where, and with which head.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub entry: Arc<Entry>,
    pub request: Request,
}

/// Why a try did not open the stream.
#[derive(Debug)]
pub enum Failure {
    /// The node refused it with 401 (renew the lease), 421 (take the route in it) or 503 (take another node).
    Refused { entry: Arc<Entry>, refused: Refused },
    /// The entry could not be dialled.
    Dial { entry: Arc<Entry>, error: DialError },
    /// A fresh connection broke before the node answered.
    Lost { entry: Arc<Entry> },
}

/// Says where a stream goes, and where else when that fails.
pub trait StreamGuide: Send {
    /// The next try. `number` counts from 0; `failure` is why the one before did not work. An error ends the stream and
    /// is what the user is told.
    ///
    /// Other refusals than those of [`Failure::Refused`] are final and never asked about; 401 and 421 are tried once.
    fn next_attempt(
        &mut self,
        number: u32,
        failure: Option<&Failure>,
    ) -> impl Future<Output = Result<Attempt, Problem>> + Send;
}

/// Carries `local` to the resource that the guide's requests name, until both sides are done or it breaks.
///
/// The local program is reset whenever anything but an orderly end happened, so that a truncated transfer never looks
/// complete. Every byte it sends goes to the target once, whatever attempts were needed.
pub async fn carry(local: TcpStream, mut guide: impl StreamGuide, control: StreamControl) -> StreamEnd {
    let problem = match guide.next_attempt(0, None).await {
        Ok(_) => Problem::new(501, "not-built", "The carrier is not built yet"),
        Err(problem) => problem,
    };
    drop(local);
    control.end(EndCause::Refused(Box::new(problem)))
}
