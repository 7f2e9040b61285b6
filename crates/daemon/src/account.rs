//! The account that is signed in on this device: its key and certificate, its client of the control plane, and what
//! vouches for gateways.

use std::sync::{Arc, PoisonError, RwLock};

use postern_proto::{
    api::{CertificateResponse, Credential},
    id::OrgId,
    time::UnixMillis,
};
use postern_tunnel::{
    control::{BadIdentity, BadUrl, Bearer, ClientIdentity, ControlClient, ControlUrls, Trust},
    tls::{self, ClientTls, TlsError},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::{
    engine::{CertificateSpan, Owner},
    secrets::Secrets,
    sign_in::Target,
    store::{Config, DeviceKey, Identity, SignInRecord},
};

/// See the module.
#[derive(Debug)]
pub struct Account {
    record: SignInRecord,
    control: Arc<ControlClient>,
    key: DeviceKey,
    identity: RwLock<Identity>,
    gateway_trust: tls::Trust,
}

/// Why what is kept is no account.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error(transparent)]
    Url(#[from] BadUrl),
    #[error("the device certificate cannot be used: {0}")]
    Identity(#[from] BadIdentity),
    #[error("the device certificate cannot be used with gateways: {0}")]
    Tls(#[from] TlsError),
    #[error("the certificate of the control plane cannot be read: {0}")]
    Unreadable(String),
    #[error("a key could not be made: {0}")]
    Key(#[from] rcgen::Error),
}

impl Account {
    /// # Errors
    /// What does not fit together.
    pub fn new(
        config: &Config,
        record: SignInRecord,
        key: DeviceKey,
        identity: Identity,
    ) -> Result<Self, AccountError> {
        let control = Arc::new(control_client(config)?);
        control.set_bearer(Some(Bearer::new(record.token.clone())));
        control.set_identity(Some(ClientIdentity::from_pem(&identity.certificate, &key.pem)?));
        let gateway_trust = tls::Trust::from_pem(record.org, &record.ca)?;
        let account = Self { record, control, key, identity: RwLock::new(identity), gateway_trust };
        account.gateway_tls()?;
        Ok(account)
    }

    #[must_use]
    pub const fn record(&self) -> &SignInRecord {
        &self.record
    }

    /// The client of the control plane, with the login and the device certificate.
    #[must_use]
    pub const fn control(&self) -> &Arc<ControlClient> {
        &self.control
    }

    /// Whether somebody who signs in at `target` with `credential` is likely to be this account. For a service token
    /// only the control plane knows.
    #[must_use]
    pub fn may_be(&self, target: &Target, credential: &Credential) -> bool {
        let account = &self.record.account;
        let fits = match credential {
            Credential::Password { email, .. } => email.trim().eq_ignore_ascii_case(&account.email),
            Credential::ServiceToken { .. } => account.service,
        };
        fits && is_same_control(&target.urls().to_string(), &self.record.control)
    }

    #[must_use]
    pub const fn key(&self) -> &DeviceKey {
        &self.key
    }

    /// What is kept of it where nobody else may read.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        Secrets { key: self.key.clone(), record: self.record.clone() }
    }

    #[must_use]
    pub const fn owner(&self) -> Owner {
        let account = &self.record.account;
        Owner { account: account.id, device: self.record.device, service: account.service }
    }

    #[must_use]
    pub fn certificate(&self) -> CertificateSpan {
        self.identity().span()
    }

    /// How gateways are dialled with the certificate of now.
    ///
    /// # Errors
    /// A certificate that gateways would not take.
    pub fn gateway_tls(&self) -> Result<ClientTls, TlsError> {
        let identity = tls::Identity::from_pem(self.record.org, &self.identity().certificate, &self.key.pem)?;
        ClientTls::new(&self.gateway_trust, &identity)
    }

    /// A request for a certificate of this device's key, PEM.
    ///
    /// # Errors
    /// A key that cannot be read.
    pub fn certificate_request(&self) -> Result<String, AccountError> {
        Ok(certificate_request(&self.key)?)
    }

    /// Uses a renewed certificate from now on.
    ///
    /// # Errors
    /// A certificate that does not fit; the old one stays.
    pub fn take_certificate(&self, fresh: Identity) -> Result<(), AccountError> {
        let identity = ClientIdentity::from_pem(&fresh.certificate, &self.key.pem)?;
        tls::Identity::from_pem(self.record.org, &fresh.certificate, &self.key.pem)?;
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.control.set_identity(Some(identity));
        Ok(())
    }

    /// Forgets the certificate at the control plane's client: it has ended, and showing it would only be refused.
    pub fn hide_certificate(&self) {
        self.control.set_identity(None);
    }

    #[must_use]
    pub const fn org(&self) -> OrgId {
        self.record.org
    }

    fn identity(&self) -> Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Identity {
    /// Reads an issued certificate.
    ///
    /// # Errors
    /// A certificate that is none.
    pub fn from_response(response: CertificateResponse) -> Result<Self, AccountError> {
        let unreadable = |error: &dyn ToString| AccountError::Unreadable(error.to_string());
        let leaf =
            CertificateDer::from_pem_slice(response.certificate.as_bytes()).map_err(|error| unreadable(&error))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).map_err(|error| unreadable(&error))?;
        let millis = |seconds: i64| UnixMillis(u64::try_from(seconds).unwrap_or_default().saturating_mul(1000));
        let validity = parsed.validity();
        let (not_before, not_after) = (millis(validity.not_before.timestamp()), millis(validity.not_after.timestamp()));
        Ok(Self { certificate: response.certificate, not_before, not_after })
    }

    #[must_use]
    pub const fn span(&self) -> CertificateSpan {
        CertificateSpan { not_before: self.not_before, not_after: self.not_after }
    }
}

/// Whether two lists of addresses are of one control plane: they have one in common.
#[must_use]
pub fn is_same_control(one: &str, other: &str) -> bool {
    let read = |text: &str| text.parse::<ControlUrls>().ok();
    one == other || read(one).zip(read(other)).is_some_and(|(one, other)| one.meets(&other))
}

/// A client of the configured control plane without any login.
///
/// # Errors
/// An address that is none.
pub fn control_client(config: &Config) -> Result<ControlClient, BadUrl> {
    let urls: ControlUrls = config.control.parse()?;
    let trust = config.ca.clone().map_or(Trust::System, Trust::Ca);
    Ok(ControlClient::new(urls, trust))
}

/// Makes a device key (P-256: what TPM and Secure Enclave hold).
///
/// # Errors
/// What the library says.
pub fn make_key() -> Result<DeviceKey, AccountError> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    Ok(DeviceKey { pem: key.serialize_pem() })
}

/// A PKCS#10 request of that key, PEM. It names nobody: the control plane reads only the key and the signature.
///
/// # Errors
/// A key that cannot be read.
pub fn certificate_request(key: &DeviceKey) -> Result<String, rcgen::Error> {
    let key = rcgen::KeyPair::from_pem(&key.pem)?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serialize_request(&key)?.pem()
}
