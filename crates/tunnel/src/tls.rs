//! The one TLS of the data path: 1.3, both sides with certificates of the organisation's CA, no resumption.
//!
//! The crypto provider is aws-lc-rs and is installed by [`install_crypto_provider`], the first line of every `main`.

mod outer;
mod verify;

use std::{fmt, sync::Arc};

use postern_proto::{door::Door, id::OrgId, park, sync::Peer, time::UnixMillis};
use rustls::{
    CipherSuite, ClientConfig, NamedGroup, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::NoServerSessionStorage,
    version::TLS13,
};

pub use self::outer::{OuterClientTls, OuterServerTls};
use crate::{
    identity::{IdentityError, PeerIdentity},
    outward::Outward,
};

/// The application protocol of the carrier.
pub const ALPN: &[u8] = b"postern/1";
/// What browsers offer; they are answered 404.
const HTTP_ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Installs aws-lc-rs as the provider of every TLS connection of this process. The first line of every `main`; calling
/// it again does nothing.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already, by an earlier call.
    let _ = crypto_provider().install_default();
}

/// The provider: AES-128-GCM first where the processor has AES instructions (7–8 GB/s a core), ChaCha20 elsewhere; key
/// exchange over X25519, then P-256. The post-quantum exchange costs 72 µs and 2.3 kB a handshake and is left out.
#[must_use]
pub fn crypto_provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let order = if has_aes() {
        [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384]
    } else {
        [CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, CipherSuite::TLS13_AES_128_GCM_SHA256]
    };
    let rank = |suite| order.iter().position(|first| *first == suite).unwrap_or(order.len());
    provider.cipher_suites.sort_by_key(|suite| rank(suite.suite()));
    provider.kx_groups.retain(|group| [NamedGroup::X25519, NamedGroup::secp256r1].contains(&group.name()));
    provider
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const fn has_aes() -> bool {
    false
}

/// Why TLS cannot be set up from what was given.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate is not readable PEM")]
    BadCertificate,
    #[error("the private key is not readable PEM")]
    BadKey,
    #[error("the certificate of the authority is not usable")]
    BadAuthority,
    #[error("this machine has no trusted roots")]
    NoRoots,
    #[error("the certificate does not say who it belongs to")]
    Identity(#[from] IdentityError),
    #[error("it is reached in a way that this version does not know")]
    UnknownCarrier,
    #[error("TLS refused the certificate or the key")]
    Rustls(#[from] rustls::Error),
}

/// Whom to trust: the CA of one organisation.
#[derive(Clone)]
pub struct Trust {
    org: OrgId,
    roots: Arc<RootCertStore>,
}

impl Trust {
    /// `authority`: the CA certificate, or several while it changes, in PEM.
    pub fn from_pem(org: OrgId, authority: &str) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            let certificate = certificate.map_err(|_| TlsError::BadAuthority)?;
            roots.add(certificate).map_err(|_| TlsError::BadAuthority)?;
        }
        if roots.is_empty() {
            return Err(TlsError::BadAuthority);
        }
        Ok(Self { org, roots: Arc::new(roots) })
    }

    #[must_use]
    pub const fn org(&self) -> OrgId {
        self.org
    }

    #[must_use]
    pub const fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("org", &self.org).finish_non_exhaustive()
    }
}

/// A certificate with its key: who we are. Its Debug form holds no key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    peer: PeerIdentity,
}

impl Identity {
    /// `certificate`: the leaf, and what stands between it and the CA, in PEM; `key`: its private key (PKCS#8 or SEC1).
    pub fn from_pem(org: OrgId, certificate: &str, key: &str) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::BadCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::BadKey)?;
        let leaf = chain.first().ok_or(TlsError::BadCertificate)?;
        let peer = PeerIdentity::from_leaf(leaf, org)?;
        Ok(Self { chain, key, peer })
    }

    /// Who the certificate says we are.
    #[must_use]
    pub const fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    #[must_use]
    pub const fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// How a client dials nodes: with its certificate, accepting only the node that it means, and over the way out that its
/// machine has.
#[derive(Clone)]
pub struct ClientTls {
    org: OrgId,
    config: Arc<ClientConfig>,
    not_after: UnixMillis,
    outward: Outward,
}

impl ClientTls {
    pub fn new(trust: &Trust, identity: &Identity) -> Result<Self, TlsError> {
        let provider = Arc::new(crypto_provider());
        let verifier = verify::NodeVerifier::new(trust, &provider)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        // The link seals its records itself.
        config.enable_secret_extraction = true;
        Ok(Self {
            org: trust.org,
            config: Arc::new(config),
            not_after: identity.peer.not_after,
            outward: Outward::installed(),
        })
    }

    /// Dials over this way out instead of the one that is installed.
    #[must_use]
    pub fn over(mut self, outward: Outward) -> Self {
        self.outward = outward;
        self
    }

    pub(crate) const fn outward(&self) -> &Outward {
        &self.outward
    }

    /// When the client certificate ends.
    #[must_use]
    pub const fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// How a relay dials gateways to park links there.
    #[must_use]
    pub fn for_parking(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![park::ALPN.to_vec()];
        Self { org: self.org, config: Arc::new(config), not_after: self.not_after, outward: self.outward.clone() }
    }

    /// Whether the other side agreed on a protocol that was offered.
    pub(crate) fn offers(&self, protocol: Option<&[u8]>) -> bool {
        self.config.alpn_protocols.iter().any(|offered| Some(offered.as_slice()) == protocol)
    }

    pub(crate) const fn org(&self) -> OrgId {
        self.org
    }

    pub(crate) const fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// How a node accepts clients: certificates of the organisation's CA are verified when they are sent, and a peer without
/// one is served nothing but 404 (see [`crate::node`]).
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    org: OrgId,
}

impl ServerTls {
    /// `identity` is that of a node.
    pub fn new(trust: &Trust, identity: &Identity) -> Result<Self, TlsError> {
        if !matches!(identity.peer.peer, Peer::Node { .. }) {
            return Err(IdentityError::WrongUse.into());
        }
        let provider = Arc::new(crypto_provider());
        let verifier = verify::PeerVerifier::new(trust, &provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
        config.alpn_protocols = [ALPN, park::ALPN].into_iter().chain(HTTP_ALPN).map(<[u8]>::to_vec).collect();
        // A resumed session would carry an identity past its end; a ticket would make an idle connection look readable.
        config.enable_secret_extraction = true;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), org: trust.org })
    }

    pub(crate) const fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    pub(crate) const fn org(&self) -> OrgId {
        self.org
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("org", &self.org).finish_non_exhaustive()
    }
}

/// The name that is dialled. It is verified and never resolved.
pub(crate) fn server_name(door: Door) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(door.tls_name()).map_err(|_| TlsError::BadCertificate)
}
