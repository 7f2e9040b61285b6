//! A device without posternd: it signs in, holds a certificate and leases, and may do with them what it likes.

use anyhow::Context as _;
use postern_proto::{
    api::{CaInfo, Credential, DeviceInfo, IssuedLease, LeaseRequest, LeaseResponse, LoginRequest, LoginResponse},
    id::{AccountId, DeviceId, OrgId, ResourceId},
};
use serde_json::json;

use crate::api::{Api, ControlAddress, Identity};

/// A signed-in device.
#[derive(Clone)]
pub struct Device {
    pub org: OrgId,
    pub account: AccountId,
    pub id: DeviceId,
    pub identity: Identity,
    pub ca: CaInfo,
    /// The bearer token of the login.
    pub token: String,
    pub must_change_password: bool,
    api: Api,
}

impl Device {
    pub async fn with_password(control: &ControlAddress, email: &str, password: &str) -> anyhow::Result<Self> {
        let credential = Credential::Password { email: email.to_owned(), password: password.to_owned() };
        Self::login(control, credential).await
    }

    /// Makes a key, signs in and keeps what the control plane gives.
    pub async fn login(control: &ControlAddress, credential: Credential) -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate().context("cannot make a key")?;
        let csr = request(&key)?;
        let device = DeviceInfo { name: "test device".to_owned(), os: "test".to_owned() };
        let request = serde_json::to_value(LoginRequest { credential, device, csr })?;
        let answer = Api::new(control, None, None)?.post("/api/v1/login", request).await?;
        let login: LoginResponse = serde_json::from_value(answer).context("the answer to a login is not as agreed")?;
        let identity = Identity { certificate: login.certificate.certificate.clone(), key: key.serialize_pem() };
        let api = Api::new(control, Some(&identity), Some(&login.token))?;
        Ok(Self {
            org: login.ca.org,
            account: login.account.id,
            id: login.device,
            identity,
            ca: login.ca,
            token: login.token,
            must_change_password: login.must_change_password,
            api,
        })
    }

    /// The REST API, called with this device's certificate and login.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Chooses a new password for the account.
    pub async fn change_password(&self, old: &str, new: &str) -> anyhow::Result<()> {
        self.api.post("/api/v1/password", json!({"current": old, "new": new})).await.map(drop)
    }

    /// Leases for these resources, and which were denied.
    pub async fn leases(&self, resources: &[ResourceId]) -> anyhow::Result<LeaseResponse> {
        let request = serde_json::to_value(LeaseRequest { resources: resources.to_vec() })?;
        let answer = self.api.post("/api/v1/leases", request).await?;
        serde_json::from_value(answer).context("the answer to a lease request is not as agreed")
    }

    /// The lease for one resource; an error when it was denied.
    pub async fn lease(&self, resource: ResourceId) -> anyhow::Result<IssuedLease> {
        self.leases(&[resource]).await?.leases.pop().with_context(|| format!("no lease for {resource}"))
    }
}

/// A PKCS#10 request in PEM for this key, with names that nobody should heed.
pub fn request(key: &rcgen::KeyPair) -> anyhow::Result<String> {
    let mut params = rcgen::CertificateParams::new(vec!["ignored.example".to_owned()])?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "ignored");
    Ok(params.serialize_request(key)?.pem()?)
}
