//! A bridge: a node that passes clients on to nodes which have parked links with it, below TLS. It sees who connects and how
//! much, and nothing of what is carried; the session is between the client and the node behind.
//!
//! The same port takes the links of those nodes. They are told apart by what they say first: who parks says so in the
//! clear, by the application protocol that it offers.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    task::{Context, Poll, ready},
    time::Duration,
};

use postern_proto::park;
use rustls::server::Acceptor;
use tokio::{net::TcpStream, time::sleep};

use super::{Passed, Server, StreamHandler, passage, passage::Pipe};
use crate::{link::LinkError, socket, splice::Inbox};

/// The longest first message of a TLS client that is looked at.
const MAX_HELLO: usize = 16 * 1024;
/// A first message that came in part is looked at again after this.
const AGAIN: Duration = Duration::from_millis(5);
/// The type of the TLS record that a client begins with.
const HANDSHAKE: u8 = 22;

/// Whether the other end is a node that wants to park a link. Nothing of what it says is taken. Who says something that is
/// no TLS, or too much of it, is a client: the node behind decides about that.
pub(super) async fn parks(stream: &TcpStream) -> io::Result<bool> {
    let mut hello = vec![0; MAX_HELLO];
    loop {
        let count = stream.peek(&mut hello).await?;
        let said = hello.get(..count).unwrap_or_default();
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if said.first() != Some(&HANDSHAKE) || count == MAX_HELLO {
            return Ok(false);
        }
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut &*said)?;
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let mut offered = accepted.client_hello().alpn().into_iter().flatten();
                return Ok(offered.any(|protocol| protocol == park::ALPN));
            }
            Ok(None) => sleep(AGAIN).await,
            Err(_) => return Ok(false),
        }
    }
}

/// Passes a client on, to its end. The client is closed when nobody takes it.
pub(super) async fn pass_on<H: StreamHandler>(server: &Server<H>, stream: TcpStream, client: SocketAddr) {
    let passed = match server.handler.bridge(client).await {
        Ok(passed) => passed,
        Err(refused) => {
            tracing::debug!(%client, problem = %refused.problem, "a client could not be passed on");
            return;
        }
    };
    let Passed { onward, control, done } = passed;
    let running = server.live.begin(&control, done);
    let mut client = Plain { stream, unsent: Inbox::default() };
    let cause = passage::carry(&mut client, Inbox::default(), onward, &control).await;
    running.end(cause);
}

/// A socket without TLS of this node.
struct Plain {
    stream: TcpStream,
    unsent: Inbox,
}

impl Pipe for Plain {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, LinkError>> {
        socket::poll_read(&self.stream, cx, buffer).map_err(LinkError::Closed)
    }

    fn send(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Result<(), LinkError> {
        let mut written = 0;
        if self.unsent.is_empty()
            && let Poll::Ready(count) = socket::poll_write(&self.stream, cx, &[IoSlice::new(bytes)])
        {
            written = count.map_err(LinkError::Closed)?;
        }
        self.unsent.push(bytes.get(written..).unwrap_or_default());
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while !self.unsent.is_empty() {
            let written = ready!(socket::poll_write(&self.stream, cx, &[IoSlice::new(self.unsent.bytes())]));
            self.unsent.take(written.map_err(LinkError::Closed)?);
        }
        Poll::Ready(Ok(()))
    }
}
