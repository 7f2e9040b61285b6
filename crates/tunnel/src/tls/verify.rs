//! What a client demands of a node's certificate.

use std::sync::Arc;

use postern_proto::{id::OrgId, sync::Peer};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{TlsError, Trust};
use crate::identity::PeerIdentity;

/// Demands all that the usual verification does (chain to the CA, validity, DNS name, use as a server), and that the
/// leaf's URI names the node whose name was dialled.
#[derive(Debug)]
pub(super) struct NodeVerifier {
    org: OrgId,
    chain: Arc<WebPkiServerVerifier>,
}

impl NodeVerifier {
    pub(super) fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let chain = WebPkiServerVerifier::builder_with_provider(trust.roots().clone(), provider.clone())
            .build()
            .map_err(|_| TlsError::BadAuthority)?;
        Ok(Self { org: trust.org(), chain })
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let refused = || Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let identity = PeerIdentity::from_leaf(end_entity, self.org).map_err(|_| refused())?;
        match identity.peer {
            Peer::Node { node } if server_name.to_str() == node.tls_name() => Ok(verified),
            _ => Err(refused()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
