//! Certificate requests (PKCS#10): of which only the key counts, and the proof that the asker holds it.

use aws_lc_rs::{
    digest,
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use postern_proto::record::hex;
use rcgen::{PKCS_ECDSA_P256_SHA256, SubjectPublicKeyInfo};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use x509_parser::{certification_request::X509CertificationRequest, oid_registry, prelude::FromDer as _};

/// No request is longer: a P-256 request without names has some 300 bytes.
const MAX_REQUEST: usize = 16 * 1024;

/// Why a certificate request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the certificate request is not readable: it must be PKCS#10 in PEM")]
    Malformed,
    #[error("the certificate request must carry an EC P-256 key and be signed with ECDSA and SHA-256")]
    OtherKey,
    #[error("the certificate request is not signed by the key that it carries")]
    BadSignature,
}

/// The key of a certificate request whose signature fits.
#[derive(Clone, Debug)]
pub struct RequestedKey {
    key: SubjectPublicKeyInfo,
    spki_sha256: String,
}

impl RequestedKey {
    /// Reads a request and checks that its sender holds the key.
    pub fn from_pem(pem: &str) -> Result<Self, RequestError> {
        if pem.len() > MAX_REQUEST {
            return Err(RequestError::Malformed);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| RequestError::Malformed)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        let info = &request.certification_request_info;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| RequestError::OtherKey)?;
        let algorithm = rcgen::PublicKeyData::algorithm(&key);
        let signed_with = &request.signature_algorithm.algorithm;
        if *algorithm != PKCS_ECDSA_P256_SHA256 || *signed_with != oid_registry::OID_SIG_ECDSA_WITH_SHA256 {
            return Err(RequestError::OtherKey);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, info.subject_pki.subject_public_key.data.as_ref())
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| RequestError::BadSignature)?;
        let spki_sha256 = hex(digest::digest(&digest::SHA256, info.subject_pki.raw).as_ref());
        Ok(Self { key, spki_sha256 })
    }

    /// SHA-256 of the SubjectPublicKeyInfo (DER), lower-case hex: what a lease is bound to.
    #[must_use]
    pub fn spki_sha256(&self) -> &str {
        &self.spki_sha256
    }

    pub(super) const fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}
