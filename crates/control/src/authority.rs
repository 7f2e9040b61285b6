//! The organisation's certificate authority.
//!
//! It signs device, node and server certificates (EC P-256). It never takes a name from a request: of a certificate
//! request only the key and the signature over it count.

mod request;
mod server;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use aws_lc_rs::digest;
use postern_proto::{
    api::{CaInfo, CertificateResponse, DEVICE_CERTIFICATE_HOURS, NODE_CERTIFICATE_DAYS},
    id::{AccountId, ClusterId, DeviceId, NodeId, OrgId},
    record::hex,
    time::UnixMillis,
};
use postern_tunnel::private_file;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use time::OffsetDateTime;

pub use self::{
    request::{RequestError, RequestedKey},
    server::{ServerCertificate, ServerCertificateError},
};
use crate::secret::{self, NoEntropy};

/// The key and the certificate in one file, so that a crash cannot part them.
const KEY_FILE: &str = "ca-key.pem";
/// The certificate alone, to be given to clients.
const CERTIFICATE_FILE: &str = "ca.pem";
/// How long the authority itself lasts: ten years.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long the control plane's own server certificate lasts.
const SERVER_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// Certificates begin this much in the past, because clocks differ (fault F08: five minutes).
const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// Why the authority cannot be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot read or write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} holds no usable key and certificate: restore it from a backup", path.display())]
    Unusable { path: PathBuf },
    #[error("{} belongs to {found}, but this data folder to {expected}", path.display())]
    OtherOrg { path: PathBuf, expected: OrgId, found: String },
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// Why a certificate was not signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("the certificate would end before it begins")]
    AlreadyOver,
    #[error("{0:?} is no host name or IP address")]
    BadName(String),
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// Signs certificates in the name of one organisation.
pub struct Authority {
    org: OrgId,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    devices_signed: AtomicU64,
    nodes_signed: AtomicU64,
}

impl Authority {
    /// Opens the authority in the data folder, or makes it when the folder has none.
    pub fn open_or_create(data: &Path, org: OrgId, org_name: &str, now: UnixMillis) -> Result<Self, AuthorityError> {
        let path = data.join(KEY_FILE);
        let authority = match private_file::read(&path) {
            Ok(content) => Self::read(&path, &content, org)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(&path, org, org_name, now)?,
            Err(source) => return Err(AuthorityError::File { path, source }),
        };
        authority.publish(data)?;
        Ok(authority)
    }

    /// Opens an authority whose key and certificate, as [`Self::draw`] made them, were kept elsewhere.
    pub fn from_secret(content: &[u8], org: OrgId) -> Result<Self, AuthorityError> {
        Self::read(Path::new("the secret of the database"), content, org)
    }

    /// Puts the certificate into the data folder, for clients.
    pub fn publish(&self, data: &Path) -> Result<(), AuthorityError> {
        let path = Self::certificate_file(data);
        if std::fs::read(&path).ok().as_deref() != Some(self.pem.as_bytes()) {
            private_file::write_public(&path, self.pem.as_bytes())
                .map_err(|source| AuthorityError::File { path, source })?;
        }
        Ok(())
    }

    /// Where the key lies, where it is not in a database.
    pub(crate) fn key_file(data: &Path) -> PathBuf {
        data.join(KEY_FILE)
    }

    /// Where the certificate lies that clients are given.
    #[must_use]
    pub fn certificate_file(data: &Path) -> PathBuf {
        data.join(CERTIFICATE_FILE)
    }

    /// What clients are told about this authority.
    #[must_use]
    pub fn info(&self, org_name: &str) -> CaInfo {
        CaInfo {
            org: self.org,
            org_name: org_name.to_owned(),
            certificate: self.pem.clone(),
            fingerprint: self.fingerprint(),
        }
    }

    /// SHA-256 of the certificate (DER), lower-case hex.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(digest::digest(&digest::SHA256, &self.certificate).as_ref())
    }

    #[must_use]
    pub const fn org(&self) -> OrgId {
        self.org
    }

    /// The authority's own certificate.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// How many certificates of each kind this process has signed.
    #[must_use]
    pub fn issued(&self) -> [(&'static str, u64); 2] {
        [("device", &self.devices_signed), ("node", &self.nodes_signed)]
            .map(|(kind, count)| (kind, count.load(Ordering::Relaxed)))
    }

    /// The trust anchors that client certificates are checked against: this authority and nothing else.
    pub fn anchors(&self) -> Result<RootCertStore, rustls::Error> {
        let mut anchors = RootCertStore::empty();
        anchors.add(self.certificate.clone())?;
        Ok(anchors)
    }

    /// Signs a device certificate: client authentication only, and never past `until` (the end of the login).
    pub fn sign_device(
        &self,
        key: &RequestedKey,
        account: AccountId,
        device: DeviceId,
        until: UnixMillis,
        now: UnixMillis,
    ) -> Result<CertificateResponse, IssueError> {
        let begin = before(now);
        let end = begin.plus(Duration::from_secs(DEVICE_CERTIFICATE_HOURS * 3600)).min(until);
        let mut leaf = leaf(&device.to_string(), begin, end, now)?;
        leaf.subject_alt_names = vec![uri(&format!("postern://{}/account/{account}/device/{device}", self.org))?];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed = self.sign(&leaf, key.public_key(), end)?;
        self.devices_signed.fetch_add(1, Ordering::Relaxed);
        Ok(signed)
    }

    /// Signs a node certificate: it serves clients, a worker in the name of its cluster too, and speaks to the control plane.
    pub fn sign_node(
        &self,
        key: &RequestedKey,
        node: NodeId,
        cluster: Option<ClusterId>,
        now: UnixMillis,
    ) -> Result<CertificateResponse, IssueError> {
        let begin = before(now);
        let end = begin.plus(Duration::from_secs(NODE_CERTIFICATE_DAYS * 86_400));
        let mut leaf = leaf(&node.to_string(), begin, end, now)?;
        leaf.subject_alt_names =
            vec![uri(&format!("postern://{}/node/{node}", self.org))?, SanType::DnsName(node.tls_name().try_into()?)];
        if let Some(cluster) = cluster {
            leaf.subject_alt_names.push(SanType::DnsName(cluster.tls_name().try_into()?));
        }
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = self.sign(&leaf, key.public_key(), end)?;
        self.nodes_signed.fetch_add(1, Ordering::Relaxed);
        Ok(signed)
    }

    /// Makes a key and a certificate for the control plane itself. `names` are host names and IP addresses; localhost,
    /// 127.0.0.1 and ::1 are always among them.
    fn sign_server(&self, names: &[String], now: UnixMillis) -> Result<SignedServer, IssueError> {
        let begin = before(now);
        let not_after = begin.plus(SERVER_LIFETIME);
        let mut leaf = leaf("postern-control", begin, not_after, now)?;
        leaf.subject_alt_names = server_names(names)?;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = leaf.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(SignedServer { chain: vec![certificate.der().clone(), self.certificate.clone()], key, not_after })
    }

    fn sign(
        &self,
        leaf: &CertificateParams,
        key: &impl PublicKeyData,
        not_after: UnixMillis,
    ) -> Result<CertificateResponse, IssueError> {
        let certificate = leaf.signed_by(key, &self.issuer)?;
        // A certificate counts whole seconds; its end is told as it stands in it.
        Ok(CertificateResponse { certificate: certificate.pem(), not_after: UnixMillis(not_after.0 / 1000 * 1000) })
    }

    fn create(path: &Path, org: OrgId, org_name: &str, now: UnixMillis) -> Result<Self, AuthorityError> {
        let content = Self::draw(org, org_name, now)?;
        private_file::write(path, content.as_bytes())
            .map_err(|source| AuthorityError::File { path: path.to_owned(), source })?;
        Self::read(path, content.as_bytes(), org)
    }

    /// The key and the certificate of a new authority, in PEM.
    pub fn draw(org: OrgId, org_name: &str, now: UnixMillis) -> Result<zeroize::Zeroizing<String>, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        let begin = before(now);
        params.not_before = instant(begin);
        params.not_after = instant(begin.plus(CA_LIFETIME));
        params.serial_number = Some(serial()?);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, org.to_string());
        params.distinguished_name.push(DnType::CommonName, format!("Postern CA of {}", shown(org_name)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(zeroize::Zeroizing::new(format!("{}{pem}", key.serialize_pem())))
    }

    fn read(path: &Path, content: &[u8], org: OrgId) -> Result<Self, AuthorityError> {
        let unusable = || AuthorityError::Unusable { path: path.to_owned() };
        let key = PrivateKeyDer::from_pem_slice(content).map_err(|_| unusable())?;
        let key = KeyPair::from_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(|_| unusable())?;
        let certificate = CertificateDer::from_pem_slice(content).map_err(|_| unusable())?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| unusable())?;
        if !parsed.is_ca() || parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(unusable());
        }
        let found = parsed.subject().iter_organization().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
        if found != org.to_string() {
            let found = found.to_owned();
            return Err(AuthorityError::OtherOrg { path: path.to_owned(), expected: org, found });
        }
        let pem = pem_of(&certificate);
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| unusable())?;
        let (devices_signed, nodes_signed) = <(AtomicU64, AtomicU64)>::default();
        Ok(Self { org, issuer, certificate, pem, devices_signed, nodes_signed })
    }
}

/// A certificate of the control plane with its chain and key.
struct SignedServer {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    not_after: UnixMillis,
}

/// What all leaves share. `now` must lie before `end`.
fn leaf(name: &str, begin: UnixMillis, end: UnixMillis, now: UnixMillis) -> Result<CertificateParams, IssueError> {
    if end <= now {
        return Err(IssueError::AlreadyOver);
    }
    let mut params = CertificateParams::default();
    params.not_before = instant(begin);
    params.not_after = instant(end);
    params.serial_number = Some(serial()?);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn server_names(names: &[String]) -> Result<Vec<SanType>, IssueError> {
    let always = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut sans = Vec::new();
    for name in always.iter().chain(names) {
        let san = match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => {
                rustls::pki_types::DnsName::try_from(name.as_str()).map_err(|_| IssueError::BadName(name.clone()))?;
                SanType::DnsName(name.as_str().try_into()?)
            }
        };
        if !sans.contains(&san) {
            sans.push(san);
        }
    }
    Ok(sans)
}

fn uri(text: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(text.try_into()?))
}

fn before(now: UnixMillis) -> UnixMillis {
    UnixMillis(now.0.saturating_sub(u64::try_from(BACKDATED.as_millis()).unwrap_or(0)))
}

fn instant(at: UnixMillis) -> OffsetDateTime {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// 127 random bits: no two certificates of this authority share a serial number, renewals of one key included.
fn serial() -> Result<SerialNumber, NoEntropy> {
    let mut bytes = secret::entropy::<16>()?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// The organisation's name as it may stand in a certificate: at most 40 characters, none of them a control character.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}

fn pem_of(certificate: &CertificateDer<'_>) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let body = STANDARD.encode(certificate);
    let lines: Vec<&str> = body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
