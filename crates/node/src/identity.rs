//! Who this node is: enrolment with a one-time token, the certificate, its renewal.
//!
//! The key is made here and never leaves the machine.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Method;
use postern_proto::{
    api::{CertificateRequest, CertificateResponse, EnrolRequest, EnrolResponse, NodeKind},
    id::{AccessKeyId, ClusterId, NodeId, OrgId},
    sync::Peer,
    time::UnixMillis,
};
use postern_tunnel::{
    control::{BadIdentity, CallError, ClientIdentity, ControlClient},
    tls::{ClientTls, Identity, OuterServerTls, ServerTls, TlsError, Trust},
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    state::{StateError, StateFolder},
    worker::ClusterKey,
};

/// Certificate and key in one file, so that a crash cannot part them.
const FILE: &str = "identity.json";

/// An enrolled node. Its Debug form holds no key.
#[derive(Clone, Serialize, Deserialize)]
pub struct NodeIdentity {
    pub org: OrgId,
    pub node: NodeId,
    pub name: String,
    /// Of a worker: its cluster, and what it enrolled with.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    #[serde(default)]
    pub access_key: Option<AccessKeyId>,
    certificate: String,
    issued_at: UnixMillis,
    pub not_after: UnixMillis,
    key: Zeroizing<String>,
    /// The organisation's CA in PEM.
    ca: String,
}

/// By what a node enrols.
pub enum Credential<'a> {
    /// A one-time token.
    Token(&'a str),
    KeyPair(&'a ClusterKey),
}

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("a key cannot be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the certificate from the control plane cannot be used: {0}")]
    Tls(#[from] TlsError),
    #[error("the certificate from the control plane cannot be used: {0}")]
    Pair(#[from] BadIdentity),
    #[error("the certificate from the control plane names {found:?}, not this node")]
    OtherNode { found: Peer },
}

impl NodeIdentity {
    /// What an earlier run was given.
    pub fn load(state: &StateFolder) -> Result<Option<Self>, IdentityError> {
        let Some(identity) = state.read::<Self>(FILE)? else { return Ok(None) };
        identity.check()?;
        Ok(Some(identity))
    }

    /// Enrols as a node of this kind; the identity is on disk when this returns.
    pub async fn enrol(
        state: &StateFolder,
        client: &ControlClient,
        (kind, credential): (NodeKind, &Credential<'_>),
        advertise: Option<String>,
        now: UnixMillis,
    ) -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let (token, pair) = match credential {
            Credential::Token(token) => ((*token).to_owned(), None),
            Credential::KeyPair(pair) => (String::new(), Some(pair.shown())),
        };
        let access_key = pair.as_ref().map(|pair| pair.access_key);
        let request = EnrolRequest { token, key_pair: pair, kind, csr: request(&key)?, advertise };
        let answer: EnrolResponse = client.call(Method::POST, "/api/v1/nodes/enrol", Some(&request)).await?;
        let identity = Self {
            org: answer.ca.org,
            node: answer.node,
            name: answer.name,
            cluster: answer.cluster,
            access_key,
            certificate: answer.certificate.certificate,
            issued_at: now,
            not_after: answer.certificate.not_after,
            key: Zeroizing::new(key.serialize_pem()),
            ca: answer.ca.certificate,
        };
        identity.check()?;
        identity.save(state)?;
        Ok(identity)
    }

    /// Asks for the next certificate of the same key; the identity is on disk when this returns.
    pub async fn renew(
        &self,
        state: &StateFolder,
        client: &ControlClient,
        now: UnixMillis,
    ) -> Result<Self, IdentityError> {
        let csr = request(&KeyPair::from_pem(&self.key)?)?;
        let answer: CertificateResponse =
            client.call(Method::POST, "/api/v1/nodes/certificate", Some(&CertificateRequest { csr })).await?;
        let CertificateResponse { certificate, not_after } = answer;
        let renewed = Self { certificate, issued_at: now, not_after, ..self.clone() };
        renewed.check()?;
        renewed.save(state)?;
        Ok(renewed)
    }

    /// When the next certificate is due: at two thirds of this one's life.
    #[must_use]
    pub fn renew_at(&self) -> UnixMillis {
        let life = self.not_after.since(self.issued_at);
        self.issued_at.plus(life.mul_f64(2.0 / 3.0))
    }

    /// Whether the certificate has ended.
    #[must_use]
    pub fn is_over(&self, now: UnixMillis) -> bool {
        self.not_after <= now
    }

    /// How clients are accepted.
    pub fn server_tls(&self) -> Result<ServerTls, IdentityError> {
        let trust = Trust::from_pem(self.org, &self.ca)?;
        let identity = Identity::from_pem(self.org, &self.certificate, &self.key)?;
        Ok(ServerTls::new(&trust, &identity)?)
    }

    /// How strangers are met where clients prove themselves within a WebSocket.
    pub fn outer_tls(&self) -> Result<OuterServerTls, IdentityError> {
        Ok(OuterServerTls::from_pem(&self.certificate, &self.key)?)
    }

    /// How other nodes are dialled.
    pub fn client_tls(&self) -> Result<ClientTls, IdentityError> {
        let trust = Trust::from_pem(self.org, &self.ca)?;
        let identity = Identity::from_pem(self.org, &self.certificate, &self.key)?;
        Ok(ClientTls::new(&trust, &identity)?)
    }

    /// What the control plane is shown.
    pub fn client_identity(&self) -> Result<ClientIdentity, IdentityError> {
        Ok(ClientIdentity::from_pem(&self.certificate, &self.key)?)
    }

    /// The certificate is ours, fits its key, and can be used at both ends.
    fn check(&self) -> Result<(), IdentityError> {
        let peer = Identity::from_pem(self.org, &self.certificate, &self.key)?.peer().peer;
        if peer != (Peer::Node { node: self.node }) {
            return Err(IdentityError::OtherNode { found: peer });
        }
        self.client_identity()?;
        self.server_tls()?;
        Ok(())
    }

    fn save(&self, state: &StateFolder) -> Result<(), IdentityError> {
        // Written once in a week: the runtime may wait for it.
        Ok(state.write(FILE, self)?)
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeIdentity")
            .field("node", &self.node)
            .field("name", &self.name)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// When the certificate in use ends, for whoever looks on. Clones are the same.
#[derive(Clone, Debug)]
pub struct Validity(Arc<AtomicU64>);

impl Validity {
    #[must_use]
    pub fn of(identity: &NodeIdentity) -> Self {
        Self(Arc::new(AtomicU64::new(identity.not_after.0)))
    }

    /// Another certificate is in use.
    pub fn renew(&self, identity: &NodeIdentity) {
        self.0.store(identity.not_after.0, Ordering::Release);
    }

    #[must_use]
    pub fn ends(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Acquire))
    }
}

/// A request for a certificate in PEM. No name in it counts.
fn request(key: &KeyPair) -> Result<String, rcgen::Error> {
    CertificateParams::default().serialize_request(key)?.pem()
}

/// How long to wait before a failed renewal is tried again: a minute or two, so that a week has room for thousands.
#[must_use]
pub fn renewal_retry(random: u32) -> Duration {
    Duration::from_secs(60) + Duration::from_secs(60).mul_f64(f64::from(random) / f64::from(u32::MAX))
}
