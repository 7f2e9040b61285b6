//! The outer TLS session of the WebSocket carrier (`crate::web`): that of any web server. It proves a server's name and
//! nothing about who may do what.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::NoServerSessionStorage,
    version::TLS13,
};

use super::{HTTP_ALPN, TlsError, crypto_provider};

/// How a client makes the outer session: with a server whose certificate its machine's roots, or a CA of the entry, vouch
/// for. It shows no certificate.
#[derive(Clone)]
pub struct OuterClientTls(Arc<ClientConfig>);

impl OuterClientTls {
    /// Trusts what this machine trusts.
    pub fn with_system_roots() -> Result<Self, TlsError> {
        // Reading them takes milliseconds and they rarely change.
        static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
        if let Some(roots) = ROOTS.get() {
            return Self::with_roots(Arc::clone(roots));
        }
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
        Self::with_roots(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
    }

    /// Trusts this CA alone, or several, in PEM.
    pub fn with_authority(authority: &str) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            let certificate = certificate.map_err(|_| TlsError::BadAuthority)?;
            roots.add(certificate).map_err(|_| TlsError::BadAuthority)?;
        }
        if roots.is_empty() { Err(TlsError::BadAuthority) } else { Self::with_roots(Arc::new(roots)) }
    }

    fn with_roots(roots: Arc<RootCertStore>) -> Result<Self, TlsError> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(crypto_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        Ok(Self(Arc::new(config)))
    }

    pub(crate) const fn config(&self) -> &Arc<ClientConfig> {
        &self.0
    }
}

impl fmt::Debug for OuterClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OuterClientTls").finish_non_exhaustive()
    }
}

/// How a node ends the outer session itself. It asks for no certificate.
#[derive(Clone)]
pub struct OuterServerTls(Arc<ServerConfig>);

impl OuterServerTls {
    /// `chain`: the leaf, and what stands between it and its authority; `key`: the leaf's private key. Both in PEM.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::BadCertificate)?;
        if chain.is_empty() {
            return Err(TlsError::BadCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::BadKey)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = HTTP_ALPN.map(<[u8]>::to_vec).to_vec();
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.enable_secret_extraction = true;
        Ok(Self(Arc::new(config)))
    }

    pub(crate) const fn config(&self) -> &Arc<ServerConfig> {
        &self.0
    }
}

impl fmt::Debug for OuterServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OuterServerTls").finish_non_exhaustive()
    }
}
