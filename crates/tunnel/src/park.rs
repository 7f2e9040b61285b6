//! Parked links: connections that a relay makes to gateways, so that it need not listen, and what both say on them
//! (DESIGN §4.3).
//!
//! What travels through an opened passage is sealed between client and relay; this crate and a gateway see sealed bytes
//! only.

use std::{future::poll_fn, io, net::SocketAddr, time::Duration};

use postern_proto::{
    door::Door,
    frame::{Kind, MAX_TEXT, Piece, Reader},
    head::{Head, Passage, Refused, Reply},
    id::NodeId,
};
use rustls::pki_types::ServerName;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{DialError, dial_node},
    link::{Link, Through},
    scratch,
    splice::{Inbox, text_frame},
    tls::{ClientTls, server_name},
};

/// How long the other end has to answer when a passage is opened.
const ANSWER: Duration = Duration::from_secs(5);

/// A connection between a relay and a gateway, or between two gateways, on which no stream runs.
pub struct ParkedLink {
    link: Box<Link>,
    inbox: Inbox,
}

/// A passage that is open at this end: its bytes are to be copied, or a session accepted on it.
pub struct OpenPassage {
    pub(crate) link: Box<Link>,
    pub(crate) inbox: Inbox,
}

/// A passage that came in over a parked link, at a relay.
pub struct IncomingPassage {
    pub(crate) through: Through,
    /// Where the client's connection came from, as the gateway says.
    pub client: SocketAddr,
    /// Cancelled when the gateway is gone: what runs through it is broken off.
    pub gone: CancellationToken,
}

/// Why a passage was not opened by the node that was asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Refused(#[from] Refused),
    #[error("the link is dead")]
    Dead(#[from] io::Error),
}

/// Dials a gateway, or a bridge of a cluster, to park a link there. `tls` is from [`ClientTls::for_parking`].
pub async fn dial(address: &str, door: impl Into<Door>, tls: &ClientTls) -> Result<ParkedLink, DialError> {
    let link = dial_node(address, &name(address, door.into())?, tls, None).await?;
    Ok(ParkedLink::new(link))
}

/// Dials another gateway, which has parked links of the relay that a client wants, and asks it to open the passage.
pub async fn forward(
    address: &str,
    gateway: NodeId,
    tls: &ClientTls,
    passage: &Passage,
) -> Result<OpenPassage, ForwardError> {
    let link = dial_node(address, &name(address, gateway.into())?, tls, None).await?;
    Ok(ParkedLink::new(link).open(passage).await?)
}

/// Why another gateway did not open a passage.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl ParkedLink {
    pub(crate) const fn new(link: Box<Link>) -> Self {
        Self { link, inbox: Inbox::const_default() }
    }

    /// Says one thing: a relay in a `HEAD` frame, a gateway in a `REPLY` frame.
    pub async fn say_as_relay(&mut self, message: &impl Serialize) -> io::Result<()> {
        self.say(Kind::Head, message).await
    }

    /// See [`ParkedLink::say_as_relay`].
    pub async fn say_as_gateway(&mut self, message: &impl Serialize) -> io::Result<()> {
        self.say(Kind::Reply, message).await
    }

    /// Waits for what the other end says; nothing is lost when this is dropped. An error is the end of the link.
    pub async fn hear<M: DeserializeOwned>(&mut self) -> io::Result<M> {
        let text = self.text().await?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }

    /// Whether it stands idle and is up.
    #[must_use]
    pub fn is_alive(&mut self) -> bool {
        self.inbox.is_empty() && self.link.is_alive()
    }

    /// At a relay: waits until the gateway uses the link. Nothing is lost when this is dropped.
    pub async fn wait(&mut self) -> io::Result<Passage> {
        let text = self.text().await?;
        match Head::read(&text) {
            Ok(Head::Passage(passage)) => Ok(passage),
            Ok(Head::Stream(_)) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// At a relay: takes the passage up that [`ParkedLink::wait`] has told of.
    pub async fn take_up(mut self, client: SocketAddr, gone: CancellationToken) -> io::Result<IncomingPassage> {
        self.send(&mut text_frame(Kind::Reply, &Reply::Opened.write())).await?;
        Ok(IncomingPassage { through: Through::new(self.link, self.inbox), client, gone })
    }

    /// At a relay: does not take it up, and closes.
    pub async fn decline(mut self, refused: Refused) {
        let _ = self.send(&mut text_frame(Kind::Reply, &Reply::Refused(refused).write())).await;
        self.link.close();
    }

    /// At a gateway: uses the link up for a passage.
    pub async fn open(mut self, passage: &Passage) -> Result<OpenPassage, OpenError> {
        // It was parked by another thread, perhaps.
        self.link.bring_home()?;
        let opening = async {
            self.send(&mut text_frame(Kind::Head, &passage.write())).await?;
            self.text().await
        };
        let text = timeout(ANSWER, opening).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match Reply::read(&text).map_err(io::Error::other)? {
            Reply::Opened => Ok(OpenPassage { link: self.link, inbox: self.inbox }),
            Reply::Refused(refused) => Err(refused.into()),
        }
    }

    /// Says goodbye.
    pub fn close(self) {
        self.link.close();
    }

    async fn say(&mut self, kind: Kind, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message).map_err(io::Error::other)?;
        self.send(&mut text_frame(kind, &text)).await
    }

    async fn send(&mut self, frame: &mut [u8]) -> io::Result<()> {
        let link = &mut self.link;
        poll_fn(|cx| std::task::Poll::Ready(link.send(cx, frame))).await?;
        poll_fn(|cx| link.poll_flush(cx)).await?;
        Ok(())
    }

    /// The text of the next frame, which holds one.
    async fn text(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match Reader::default().next(self.inbox.bytes()) {
                Ok(Some((Piece::Head(text) | Piece::Reply(text), taken))) => {
                    let text = text.to_vec();
                    self.inbox.take(taken);
                    return Ok(text);
                }
                Ok(None) if self.inbox.bytes().len() <= 2 * MAX_TEXT => {}
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
            let (link, inbox) = (&mut self.link, &mut self.inbox);
            let count = poll_fn(|cx| {
                scratch::plain(|plain| {
                    let received = link.poll_recv(cx, plain);
                    received.map_ok(|count| {
                        inbox.push(plain.get(..count).unwrap_or_default());
                        count
                    })
                })
            });
            if count.await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn name(address: &str, door: Door) -> Result<ServerName<'static>, DialError> {
    let bad = |error| DialError::Handshake { address: address.to_owned(), source: io::Error::other(error) };
    server_name(door).map_err(bad)
}
