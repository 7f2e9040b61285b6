//! An organisation in memory: its CA, its lease key, its identifiers.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use postern_proto::{
    api::{CaInfo, CertificateResponse},
    id::OrgId,
    lease::{Claims, Signer, Verifier},
    record::hex,
    sync::Peer,
    time::UnixMillis,
};
use postern_tunnel::{
    identity,
    tls::{Identity, ServerTls, Trust, install_crypto_provider},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
};
use time::OffsetDateTime;
use ulid::Ulid;

/// A number for everything that needs an identifier of its own.
pub(crate) fn next_ulid() -> Ulid {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    Ulid::from_parts(1_700_000_000_000, u128::from(NEXT.fetch_add(1, Ordering::Relaxed)))
}

pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    UnixMillis(u64::try_from(since.as_millis()).unwrap())
}

pub(crate) struct Org {
    pub(crate) id: OrgId,
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
    signer: Signer,
    pub(crate) lease_key: [u8; 32],
}

impl Org {
    pub(crate) fn new() -> Self {
        install_crypto_provider();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).unwrap().pem();
        let seed: [u8; 32] = rand::random();
        let lease_key: [u8; 32] =
            Ed25519KeyPair::from_seed_unchecked(&seed).unwrap().public_key().as_ref().try_into().unwrap();
        let signer = Signer::new("k1", &[seed, lease_key].concat()).unwrap();
        Self { id: OrgId::from_ulid(next_ulid()), pem, issuer: Issuer::new(params, key), signer, lease_key }
    }

    pub(crate) fn info(&self) -> CaInfo {
        CaInfo {
            org: self.id,
            org_name: "Example".to_owned(),
            certificate: self.pem.clone(),
            fingerprint: self.fingerprint(),
        }
    }

    pub(crate) fn fingerprint(&self) -> String {
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der).as_ref())
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::from_pem(self.id, &self.pem).unwrap()
    }

    pub(crate) fn verifier(&self) -> Verifier {
        Verifier::new([("k1", self.lease_key.as_slice())])
    }

    pub(crate) fn lease(&self, claims: &Claims) -> String {
        self.signer.sign(claims).unwrap()
    }

    /// Signs the key of a request as a device's, good from now for `life`. Also the `cnf` of its leases.
    pub(crate) fn device_certificate(&self, csr: &str, peer: Peer, life: Duration) -> (CertificateResponse, String) {
        let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let cnf =
            hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &request.public_key.subject_public_key_info())
                .as_ref());
        let (mut params, not_after) = self.params(peer, life);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&request.public_key, &self.issuer).unwrap().pem();
        (CertificateResponse { certificate, not_after }, cnf)
    }

    /// TLS of a gateway.
    pub(crate) fn node_tls(&self, peer: Peer) -> ServerTls {
        let Peer::Node { node } = peer else { panic!("not a node") };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (mut params, _) = self.params(peer, Duration::from_secs(3600));
        params.subject_alt_names.push(SanType::DnsName(node.tls_name().try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let identity = Identity::from_pem(self.id, &certificate, &key.serialize_pem()).unwrap();
        ServerTls::new(&self.trust(), &identity).unwrap()
    }

    /// A certificate for an HTTPS server at 127.0.0.1: chain and key in PEM.
    pub(crate) fn server_certificate(&self) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn params(&self, peer: Peer, life: Duration) -> (CertificateParams, UnixMillis) {
        let mut params = CertificateParams::default();
        let begin = OffsetDateTime::now_utc();
        let end = begin + life;
        params.not_before = begin;
        params.not_after = end;
        params.subject_alt_names = vec![SanType::URI(identity::uri(self.id, peer).try_into().unwrap())];
        (params, UnixMillis(u64::try_from(end.unix_timestamp()).unwrap() * 1000))
    }
}
