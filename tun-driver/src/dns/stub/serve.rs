//! The running stub: listens where it is told, and passes queries on.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream},
    sync::{Mutex as AsyncMutex, Semaphore},
    task::{AbortHandle, JoinSet},
    time::{interval, sleep, timeout},
};

use super::{
    control::{Answer, Lines, Order, Routes},
    exchange::{Carrier, exchange, read_framed, write_framed},
    message::{NoQuery, Query, SERVER_FAILURE, refusal, with_id},
    pending::{Admission, Pending},
};
use crate::dns::resolv_conf::ResolvConf;

/// TCP clients at once; further ones wait in the listener's queue.
const MAX_TCP_CLIENTS: usize = 64;
/// A TCP client that says nothing for this long is let go (RFC 7766 asks for seconds).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// How often the stub without netd looks whether it is still asked.
const LOOK: Duration = Duration::from_secs(1);
/// After an accept or receive that failed (no descriptors left).
const PAUSE: Duration = Duration::from_millis(50);

/// Serves on orders that come over `socket`, until the process ends. Orders are taken from root and from the user who
/// runs the stub; the last connection counts.
///
/// # Errors
/// The socket takes no connections any more.
pub async fn run(socket: UnixListener) -> io::Result<()> {
    let stub = Arc::new(AsyncMutex::new(Stub::default()));
    let mut current: Option<AbortHandle> = None;
    let mut tasks = JoinSet::new();
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot take a connection of netd: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        if !may_order(&stream) {
            tracing::warn!("somebody else than root wanted to give orders");
            continue;
        }
        if let Some(before) = current.take() {
            before.abort();
        }
        while tasks.try_join_next().is_some() {}
        current = Some(tasks.spawn(follow(Lines::new(stream), Arc::clone(&stub))));
    }
}

fn may_order(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

/// Takes orders until the connection ends, then holds the fort.
async fn follow(mut lines: Lines, stub: Arc<AsyncMutex<Stub>>) {
    loop {
        let answer = match lines.read::<Order>().await {
            Ok(Some(order)) => stub.lock().await.obey(order).await,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!("netd gave an order that cannot be read: {error}");
                break;
            }
        };
        let answer = match answer {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed { reason: error.to_string() },
        };
        if lines.write(&answer).await.is_err() {
            break;
        }
    }
    let mut ticks = interval(LOOK);
    loop {
        ticks.tick().await;
        let mut stub = stub.lock().await;
        let Some(serving) = &stub.serving else { return };
        if !is_asked(&serving.resolv_conf, serving.listen) {
            tracing::info!("nothing asks here any more");
            stub.serving = None;
            return;
        }
    }
}

fn is_asked(resolv_conf: &Path, listen: SocketAddr) -> bool {
    // A file that cannot be read just now says nothing.
    std::fs::read(resolv_conf)
        .map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |text| ResolvConf::parse(&text).asks(listen.ip()))
}

#[derive(Default)]
struct Stub {
    serving: Option<Serving>,
}

struct Serving {
    listen: SocketAddr,
    resolv_conf: PathBuf,
    shared: Arc<Shared>,
    /// Aborted with this value.
    _tasks: JoinSet<()>,
}

struct Shared {
    udp: UdpSocket,
    routes: RwLock<Routes>,
    pending: Mutex<Pending<Client>>,
}

/// Who waits for an answer by UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client {
    address: SocketAddr,
    id: u16,
}

impl Stub {
    async fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Stop => self.serving = None,
            Order::Serve { listen, resolv_conf, routes } => {
                let routes = routes.without_loops(listen);
                match &mut self.serving {
                    Some(serving) if serving.listen == listen => {
                        serving.resolv_conf = resolv_conf;
                        *serving.shared.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
                    }
                    _ => {
                        self.serving = None;
                        self.serving = Some(Serving::start(listen, resolv_conf, routes).await?);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Serving {
    async fn start(listen: SocketAddr, resolv_conf: PathBuf, routes: Routes) -> io::Result<Self> {
        let explain = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}"));
        let udp = UdpSocket::bind(listen).await.map_err(explain)?;
        let listen = udp.local_addr()?;
        let tcp = TcpListener::bind(listen).await.map_err(explain)?;
        let shared = Arc::new(Shared { udp, routes: RwLock::new(routes), pending: Mutex::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(Arc::clone(&shared)));
        tasks.spawn(serve_tcp(tcp, Arc::clone(&shared)));
        tracing::info!("answering on {listen}");
        Ok(Self { listen, resolv_conf, shared, _tasks: tasks })
    }
}

impl Shared {
    fn servers(&self, query: &Query) -> Vec<SocketAddr> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).servers(query)
    }

    /// Asks, and answers everybody who waits.
    async fn resolve(&self, message: Vec<u8>, query: Query) {
        let answer = exchange(&message, &query, &self.servers(&query), Carrier::Udp).await;
        let answer = answer.unwrap_or_else(|| refusal(&message, SERVER_FAILURE));
        let clients = self.pending().finish(message.get(2..).unwrap_or_default());
        for client in clients {
            self.send(&with_id(answer.clone(), client.id), client.address).await;
        }
    }

    async fn send(&self, answer: &[u8], to: SocketAddr) {
        if let Err(error) = self.udp.send_to(answer, to).await {
            tracing::debug!("an answer did not reach its client: {error}");
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending<Client>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Routes {
    /// Where a name is asked: the links with the longest fitting zone, otherwise the upstreams.
    pub(crate) fn servers(&self, query: &Query) -> Vec<SocketAddr> {
        let fit = |zones: &[crate::interface::Zone]| zones.iter().filter_map(|zone| query.labels_in(zone)).max();
        let longest = self.links.iter().filter_map(|link| fit(&link.zones)).max();
        match longest {
            Some(longest) => {
                let links = self.links.iter().filter(|link| fit(&link.zones) == Some(longest));
                links.flat_map(|link| link.servers.iter().copied()).collect()
            }
            None => self.upstreams.clone(),
        }
    }
}

async fn serve_udp(shared: Arc<Shared>) {
    let mut buffer = vec![0; 65_535];
    // Bounded by the pending questions.
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (length, address) = match shared.udp.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!("cannot receive: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let message = buffer.get(..length).unwrap_or_default();
        match Query::parse(message) {
            Ok(query) => {
                let client = Client { address, id: query.id };
                let admission = shared.pending().admit(message.get(2..).unwrap_or_default(), client);
                match admission {
                    Admission::Ask => {
                        let (shared, message) = (Arc::clone(&shared), message.to_vec());
                        tasks.spawn(async move { shared.resolve(message, query).await });
                    }
                    Admission::Wait => {}
                    Admission::Full => shared.send(&refusal(message, SERVER_FAILURE), address).await,
                }
            }
            Err(NoQuery::Reply(code)) => shared.send(&refusal(message, code), address).await,
            Err(NoQuery::Ignore) => {}
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(MAX_TCP_CLIENTS));
    let mut tasks = JoinSet::new();
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tasks.spawn(async move {
                    if let Err(error) = serve_stream(stream, &shared).await {
                        tracing::debug!("a TCP client is gone: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("cannot accept: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// One query after the other, as clients do it.
async fn serve_stream(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let message = timeout(TCP_IDLE, read_framed(&mut stream)).await??;
        let answer = match Query::parse(&message) {
            Ok(query) => exchange(&message, &query, &shared.servers(&query), Carrier::Tcp)
                .await
                .unwrap_or_else(|| refusal(&message, SERVER_FAILURE)),
            Err(NoQuery::Reply(code)) => refusal(&message, code),
            Err(NoQuery::Ignore) => return Ok(()),
        };
        timeout(TCP_IDLE, write_framed(&mut stream, &answer)).await??;
    }
}
