//! The control plane's own certificate: in memory only, renewed by itself, swapped without a restart.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use postern_proto::time::UnixMillis;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Authority, IssueError, SERVER_LIFETIME};

/// Why the control plane has no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum ServerCertificateError {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("cannot read {}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("the certificate and the key cannot be used together")]
    Mismatch(#[source] rustls::Error),
    #[error("no crypto provider is installed")]
    NoProvider,
}

/// Where the certificate comes from.
enum Source {
    /// Signed by the organisation's own authority for these names.
    Own { authority: Arc<Authority>, names: Vec<String> },
    /// Given by the administrator, who also renews the files.
    Files { certificate: PathBuf, key: PathBuf },
}

struct Current {
    key: Arc<CertifiedKey>,
    /// When it is made or read again.
    renew_at: UnixMillis,
}

/// The certificate that the TLS listener serves with. New handshakes see a swap at once; running ones go on.
pub struct ServerCertificate {
    source: Source,
    current: RwLock<Current>,
}

impl ServerCertificate {
    /// A certificate of the organisation's own authority.
    pub fn own(authority: Arc<Authority>, names: Vec<String>, now: UnixMillis) -> Result<Self, ServerCertificateError> {
        Self::new(Source::Own { authority, names }, now)
    }

    /// A certificate chain and a key in PEM files. They are read again every minute (fault F34), and kept as they are
    /// when they cannot be used.
    pub fn files(certificate: &Path, key: &Path, now: UnixMillis) -> Result<Self, ServerCertificateError> {
        Self::new(Source::Files { certificate: certificate.to_owned(), key: key.to_owned() }, now)
    }

    fn new(source: Source, now: UnixMillis) -> Result<Self, ServerCertificateError> {
        let current = source.load(now)?;
        Ok(Self { source, current: RwLock::new(current) })
    }

    /// Renews the certificate when it is time to. On failure the old one stays, and the next call tries again.
    pub fn renew_if_due(&self, now: UnixMillis) -> Result<bool, ServerCertificateError> {
        if now < self.read().renew_at {
            return Ok(false);
        }
        let next = self.source.load(now)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = current.key.cert != next.key.cert;
        *current = next;
        Ok(changed)
    }

    /// Looks every minute whether the certificate must be renewed. Never returns.
    pub async fn keep_fresh(&self, clock: impl Fn() -> UnixMillis) {
        let mut ticks = tokio::time::interval(Duration::from_secs(60));
        loop {
            ticks.tick().await;
            match self.renew_if_due(clock()) {
                Ok(true) => tracing::info!("the server certificate was renewed"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the server certificate could not be renewed; the old one stays"),
            }
        }
    }

    /// The chain that is served now.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.read().key.cert.clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.read().key))
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").finish_non_exhaustive()
    }
}

impl Source {
    fn load(&self, now: UnixMillis) -> Result<Current, ServerCertificateError> {
        match self {
            Self::Own { authority, names } => {
                let signed = authority.sign_server(names, now)?;
                debug_assert!(signed.not_after > now);
                let key = certified(signed.chain, signed.key)?;
                Ok(Current { key, renew_at: now.plus(SERVER_LIFETIME * 2 / 3) })
            }
            Self::Files { certificate, key } => {
                let chain = CertificateDer::pem_file_iter(certificate)
                    .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .map_err(|error| unreadable(certificate, &error))?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
                Ok(Current { key: certified(chain, key)?, renew_at: now.plus(Duration::from_secs(60)) })
            }
        }
    }
}

fn unreadable(path: &Path, error: &rustls::pki_types::pem::Error) -> ServerCertificateError {
    ServerCertificateError::File { path: path.to_owned(), reason: error.to_string() }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, ServerCertificateError> {
    let provider = CryptoProvider::get_default().ok_or(ServerCertificateError::NoProvider)?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(ServerCertificateError::Mismatch)?;
    Ok(Arc::new(key))
}
