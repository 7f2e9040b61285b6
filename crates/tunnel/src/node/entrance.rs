//! The listening socket of a node, which may be closed for a while: who is behind a balancer says so that nobody is to be
//! sent there.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    time::sleep,
};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// When the socket cannot be had again, it is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// A connection, in no runtime yet, and where it comes from.
pub(super) type Came = (std::net::TcpStream, SocketAddr);

/// See the module.
pub(super) struct Entrance {
    /// `None` while it is shut.
    listener: Option<TcpListener>,
    address: Option<SocketAddr>,
    /// Whether it is to be shut. `None`: never.
    shut: Option<watch::Receiver<bool>>,
    /// Those who had come when it was shut.
    waiting: VecDeque<Came>,
}

impl Entrance {
    pub(super) fn new(listener: TcpListener, shut: Option<watch::Receiver<bool>>) -> Self {
        let address = listener.local_addr().ok();
        Self { listener: Some(listener), address, shut, waiting: VecDeque::new() }
    }

    /// The next connection. May be dropped and asked again.
    ///
    /// # Errors
    /// None came this time, or the entrance cannot be opened again yet; try again.
    pub(super) async fn next(&mut self) -> io::Result<Came> {
        loop {
            if let Some(came) = self.waiting.pop_front() {
                return Ok(came);
            }
            let is_shut = self.shut.as_ref().is_some_and(|shut| *shut.borrow());
            match &self.listener {
                Some(_) if is_shut => {
                    self.waiting = self.close();
                    tracing::info!(address = ?self.address, "nobody is let in any more");
                }
                Some(listener) => {
                    tokio::select! {
                        accepted = listener.accept() => {
                            let (stream, client) = accepted?;
                            return Ok((stream.into_std()?, client));
                        }
                        () = changed(&mut self.shut) => {}
                    }
                }
                None if is_shut => changed(&mut self.shut).await,
                None => {
                    let opened = self.address.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into()).and_then(listen);
                    if opened.is_err() {
                        sleep(AGAIN).await;
                    }
                    self.listener = Some(opened?);
                    tracing::info!(address = ?self.address, "clients are let in again");
                }
            }
        }
    }

    /// Closes the socket. Gives those who had connected: their system has been told that they were.
    pub(super) fn close(&mut self) -> VecDeque<Came> {
        let mut waiting = std::mem::take(&mut self.waiting);
        let Some(Ok(listener)) = self.listener.take().map(TcpListener::into_std) else { return waiting };
        while waiting.len() < BACKLOG as usize
            && let Ok((stream, client)) = listener.accept()
        {
            if stream.set_nonblocking(true).is_ok() {
                waiting.push_back((stream, client));
            }
        }
        waiting
    }
}

/// Listens; connections of a process before this one that still end do not stand in the way.
///
/// # Errors
/// Somebody else listens there, or it is no address of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Completes when something else is said of whether it is to be shut.
async fn changed(shut: &mut Option<watch::Receiver<bool>>) {
    let told = match shut {
        Some(shut) => shut.changed().await.is_ok(),
        None => false,
    };
    if !told {
        // It stays as it is.
        std::future::pending().await
    }
}
