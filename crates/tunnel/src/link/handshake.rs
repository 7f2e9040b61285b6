//! The handshake: rustls decides everything, this only moves its bytes; afterwards rustls hands over the keys.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, ExtractedSecrets, ServerConfig,
    client::{ClientConnectionData, UnbufferedClientConnection},
    kernel::KernelConnection,
    pki_types::{CertificateDer, ServerName},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{Link, LinkError, Renewal, Wire};

/// A peer's whole handshake is shorter than this: two certificates and little else.
const MOST: usize = 64 * 1024;

/// A connection whose handshake is done.
pub(crate) struct Established {
    pub(crate) link: Box<Link>,
    /// The peer's leaf certificate, verified.
    pub(crate) leaf: Option<CertificateDer<'static>>,
    pub(crate) alpn: Option<Vec<u8>>,
}

/// What a handshake can be made on.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Into<Wire> {}

impl<S: AsyncRead + AsyncWrite + Unpin + Into<Wire>> Transport for S {}

pub(crate) async fn connect(
    stream: impl Transport,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Established, LinkError> {
    drive(stream, UnbufferedClientConnection::new(config, name)?).await
}

pub(crate) async fn accept(stream: impl Transport, config: Arc<ServerConfig>) -> Result<Established, LinkError> {
    drive(stream, UnbufferedServerConnection::new(config)?).await
}

/// What client and server have in common, which rustls does not say by a trait.
trait Handshake {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn is_over(&self) -> bool;
    fn wants_write(&self) -> bool;
    fn leaf(&self) -> Option<CertificateDer<'static>>;
    fn alpn(&self) -> Option<Vec<u8>>;
    fn extract(self) -> Result<(ExtractedSecrets, Renewal), rustls::Error>;
}

macro_rules! handshake {
    ($connection:ty, $data:ty, $side:ident) => {
        impl Handshake for $connection {
            type Data = $data;

            fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, $data> {
                self.process_tls_records(incoming)
            }

            fn is_over(&self) -> bool {
                !self.is_handshaking()
            }

            fn wants_write(&self) -> bool {
                // By its path: by its name it would call itself.
                rustls::CommonState::wants_write(self)
            }

            fn leaf(&self) -> Option<CertificateDer<'static>> {
                Some(self.peer_certificates()?.first()?.clone().into_owned())
            }

            fn alpn(&self) -> Option<Vec<u8>> {
                self.alpn_protocol().map(<[u8]>::to_vec)
            }

            fn extract(self) -> Result<(ExtractedSecrets, Renewal), rustls::Error> {
                let (secrets, kernel): (_, KernelConnection<$data>) = self.dangerous_into_kernel_connection()?;
                Ok((secrets, Renewal::$side(Box::new(kernel))))
            }
        }
    };
}

handshake!(UnbufferedClientConnection, ClientConnectionData, Client);
handshake!(UnbufferedServerConnection, ServerConnectionData, Server);

/// What is to be done next.
enum Step {
    Go,
    Read,
    Done,
}

async fn drive<H: Handshake>(mut stream: impl Transport, mut tls: H) -> Result<Established, LinkError> {
    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    // rustls is shown one record more each time that it asks for more, so that it never sees what follows the handshake:
    // those records are opened by the link.
    let mut shown = 0;
    loop {
        let UnbufferedStatus { discard, state } = tls.process(incoming.get_mut(..shown).unwrap_or_default());
        let step = match state {
            Ok(state) => advance(state, &mut outgoing),
            Err(error) => Err(error.into()),
        };
        incoming.drain(..discard.min(incoming.len()));
        shown -= discard.min(shown);
        let step = match step {
            Err(LinkError::Tls(error)) => {
                tell(&mut stream, &mut tls, incoming.get_mut(..shown).unwrap_or_default()).await;
                return Err(error.into());
            }
            step => step?,
        };
        let step = match step {
            Step::Done if !tls.is_over() => Step::Read,
            step => step,
        };
        if matches!(step, Step::Read | Step::Done) && !outgoing.is_empty() {
            stream.write_all(&outgoing).await?;
            stream.flush().await?;
            outgoing.clear();
        }
        match step {
            Step::Go => {}
            Step::Read => shown = show_another(&mut stream, &mut incoming, shown).await?,
            Step::Done => break,
        }
    }
    let (leaf, alpn) = (tls.leaf(), tls.alpn());
    let (secrets, renewal) = tls.extract()?;
    let link = Box::new(Link::new(stream.into(), secrets, renewal, &incoming)?);
    Ok(Established { link, leaf, alpn })
}

fn advance<Data>(state: ConnectionState<'_, '_, Data>, outgoing: &mut Vec<u8>) -> Result<Step, LinkError> {
    match state {
        ConnectionState::EncodeTlsData(mut record) => {
            let at = outgoing.len();
            let needed = match record.encode(&mut []) {
                Err(EncodeError::InsufficientSize(size)) => size.required_size,
                _ => 0,
            };
            outgoing.resize(at + needed, 0);
            let written = record.encode(outgoing.get_mut(at..).unwrap_or_default());
            outgoing.truncate(at + written.map_err(io::Error::other)?);
            Ok(Step::Go)
        }
        // It is sent before the next read.
        ConnectionState::TransmitTlsData(sending) => {
            sending.done();
            Ok(Step::Go)
        }
        ConnectionState::BlockedHandshake => Ok(Step::Read),
        ConnectionState::WriteTraffic(_) => Ok(Step::Done),
        // Nothing may come or close before the handshake is over.
        _ => Err(LinkError::Closed(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Reads until one more record than `shown` is there, and says where it ends.
async fn show_another(stream: &mut impl Transport, incoming: &mut Vec<u8>, shown: usize) -> io::Result<usize> {
    loop {
        // What is no record is not waited for: who speaks something else may wait for an answer.
        if incoming.get(shown).is_some_and(|kind| !(20..=24).contains(kind)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if let Some(&[_, _, _, high, low]) = incoming.get(shown..).and_then(<[u8]>::first_chunk) {
            let end = shown + 5 + usize::from(u16::from_be_bytes([high, low]));
            if end <= incoming.len() {
                return Ok(end);
            }
        }
        if incoming.len() > MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        incoming.reserve(4096);
        if stream.read_buf(incoming).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Sends the alert that says what was wrong. Whether it arrives changes nothing.
async fn tell<H: Handshake>(stream: &mut impl Transport, tls: &mut H, incoming: &mut [u8]) {
    let mut outgoing = Vec::new();
    // Asked once more after that, rustls would look at what was wrong again.
    while tls.wants_write() {
        let Ok(state @ ConnectionState::EncodeTlsData(_)) = tls.process(incoming).state else { break };
        if advance(state, &mut outgoing).is_err() {
            break;
        }
    }
    let _ = stream.write_all(&outgoing).await;
    let _ = stream.shutdown().await;
}
