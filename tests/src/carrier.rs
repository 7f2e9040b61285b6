//! The carrier as an attacker would speak it: frames by hand, right or wrong, over TLS with any certificate or none.
//!
//! Written apart from the product's own code on purpose: what both ends of it get wrong in the same way must show.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use postern_proto::id::{NodeId, ResourceId, StreamId};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::api::{Identity, client_config};

pub const HEAD: u8 = 1;
pub const REPLY: u8 = 2;
pub const DATA: u8 = 3;
pub const END: u8 = 4;
pub const RESET: u8 = 5;

/// How long a node may take for an answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// A TLS connection to a node.
pub struct Carrier {
    stream: TlsStream<TcpStream>,
}

/// What a node sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Frame(u8, Vec<u8>),
    /// The connection is over, in whatever way.
    Closed,
}

/// The answer to a head.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// The `code` of the problem; empty with 200.
    pub code: String,
    pub text: String,
}

impl Carrier {
    /// Dials a node as its clients do. The node is verified against `ca`.
    pub async fn dial(address: SocketAddr, node: NodeId, ca: &str, identity: &Identity) -> anyhow::Result<Self> {
        let mut config = client_config(ca, Some(identity))?;
        config.alpn_protocols = vec![b"postern/1".to_vec()];
        Self::connect(address, config, &node.tls_name()).await
    }

    /// Dials a node without caring who it is, with a certificate of the test's choice or none.
    pub async fn dial_blindly(address: SocketAddr, identity: Option<&Identity>) -> anyhow::Result<Self> {
        let mut config = client_config("", identity)?;
        config.alpn_protocols = vec![b"postern/1".to_vec()];
        config.dangerous().set_certificate_verifier(Arc::new(TrustAnybody(Arc::new(aws_lc_rs::default_provider()))));
        Self::connect(address, config, "anybody.example").await
    }

    async fn connect(address: SocketAddr, config: ClientConfig, name: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("the node cannot be reached")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned())?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = tokio::time::timeout(DEADLINE, connecting).await.context("the handshake hangs")??;
        Ok(Self { stream })
    }

    /// Bytes as they are, in no frame.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    pub async fn send(&mut self, kind: u8, payload: &[u8]) -> anyhow::Result<()> {
        self.send_raw(&frame(kind, payload)).await
    }

    /// The next frame, or the end.
    pub async fn receive(&mut self) -> anyhow::Result<Received> {
        self.receive_patiently(DEADLINE).await
    }

    /// The same with more time.
    pub async fn receive_patiently(&mut self, deadline: Duration) -> anyhow::Result<Received> {
        let mut header = [0; 4];
        let read = tokio::time::timeout(deadline, self.stream.read_exact(&mut header)).await;
        if read.context("the node says nothing")?.is_err() {
            return Ok(Received::Closed);
        }
        let [kind, a, b, c] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        let read = tokio::time::timeout(DEADLINE, self.stream.read_exact(&mut payload)).await;
        match read.context("the node stops within a frame")? {
            Ok(_) => Ok(Received::Frame(kind, payload)),
            Err(_) => Ok(Received::Closed),
        }
    }

    /// Sends a head and reads the reply. `None`: the node closed the connection instead.
    pub async fn open(&mut self, head: &str) -> anyhow::Result<Option<Reply>> {
        if self.send(HEAD, head.as_bytes()).await.is_err() {
            return Ok(None);
        }
        self.reply().await
    }

    /// Reads a reply. `None`: the node closed the connection instead.
    pub async fn reply(&mut self) -> anyhow::Result<Option<Reply>> {
        match self.receive().await? {
            Received::Closed => Ok(None),
            Received::Frame(REPLY, text) => Reply::read(&text).map(Some),
            Received::Frame(RESET, _) => Ok(None),
            Received::Frame(kind, _) => anyhow::bail!("a frame of type {kind} instead of a reply"),
        }
    }

    /// Ends our direction and reads what the node still sends: the bytes, and whether it ended its direction properly.
    pub async fn finish(&mut self) -> anyhow::Result<(Vec<u8>, bool)> {
        self.send(END, &[]).await?;
        let mut bytes = Vec::new();
        loop {
            match self.receive().await? {
                Received::Frame(DATA, piece) => bytes.extend_from_slice(&piece),
                Received::Frame(END, _) => return Ok((bytes, true)),
                Received::Frame(..) | Received::Closed => return Ok((bytes, false)),
            }
        }
    }
}

impl Reply {
    fn read(text: &[u8]) -> anyhow::Result<Self> {
        let text = String::from_utf8_lossy(text).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no status in {text:?}"))?;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let problem: Value = serde_json::from_str(body).unwrap_or_default();
        let code = problem.get("code").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { status, code, text })
    }
}

/// A frame: type, length in 24 bits, payload.
#[must_use]
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[kind, a, b, c], payload].concat()
}

/// The head that a client sends for a stream.
#[must_use]
pub fn head(resource: ResourceId, lease: &str, stream: StreamId) -> String {
    let stream = stream.ulid();
    format!(
        "CONNECT {resource}:0 HTTP/1.1\r\nHost: gateway\r\nPostern-Lease: {lease}\r\nPostern-Stream: {stream}\r\n\r\n"
    )
}

/// A stream id that nobody has used.
#[must_use]
pub fn new_stream() -> StreamId {
    let random: u128 = rand::random();
    StreamId::from_ulid(ulid::Ulid::from_parts(crate::clock::now().0, random))
}

/// For attackers, who do not mind.
#[derive(Debug)]
struct TrustAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A server that shows this certificate and asks for none.
pub fn acceptor(identity: &Identity) -> anyhow::Result<tokio_rustls::TlsAcceptor> {
    use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain?, key)?;
    config.alpn_protocols = vec![b"postern/1".to_vec()];
    Ok(Arc::new(config).into())
}
