//! The asker's end.

use std::{io, net::Ipv4Addr, path::Path, time::Duration};

use super::message::{Answer, Message, MessageError, PROTOCOL, Problem, Request};
use crate::{
    dns::DnsState,
    interface::{Configured, InterfaceConfig},
    sys::{Channel, Packet, Received},
};

/// For connecting and the hello. Longer than netd waits for polkit, so that the reason of a refusal arrives.
const HELLO_DEADLINE: Duration = Duration::from_secs(15);
/// For one request; the system's resolver gets a share of it.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// A connection to netd. What it set up for this user lives as long as this value: dropping it takes the device, its
/// routes and its names away.
///
/// # When the device is gone
/// Somebody else may delete the device, and netd may restart.
/// - Reading a queue then fails with `EBADFD` ("file descriptor in bad state"), and polling it says `POLLERR`: call
///   [`Client::configure`] again on the same connection; it makes a new device and hands out new queues.
/// - [`Client::closed`] resolves when netd itself is gone: the queues may work on for a moment, but nobody repairs routes
///   or names any more. Connect anew and configure; netd at its start has removed the old device.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
    last_id: u64,
    server_version: String,
    /// Came while an answer was waited for.
    names: Option<DnsState>,
}

/// Why netd did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there: postern-netd is not installed or does not run.
    #[error("postern-netd does not answer at {path}: {source}")]
    NoService { path: String, source: io::Error },
    /// netd refused or failed, and says why.
    #[error("{0}")]
    Refused(Box<Problem>),
    #[error("the connection to postern-netd ended")]
    Closed,
    #[error("postern-netd took longer than {0:?}")]
    Timeout(Duration),
    #[error("postern-netd sent what this program does not understand: {0}")]
    Protocol(String),
    #[error("cannot talk to postern-netd: {0}")]
    Io(#[from] io::Error),
    /// The wish itself does not fit into a message.
    #[error("cannot ask postern-netd: {0}")]
    Message(#[from] MessageError),
}

impl Client {
    /// Connects and agrees on the protocol.
    ///
    /// # Errors
    /// [`ClientError::NoService`] when nobody listens, [`ClientError::Refused`] when this user may not ask.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let no_service = |source| ClientError::NoService { path: path.display().to_string(), source };
        let channel = Channel::connect(path).await.map_err(no_service)?;
        let mut client = Self { channel, last_id: 0, server_version: String::new(), names: None };
        let (answer, _) = client.ask(Request::Hello { protocol: PROTOCOL }, HELLO_DEADLINE).await?;
        let Answer::Hello { protocol: PROTOCOL, version } = answer else { return Err(unexpected(&answer)) };
        client.server_version = version;
        Ok(client)
    }

    /// netd's version, for people.
    #[must_use]
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    /// Makes this user's virtual network look like `interface`. Asking again for the same is cheap and touches nothing.
    /// After a failure the network is as it was before, or gone; asking again repairs it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with netd's reason.
    pub async fn configure(&mut self, interface: &InterfaceConfig) -> Result<Configured, ClientError> {
        let request = Request::Configure { interface: interface.clone() };
        let (answer, packet) = self.ask(request, REQUEST_DEADLINE).await?;
        let Answer::Configured { interface, queues } = answer else { return Err(unexpected(&answer)) };
        if packet.files.len() != usize::from(queues) {
            return Err(ClientError::Protocol(format!("{queues} queues announced, {} sent", packet.files.len())));
        }
        Ok(Configured { interface, queues: packet.files })
    }

    /// Makes these addresses of 127.0.0.0/8 usable where the system has 127.0.0.1 alone (macOS), for as long as this
    /// connection lives; what was asked for before is given up. Elsewhere they are usable anyway.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with netd's reason.
    pub async fn set_loopback(&mut self, addresses: &[Ipv4Addr]) -> Result<(), ClientError> {
        let request = Request::Loopback { addresses: addresses.to_vec() };
        match self.ask(request, REQUEST_DEADLINE).await?.0 {
            Answer::Loopback {} => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes the virtual network back and keeps the connection.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with netd's reason.
    pub async fn release(&mut self) -> Result<(), ClientError> {
        match self.ask(Request::Release {}, REQUEST_DEADLINE).await?.0 {
            Answer::Released {} => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until netd is gone. Cancel-safe; meant for a `select!` beside everything else.
    pub async fn closed(&mut self) {
        while self.names().await.is_some() {}
    }

    /// Waits until names stand in another way than [`Client::configure`] or this said last; `None` when netd is gone.
    /// Cancel-safe, as above.
    pub async fn names(&mut self) -> Option<DnsState> {
        if let Some(names) = self.names.take() {
            return Some(names);
        }
        loop {
            match self.channel.receive().await {
                // Anything else can only be the answer to a request that nobody waited for to the end: its queues are closed.
                Ok(Received::Packet(packet)) => {
                    if let Ok(Message { body: Answer::Names { dns }, .. }) = Message::parse(&packet.bytes) {
                        return Some(dns);
                    }
                }
                Ok(Received::TooLong) => {}
                Ok(Received::Closed) | Err(_) => return None,
            }
        }
    }

    async fn ask(&mut self, request: Request, deadline: Duration) -> Result<(Answer, Packet), ClientError> {
        self.last_id += 1;
        self.names = None;
        let bytes = Message { id: self.last_id, body: request }.encode()?;
        let asked = async {
            self.channel.send(&bytes, &[]).await.map_err(closed_or)?;
            self.answer_to(self.last_id).await
        };
        tokio::time::timeout(deadline, asked).await.map_err(|_| ClientError::Timeout(deadline))?
    }

    /// The answer with this number; earlier ones belong to requests that were given up.
    async fn answer_to(&mut self, id: u64) -> Result<(Answer, Packet), ClientError> {
        loop {
            let packet = match self.channel.receive().await.map_err(closed_or)? {
                Received::Packet(packet) => packet,
                Received::TooLong => return Err(MessageError::TooLong.into()),
                Received::Closed => return Err(ClientError::Closed),
            };
            let message: Message<Answer> =
                Message::parse(&packet.bytes).map_err(|error| ClientError::Protocol(error.to_string()))?;
            match message.body {
                // A refusal of the connection itself comes before any request was read.
                Answer::Refused { problem } if message.id == id || message.id == 0 => {
                    return Err(ClientError::Refused(Box::new(problem)));
                }
                Answer::Names { dns } => self.names = Some(dns),
                body if message.id == id => return Ok((body, packet)),
                _ => {}
            }
        }
    }
}

fn closed_or(error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Closed,
        _ => ClientError::Io(error),
    }
}

fn unexpected(answer: &Answer) -> ClientError {
    ClientError::Protocol(format!("an answer that was not asked for: {answer:?}"))
}
