//! The resolver's side of a shard: datagrams and connections to its address.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use postern_netstack::dns::{TcpQueries, Transport};
use postern_tunnel::local_end::LocalEnd as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::{flow::FlowEnd, map::Map, shard::Shard};

/// Connections that ask for names, at a time and shard; one more is refused.
const MAX_CONNECTIONS: usize = 128;
/// A connection that asks nothing whole for so long is closed (RFC 7766 recommends seconds): one that brings its question
/// byte by byte, too.
const IDLE: Duration = Duration::from_secs(10);
/// Questions that wait at a time and shard until the address of a new host is on disk; one more is left unanswered, and
/// asked again.
const MAX_WAITING: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Names {
    map: Arc<Map>,
    connections: Cell<usize>,
    waiting: Cell<usize>,
    answer: RefCell<Vec<u8>>,
}

impl Names {
    #[must_use]
    pub fn new(map: Arc<Map>) -> Self {
        Self { map, connections: Cell::new(0), waiting: Cell::new(0), answer: RefCell::default() }
    }

    /// Answers one datagram: at once, or when the address of a new host is on disk.
    pub(super) fn answer_datagram(
        &self,
        shard: &Rc<Shard>,
        source: SocketAddr,
        destination: SocketAddr,
        question: &[u8],
    ) {
        let mut answer = self.answer.borrow_mut();
        let unsettled = {
            let resolver = shard.resolver();
            let mut hosts = self.map.hosts().give();
            resolver.answer(Transport::Udp, question, &mut hosts, &mut answer);
            hosts.is_unsettled()
        };
        if answer.is_empty() {
            return;
        }
        if !unsettled {
            shard.stack.borrow_mut().send_datagram(destination, source, &answer);
            return shard.kick();
        }
        if self.waiting.get() >= MAX_WAITING {
            return;
        }
        self.waiting.set(self.waiting.get() + 1);
        let (shard, map, answer) = (Rc::clone(shard), Arc::clone(&self.map), answer.clone());
        tokio::task::spawn_local(async move {
            if map.settle_hosts().await {
                shard.stack.borrow_mut().send_datagram(destination, source, &answer);
                shard.kick();
            }
            let waiting = &shard.names().waiting;
            waiting.set(waiting.get().saturating_sub(1));
        });
    }

    /// Answers on one connection.
    pub(super) fn serve(&self, shard: &Rc<Shard>, end: FlowEnd) {
        if self.connections.get() >= MAX_CONNECTIONS {
            return;
        }
        self.connections.set(self.connections.get() + 1);
        let shard = Rc::clone(shard);
        tokio::task::spawn_local(async move {
            match shard.names().converse(&shard, &end).await {
                Ok(()) => {
                    end.end_writing();
                    end.close();
                }
                Err(error) => {
                    tracing::debug!("a connection to the resolver broke off: {error}");
                    end.reset();
                }
            }
            let connections = &shard.names().connections;
            connections.set(connections.get().saturating_sub(1));
        });
    }

    async fn converse(&self, shard: &Rc<Shard>, end: &FlowEnd) -> io::Result<()> {
        end.accept()?;
        let mut queries = TcpQueries::default();
        let mut buffer = [0; 2048];
        let mut patience = Instant::now() + IDLE;
        loop {
            let read = timeout_at(patience, poll_fn(|cx| end.poll_read(cx, &mut buffer))).await;
            let count = match read {
                Ok(read) => read?,
                Err(_) => return Ok(()),
            };
            if count == 0 {
                return Ok(());
            }
            let mut rest = buffer.get(..count).unwrap_or_default();
            while !rest.is_empty() {
                let taken = self.receive(shard, &mut queries, rest).await?;
                rest = rest.get(taken..).unwrap_or_default();
                while !queries.waiting().is_empty() {
                    let answers = poll_fn(|cx| end.poll_write(cx, &[IoSlice::new(queries.waiting())]));
                    let sent = timeout(IDLE, answers).await.map_err(|_| io::ErrorKind::TimedOut)??;
                    queries.advance(sent);
                    patience = Instant::now() + IDLE;
                }
            }
        }
    }

    /// Answers what is whole, and makes sure that the addresses in the answers are on disk.
    async fn receive(&self, shard: &Rc<Shard>, queries: &mut TcpQueries, bytes: &[u8]) -> io::Result<usize> {
        let (taken, unsettled) = {
            let resolver = shard.resolver();
            let mut hosts = self.map.hosts().give();
            let taken = queries
                .receive(bytes, |question, answer| resolver.answer(Transport::Tcp, question, &mut hosts, answer));
            (taken.map_err(io::Error::other)?, hosts.is_unsettled())
        };
        if unsettled && !self.map.settle_hosts().await {
            return Err(io::Error::other("the addresses of new hosts could not be kept"));
        }
        Ok(taken)
    }
}
