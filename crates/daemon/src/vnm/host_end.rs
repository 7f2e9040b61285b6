//! The end of a connection to a host under a wildcard alias: once it is open, the host keeps its address.

use std::{
    io::{self, IoSlice},
    sync::Arc,
    task::{Context, Poll},
};

use postern_proto::name::DnsName;
use postern_tunnel::local_end::LocalEnd;

use super::hosts::HostBook;

/// See the module.
#[derive(Debug)]
pub(super) struct HostEnd<E> {
    pub(super) end: E,
    pub(super) host: DnsName,
    pub(super) book: Arc<HostBook>,
}

impl<E: LocalEnd> LocalEnd for HostEnd<E> {
    fn arm(&self) -> io::Result<()> {
        self.end.arm()
    }

    /// Noted before the program can know.
    fn opened(&self) -> io::Result<()> {
        if self.book.reach(&self.host) {
            let book = Arc::clone(&self.book);
            tokio::spawn(async move {
                if let Err(error) = book.save().await {
                    tracing::warn!("it is not kept that a host under a wildcard alias was reached: {error}");
                }
            });
        }
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
