//! The end of a connection to a host under a wildcard alias: once it is open, the host keeps its address.

use std::{
    io::{self, IoSlice},
    sync::Arc,
    task::{Context, Poll},
};

use postern_proto::name::DnsName;
use postern_tunnel::local_end::LocalEnd;
use tokio::{sync::mpsc, task::JoinSet};

use super::hosts::HostBook;

/// See the module.
#[derive(Debug)]
pub(super) struct HostEnd<E> {
    pub(super) end: E,
    pub(super) host: DnsName,
    pub(super) marks: Marks,
}

/// Marks hosts as reached. Writing that down is not for the threads that carry: they may end at any moment.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    book: Arc<HostBook>,
    /// Who finds it full leaves it so: a write is to come that takes this mark along.
    news: mpsc::Sender<()>,
}

impl Marks {
    /// A task of `tasks` writes what is marked, until the last of these is gone and all is on disk.
    pub(super) fn new(book: Arc<HostBook>, tasks: &mut JoinSet<()>) -> Self {
        let (news, queue) = mpsc::channel(1);
        tasks.spawn(write(Arc::clone(&book), queue));
        Self { book, news }
    }

    /// Whether the host still has its address, for a program that wants to connect to it.
    pub(super) fn try_out(&self, host: &DnsName) -> bool {
        self.book.try_out(host)
    }

    fn reach(&self, host: &DnsName) {
        if self.book.reach(host) {
            let _ = self.news.try_send(());
        }
    }
}

async fn write(book: Arc<HostBook>, mut queue: mpsc::Receiver<()>) {
    while queue.recv().await.is_some() {
        if let Err(error) = book.save().await {
            tracing::warn!("it is not kept that a host under a wildcard alias was reached: {error}");
        }
    }
}

impl<E: LocalEnd> LocalEnd for HostEnd<E> {
    fn arm(&self) -> io::Result<()> {
        self.end.arm()
    }

    /// Noted before the program can know.
    fn opened(&self) -> io::Result<()> {
        self.marks.reach(&self.host);
        self.end.opened()
    }

    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.end.poll_read(cx, buffer)
    }

    fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.end.poll_write(cx, slices)
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        self.end.poll_room(cx)
    }

    fn poll_first_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.end.poll_first_read(cx, buffer)
    }

    fn poll_first_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.end.poll_first_write(cx, slices)
    }

    fn end_writing(&self) {
        self.end.end_writing();
    }

    fn broken(&self) -> impl Future<Output = ()> {
        self.end.broken()
    }

    fn close(self) {
        self.end.close();
    }

    fn reset(self) {
        self.end.reset();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use postern_netstack::dns::Hosts as _;
    use postern_proto::id::OrgId;
    use postern_tunnel::local_end::Accepted;

    use super::*;
    use crate::store::{Store, WildcardHosts};

    /// As a thread of the virtual network does whose last act this is.
    fn open(marks: Marks, host: DnsName) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let end = Accepted(tokio::net::TcpStream::from_std(stream).unwrap());
            HostEnd { end, host, marks }.opened().unwrap();
        });
    }

    #[tokio::test]
    async fn a_host_that_is_reached_as_the_network_stops_keeps_its_mark() {
        let home = tempfile::tempdir().unwrap();
        let paths = postern_local_api::paths::Paths::under(home.path()).unwrap();
        crate::instance::make_private_folder(&paths.state).unwrap();
        let store = Store::new(&paths);
        let subnet = "100.72.0.0/16".parse().unwrap();
        let book = Arc::new(HostBook::open(&store, OrgId::from_ulid(1.into()), subnet, &mut Vec::new()));
        let host: DnsName = "real.x".parse().unwrap();
        book.give().assign(&"x".parse().unwrap(), host.as_str()).unwrap();
        assert!(book.try_out(&host));
        let mut tasks = JoinSet::new();
        let marks = Marks::new(book, &mut tasks);
        std::thread::spawn(move || open(marks, host)).join().unwrap();
        tasks.join_all().await;
        let kept = store.load_or_warn::<WildcardHosts>(&mut Vec::new()).unwrap().hosts;
        assert!(kept.iter().any(|record| record.host == "real.x" && record.reached), "{kept:?}");
    }
}
