//! A gateway in memory: the real server of the carrier, with a handler that checks leases and dials where the test says.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use postern_proto::{
    head::{Refused, Route},
    id::{NodeId, ResourceId},
    lease::Contact,
    problem::Problem,
    sync::Peer,
};
use postern_tunnel::{
    node::{OpenRequest, Opened, Server, StreamHandler},
    stream::StreamControl,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_util::sync::CancellationToken;

use crate::org::{Org, next_ulid, now};

pub(crate) struct Gateway {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) desk: Arc<Desk>,
    /// A runtime of its own, so that it can die as a process does: with all its sockets at once.
    runtime: Option<Runtime>,
}

/// What the gateway knows and counts.
#[derive(Default)]
pub(crate) struct Desk {
    targets: Mutex<BTreeMap<ResourceId, SocketAddr>>,
    /// The next streams are refused with these.
    pub(crate) refusals: Mutex<Vec<Refused>>,
    pub(crate) opened: AtomicU32,
    pub(crate) refused: AtomicU32,
}

struct Handler {
    org: Arc<Org>,
    desk: Arc<Desk>,
}

impl Gateway {
    pub(crate) fn start(org: &Arc<Org>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let node = NodeId::from_ulid(next_ulid());
        let desk = Arc::new(Desk::default());
        let handler = Handler { org: Arc::clone(org), desk: Arc::clone(&desk) };
        let server = Server::new(handler, org.node_tls(Peer::Node { node }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            server.serve(listener, CancellationToken::new(), Duration::ZERO).await;
        });
        Self { node, address, desk, runtime: Some(runtime) }
    }

    pub(crate) fn route(&self, resource: ResourceId, target: SocketAddr) {
        self.desk.targets.lock().unwrap().insert(resource, target);
    }

    /// Refuses the next stream.
    pub(crate) fn refuse_next(&self, problem: Problem, route: Option<Route>) {
        self.desk.refusals.lock().unwrap().push(Refused { problem, route });
    }

    pub(crate) fn opened(&self) -> u32 {
        self.desk.opened.load(Ordering::SeqCst)
    }

    /// Dies at once; the kernel closes its sockets.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

impl StreamHandler for Handler {
    async fn open(&self, request: OpenRequest<'_>) -> Result<Opened, Refused> {
        let opened = self.decide(&request).await;
        let counter = if opened.is_ok() { &self.desk.opened } else { &self.desk.refused };
        counter.fetch_add(1, Ordering::SeqCst);
        opened
    }
}

impl Handler {
    async fn decide(&self, request: &OpenRequest<'_>) -> Result<Opened, Refused> {
        if let Some(refused) = self.next_refusal().pop() {
            return Err(refused);
        }
        let resource = request.request.resource();
        let no = |status, code: &str| Refused::from(Problem::new(status, code, code));
        let claims = self.org.verifier().open(request.request.lease()).map_err(|_| no(403, "bad_lease"))?;
        let holder = request.peer.holder().ok_or_else(|| no(403, "no_device"))?;
        claims
            .check(&holder, resource, false, Contact::Connected, now())
            .map_err(|error| no(if error.renewable() { 401 } else { 403 }, "lease_refused"))?;
        let target = self.desk.targets.lock().unwrap().get(&resource).copied();
        let target = target.ok_or_else(|| no(404, "unknown_resource"))?;
        let target = TcpStream::connect(target).await.map_err(|error| {
            Refused::from(Problem::new(502, "target_refused", "The resource refused").with_detail(error.to_string()))
        })?;
        Ok(Opened { target, control: StreamControl::new(), done: Box::new(drop) })
    }

    fn next_refusal(&self) -> MutexGuard<'_, Vec<Refused>> {
        self.desk.refusals.lock().unwrap()
    }
}

/// A TCP service that sends back what it gets, and counts it.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    received: Arc<AtomicU64>,
}

impl Echo {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    loop {
                        match stream.read(&mut buffer).await {
                            Ok(0) | Err(_) => return stream.shutdown().await,
                            Ok(n) => {
                                counter.fetch_add(n as u64, Ordering::SeqCst);
                                stream.write_all(&buffer[..n]).await?;
                            }
                        }
                    }
                });
            }
        });
        Self { address, received }
    }

    /// Bytes that ever reached it.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }
}
