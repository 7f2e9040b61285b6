//! A loopback listener: accepts, lets only the owner's processes through, and starts the carrying.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use postern_local_api::message::NoticeLevel;
use postern_tunnel::local_end::{Accepted, arm_listener};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use crate::{
    board::Board,
    carriage::{Carriage, Destination},
    clock,
    gate::Gate,
    refusals::{Refusal, Refusals},
};

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: u32 = 4096;
/// How long to rest when the system has no more files or memory: connections wait in the backlog meanwhile.
const REST: Duration = Duration::from_millis(100);

/// What every listener works with.
#[derive(Clone, Debug)]
pub struct Reception {
    pub gate: Arc<Gate>,
    pub carriage: Arc<Carriage>,
    pub refusals: Arc<Refusals>,
    pub board: Arc<Board>,
}

/// Takes an address. Within a runtime.
///
/// # Errors
/// What the system says; `AddrInUse` when somebody has the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of an earlier run that still wind down do not keep the port; another listener does.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    arm_listener(&listener)?;
    Ok(listener)
}

impl Reception {
    /// Accepts for ever, in one of the lanes that carry; aborting the task closes the listener.
    pub fn receive_in_lane(
        self,
        listener: TcpListener,
        address: SocketAddr,
        destination: Arc<Destination>,
    ) -> JoinHandle<()> {
        let moved = listener.into_std();
        self.carriage.lanes().next().spawn(async move {
            match moved.and_then(TcpListener::from_std) {
                Ok(listener) => self.receive(listener, address, destination).await,
                Err(error) => tracing::error!(%address, "cannot accept connections: {error}"),
            }
        })
    }

    async fn receive(self, listener: TcpListener, address: SocketAddr, destination: Arc<Destination>) {
        let mut short = false;
        loop {
            match listener.accept().await {
                // Nothing may come between the two.
                Ok((stream, peer)) => match self.gate.admit(&stream, peer, address) {
                    Ok(()) => {
                        short = false;
                        self.carriage.start(Accepted(stream), peer, &destination);
                    }
                    Err(refused) => self.refuse(stream, address, &destination, refused.uid()),
                },
                Err(error) if is_shortage(&error) => {
                    if !std::mem::replace(&mut short, true) {
                        tracing::warn!(%address, "cannot accept connections now, going on: {error}");
                        let text = format!("The system has no room for more connections ({error}); new ones wait.");
                        self.board.notify(NoticeLevel::Warning, text);
                    }
                    tokio::time::sleep(REST).await;
                }
                // This one connection is gone; the next is another matter.
                Err(error) => tracing::debug!(%address, "a connection went away before it was accepted: {error}"),
            }
        }
    }

    fn refuse(&self, stream: TcpStream, bind: SocketAddr, destination: &Destination, uid: Option<u32>) {
        if let Err(error) = stream.set_zero_linger() {
            tracing::debug!("a refused connection is closed without a reset: {error}");
        }
        drop(stream);
        self.note_refusal(Refusal { resource: destination.id, bind, uid });
    }

    /// Counts a refused connection, and tells of the first of its kind.
    pub fn note_refusal(&self, refusal: Refusal) {
        let Refusal { resource, bind, uid } = refusal;
        if self.refusals.count(refusal, clock::wall()) {
            let who = uid.map_or_else(|| "a program that is gone already".to_owned(), |uid| format!("uid {uid}"));
            tracing::warn!(%bind, %resource, "refused a connection of {who}");
            self.board.notify(NoticeLevel::Warning, format!("A connection of {who} to {bind} was refused."));
        }
    }
}

/// Whether the system is out of files or memory, in which case trying at once would only burn the processor.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let Some(number) = error.raw_os_error() else { return true };
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&Errno::from_raw_os_error(number))
}
