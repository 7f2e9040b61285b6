use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use postern_proto::record::hex;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

use crate::tls::crypto_provider;

/// What makes a server the trusted control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The organisation's CA in PEM.
    Ca(String),
    /// SHA-256 of the organisation's CA certificate: the CA is fetched once and compared.
    Fingerprint(Fingerprint),
    /// The roots of this machine, for control planes with a public certificate.
    System,
}

/// SHA-256 of a certificate (DER).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// Why nothing can be trusted with what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTrust {
    #[error("the CA certificate cannot be read: {0}")]
    Certificate(String),
    #[error("the CA file holds no certificate")]
    Empty,
    #[error("a fingerprint is 64 hexadecimal digits, as the control plane prints it")]
    Fingerprint,
    #[error("this machine has no trusted roots: {0}")]
    NoRoots(String),
}

impl Trust {
    /// Reads a fingerprint: 64 hex digits, with or without colons.
    pub fn fingerprint(text: &str) -> Result<Self, BadTrust> {
        let digits: String = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(BadTrust::Fingerprint);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| BadTrust::Fingerprint)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| BadTrust::Fingerprint)?;
        }
        Ok(Self::Fingerprint(Fingerprint(bytes)))
    }
}

impl Fingerprint {
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// The certificate in this PEM text, if it is the one with this fingerprint.
    pub(super) fn find(self, pem: &str) -> Option<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().find(|certificate| Self::of(certificate) == self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One certificate.
pub(super) fn roots_from_certificate(certificate: CertificateDer<'static>) -> Result<RootCertStore, BadTrust> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(|error| BadTrust::Certificate(error.to_string()))?;
    Ok(roots)
}

/// The certificates of a PEM text.
pub(super) fn roots_from_pem(pem: &str) -> Result<RootCertStore, BadTrust> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| BadTrust::Certificate(error.to_string()))?;
        roots.add(certificate).map_err(|error| BadTrust::Certificate(error.to_string()))?;
    }
    if roots.is_empty() { Err(BadTrust::Empty) } else { Ok(roots) }
}

/// The roots of this machine.
pub(super) fn system_roots() -> Result<RootCertStore, BadTrust> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(BadTrust::NoRoots(errors.join("; ")));
    }
    Ok(roots)
}

/// TLS that verifies the server against `roots` and shows `identity` when asked.
pub(super) fn verified(
    roots: RootCertStore,
    identity: Arc<dyn ResolvesClientCert>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    Ok(finished(builder.with_client_cert_resolver(identity)))
}

/// TLS that believes anybody and shows nothing: only for fetching a CA that is compared with its fingerprint.
pub(super) fn unverified() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(crypto_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    Ok(finished(builder.with_no_client_auth()))
}

fn finished(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would carry the identity of the time before.
    config.resumption = Resumption::disabled();
    config
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
