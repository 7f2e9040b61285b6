//! A certificate authority that a test's servers have their certificates from. It has nothing to do with Postern's.

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// See the module.
pub struct TestAuthority(CertifiedIssuer<'static, KeyPair>);

/// A server's certificate and key, in PEM.
pub struct ServerIdentity {
    pub certificate: String,
    pub key: String,
}

impl TestAuthority {
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Test Authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("cannot make a test CA")?))
    }

    /// What clients trust, in PEM.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for one DNS name and nothing else.
    pub fn issue(&self, name: &str) -> anyhow::Result<ServerIdentity> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &self.0)?;
        Ok(ServerIdentity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
