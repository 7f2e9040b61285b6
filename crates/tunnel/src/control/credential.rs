use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

/// A certificate and its key, shown to the control plane when it asks.
#[derive(Clone)]
pub struct ClientIdentity(Arc<CertifiedKey>);

/// Why a certificate and a key are no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    #[error("the private key cannot be read")]
    Key,
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

/// A bearer token. It is never printed.
#[derive(Clone)]
pub struct Bearer(Zeroizing<String>);

impl ClientIdentity {
    /// `chain`: the leaf first, in PEM. `key`: PKCS#8 or SEC1 in PEM.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, BadIdentity> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.map_err(|error| BadIdentity::Certificate(error.to_string()))?;
        if chain.is_empty() {
            return Err(BadIdentity::Certificate("there is none".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| BadIdentity::Key)?;
        let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|_| BadIdentity::Key)?;
        Self::from_certified_key(Arc::new(CertifiedKey::new(chain, key)))
    }

    pub fn from_certified_key(key: Arc<CertifiedKey>) -> Result<Self, BadIdentity> {
        key.keys_match().map_err(|_| BadIdentity::Mismatch)?;
        Ok(Self(key))
    }

    #[must_use]
    pub const fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.0
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(…)")
    }
}

impl Bearer {
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    pub(super) fn header(&self) -> Option<http::HeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        let mut value = http::HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(…)")
    }
}

/// The identity of new connections; it may change while the program runs.
#[derive(Debug, Default)]
pub(super) struct CurrentIdentity(RwLock<Option<ClientIdentity>>);

impl CurrentIdentity {
    pub(super) fn set(&self, identity: Option<ClientIdentity>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    fn read(&self) -> Option<ClientIdentity> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesClientCert for CurrentIdentity {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.read().map(|identity| identity.0)
    }

    fn has_certs(&self) -> bool {
        self.read().is_some()
    }
}
