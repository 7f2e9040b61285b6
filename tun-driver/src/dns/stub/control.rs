//! How netd tells the stub what to do: one JSON line each way on a Unix socket.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::interface::Zone;

/// Where the stub listens for netd.
pub const DEFAULT_SOCKET: &str = "/run/postern-dns/control.sock";
/// Names another socket than [`DEFAULT_SOCKET`].
pub const SOCKET_VARIABLE: &str = "POSTERN_DNS_SOCKET";

/// 127 users with 512 zones of the longest names each.
const MAX_LINE: u64 = 32 << 20;
/// The stub does nothing that takes long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which names are asked where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routes {
    pub links: Vec<LinkRoute>,
    /// For all other names, in their order.
    pub upstreams: Vec<SocketAddr>,
}

/// The zones of one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkRoute {
    pub zones: Vec<Zone>,
    pub servers: Vec<SocketAddr>,
}

/// From netd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Order {
    /// Answer on `listen`, UDP and TCP. Replaces the routes of before. When netd is gone this goes on for as long as
    /// `resolv_conf` asks there, so that the machine keeps its DNS.
    Serve {
        listen: SocketAddr,
        resolv_conf: PathBuf,
        routes: Routes,
    },
    Stop,
}

/// From the stub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Answer {
    Done,
    Failed { reason: String },
}

impl Routes {
    /// Takes `stub` and every server of a link out of the upstreams: a query must not come back to us.
    pub(crate) fn without_loops(mut self, stub: SocketAddr) -> Self {
        let links = &self.links;
        let ours = |server: &SocketAddr| *server == stub || links.iter().any(|link| link.servers.contains(server));
        self.upstreams.retain(|server| !server.ip().is_unspecified() && !ours(server));
        self
    }
}

/// netd's end.
#[derive(Debug)]
pub(crate) struct Control {
    lines: Lines,
}

/// Reads and writes messages, one a line.
#[derive(Debug)]
pub(crate) struct Lines {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Control {
    pub(crate) async fn connect(socket: &Path) -> io::Result<Self> {
        let stream = timeout(PATIENCE, UnixStream::connect(socket)).await??;
        Ok(Self { lines: Lines::new(stream) })
    }

    /// # Errors
    /// The stub is gone, or its sentence about why it cannot.
    pub(crate) async fn order(&mut self, order: &Order) -> io::Result<()> {
        let exchange = async {
            self.lines.write(order).await?;
            self.lines.read::<Answer>().await
        };
        match timeout(PATIENCE, exchange).await?? {
            Some(Answer::Done) => Ok(()),
            Some(Answer::Failed { reason }) => Err(io::Error::other(reason)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Returns when the stub is gone.
    pub(crate) async fn gone(&mut self) {
        // It never speaks unasked: whatever this gives is an end.
        let _ = self.lines.reader.fill_buf().await;
    }
}

impl Lines {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer }
    }

    /// `None` at the end.
    pub(crate) async fn read<M: serde::de::DeserializeOwned>(&mut self) -> io::Result<Option<M>> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
            Some(_) if read as u64 == MAX_LINE => Err(io::Error::other("a message is too long")),
            Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub(crate) async fn write<M: Serialize + Sync>(&mut self, message: &M) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.writer.write_all(&line).await
    }
}
