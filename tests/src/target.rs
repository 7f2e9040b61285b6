//! Small TCP servers inside the test that count what reaches them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// What a [`Target`] does with a connection.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    /// Sends back what it gets, and ends when the client does.
    Echo,
    /// Reads to the end and answers with the number of bytes, in decimal.
    Count,
    /// Sends random-looking bytes for ever.
    Flood,
    /// Takes nothing and says nothing.
    Deaf,
}

/// A server on a free port, of 127.0.0.1 unless it was told otherwise.
pub struct Target {
    address: SocketAddr,
    seen: Arc<Seen>,
    closing: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    accepted: AtomicU64,
    open: AtomicU64,
    bytes: AtomicU64,
    complete: AtomicU64,
    /// When the last byte or the end of each connection was seen.
    last: Mutex<BTreeMap<SocketAddr, Instant>>,
    received: Mutex<Vec<u8>>,
}

/// The first bytes of all connections are kept up to this length, to say what came through.
const KEPT: usize = 4096;

impl Target {
    pub async fn start(behaviour: Behaviour) -> anyhow::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), behaviour).await
    }

    /// The same at another address of this machine.
    pub async fn start_at(host: IpAddr, behaviour: Behaviour) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((host, 0)).await.context("cannot listen")?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        let closing = CancellationToken::new();
        let task = tokio::spawn(accept(listener, behaviour, Arc::clone(&seen), closing.clone()));
        Ok(Self { address, seen, closing, _task: AbortOnDropHandle::new(task) })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// How many bytes came in so far, over all connections.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.seen.bytes.load(Ordering::SeqCst)
    }

    /// How many connections that carried something said that they had sent everything. One that was cut must never be
    /// among them. A gateway's health check comes at any time and ends properly without a byte, so it is not counted.
    #[must_use]
    pub fn complete(&self) -> u64 {
        self.seen.complete.load(Ordering::SeqCst)
    }

    /// The first bytes that came in, for messages.
    #[must_use]
    pub fn received(&self) -> String {
        let received = self.seen.received.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&received).escape_debug().to_string()
    }

    /// For each connection the moment when its last byte, or its end, was seen.
    #[must_use]
    pub fn last_seen(&self) -> Vec<Instant> {
        self.seen.last.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }

    /// Waits until `count` connections are open.
    pub async fn wait_open(&self, count: u64, deadline: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        while self.open() != count {
            anyhow::ensure!(Instant::now() < end, "{} connections are open, not {count}", self.open());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Waits until at least so many bytes have come in.
    pub async fn wait_bytes(&self, bytes: u64, deadline: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        while self.bytes() < bytes {
            anyhow::ensure!(Instant::now() < end, "{} bytes came in, not {bytes}", self.bytes());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Closes all connections and takes no more.
    pub fn close(&self) {
        self.closing.cancel();
    }
}

async fn accept(listener: TcpListener, behaviour: Behaviour, seen: Arc<Seen>, closing: CancellationToken) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => return,
        };
        let Ok((stream, peer)) = accepted else { continue };
        seen.accepted.fetch_add(1, Ordering::SeqCst);
        seen.open.fetch_add(1, Ordering::SeqCst);
        let seen = Arc::clone(&seen);
        tasks.spawn(async move {
            // How a connection ends is for the client's side to judge.
            let _ = serve(stream, peer, behaviour, &seen).await;
            seen.touch(peer);
            seen.open.fetch_sub(1, Ordering::SeqCst);
        });
        while tasks.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, peer: SocketAddr, behaviour: Behaviour, seen: &Seen) -> std::io::Result<()> {
    match behaviour {
        Behaviour::Echo => {
            let (mut from, mut to) = stream.split();
            let mut total = 0;
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let read = from.read(&mut buffer).await?;
                if read == 0 {
                    seen.end(total);
                    return to.shutdown().await;
                }
                total += read;
                let piece = buffer.get(..read).unwrap_or_default();
                seen.count(peer, piece);
                to.write_all(piece).await?;
            }
        }
        Behaviour::Count => {
            let mut total = 0;
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let read = stream.read(&mut buffer).await?;
                if read == 0 {
                    seen.end(total);
                    break;
                }
                total += read;
                seen.count(peer, buffer.get(..read).unwrap_or_default());
            }
            stream.write_all(total.to_string().as_bytes()).await?;
            stream.shutdown().await
        }
        Behaviour::Deaf => {
            // A health check sends nothing.
            if stream.peek(&mut [0]).await? == 0 {
                return Ok(());
            }
            // An error is the one thing that is noticed without reading.
            let error = stream.ready(tokio::io::Interest::ERROR).await?;
            if error.is_error() { Ok(()) } else { std::future::pending().await }
        }
        Behaviour::Flood => {
            let piece = crate::content::bytes(1, 64 * 1024);
            let (mut from, mut to) = stream.split();
            let mut total = 0;
            let mut buffer = vec![0; 4096];
            loop {
                // Whoever reads nothing of the flood is listened to all the same.
                let read = tokio::select! {
                    written = to.write(&piece) => {
                        written?;
                        seen.touch(peer);
                        continue;
                    }
                    read = from.read(&mut buffer) => read?,
                };
                if read == 0 {
                    seen.end(total);
                    return Ok(());
                }
                total += read;
                seen.count(peer, buffer.get(..read).unwrap_or_default());
            }
        }
    }
}

impl Seen {
    /// A connection ended properly after `total` bytes.
    fn end(&self, total: usize) {
        self.complete.fetch_add(u64::from(total > 0), Ordering::SeqCst);
    }

    fn count(&self, peer: SocketAddr, piece: &[u8]) {
        self.bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
        self.touch(peer);
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(received.len()).min(piece.len());
        received.extend_from_slice(piece.get(..room).unwrap_or_default());
    }

    fn touch(&self, peer: SocketAddr) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, Instant::now());
    }
}
