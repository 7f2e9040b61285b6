//! What client and node demand of each other's certificate, beyond what TLS demands.

use std::sync::Arc;

use postern_proto::{door::Door, id::OrgId, sync::Peer};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{TlsError, Trust};
use crate::identity::PeerIdentity;

/// Demands all that the usual verification does (chain to the CA, validity, DNS name, use as a server), and that the
/// leaf names the node or the cluster whose name was dialled.
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
        let identity = PeerIdentity::from_leaf(end_entity, self.org).map_err(|_| refused())?;
        let Peer::Node { node } = identity.peer else { return Err(refused()) };
        let own = [Some(Door::from(node)), identity.cluster.map(Door::from)];
        let dialled = own.iter().flatten().any(|door| server_name.to_str() == door.tls_name());
        if dialled { Ok(verified) } else { Err(refused()) }
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

/// Takes a peer without a certificate, who is served nothing; of one that is sent it demands the usual (chain to the CA,
/// validity, use as a client) and that it names a device or a node of the organisation.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    org: OrgId,
    chain: Arc<dyn ClientCertVerifier>,
}

impl PeerVerifier {
    pub(super) fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let chain = WebPkiClientVerifier::builder_with_provider(trust.roots().clone(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|_| TlsError::BadAuthority)?;
        Ok(Self { org: trust.org(), chain })
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        PeerIdentity::from_leaf(end_entity, self.org).map_err(|_| refused())?;
        Ok(verified)
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

const fn refused() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}
