//! Who calls with a certificate: devices and nodes.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::request::Parts,
};
use postern_proto::{problem::Problem, record::hex, sync::Peer};
use postern_tunnel::identity::PeerIdentity;

use super::{Answer, Refusal, caller::origin};
use crate::{
    authority::{IssueError, RequestError, RequestedKey},
    catalogue::Node,
    devices::{self, Barred, Standing, StandingError},
    state::AppState,
    store::{Actor, Who},
};

/// A device whose certificate, account and login count now.
#[derive(Clone, Debug)]
pub(super) struct CallingDevice {
    pub standing: Standing,
    pub certificate: PeerIdentity,
    pub actor: Actor,
}

/// A node that is known, with the key that it was enrolled with.
#[derive(Clone, Debug)]
pub(super) struct CallingNode {
    pub node: Arc<Node>,
    pub certificate: PeerIdentity,
    pub actor: Actor,
}

impl CallingDevice {
    pub(super) async fn of(state: &AppState, certificate: PeerIdentity, parts: &Parts) -> Answer<Self> {
        let standing = devices::standing(&state.store, &certificate).await?;
        let who = Who::Account { id: standing.account.id, email: standing.account.email.to_string() };
        Ok(Self { standing, certificate, actor: origin(who, parts) })
    }
}

impl CallingNode {
    pub(super) fn of(state: &AppState, certificate: PeerIdentity, parts: &Parts) -> Answer<Self> {
        let Peer::Node { node } = certificate.peer else { return Err(other_kind("a gateway")) };
        let known = state.store.catalogue().nodes.get(&node).cloned();
        let key = hex(&certificate.spki_sha256);
        let over = certificate.is_over(state.clock.now());
        let Some(node) = known.filter(|node| node.spki_sha256.as_deref() == Some(&key) && !over) else {
            let problem = Problem::new(401, "node_unknown", "This gateway is not known here");
            return Err(problem
                .with_detail("It was deleted, enrolled anew, or its certificate has ended. Enrol it.")
                .into());
        };
        let who = Who::Node { id: node.id, name: node.name.clone() };
        Ok(Self { node, certificate, actor: origin(who, parts) })
    }
}

impl FromRequestParts<AppState> for CallingDevice {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Answer<Self> {
        let certificate = certificate(parts).ok_or_else(|| none("a device"))?;
        Self::of(state, certificate, parts).await
    }
}

/// `None` without a client certificate; one that does not count is refused.
impl OptionalFromRequestParts<AppState> for CallingDevice {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Answer<Option<Self>> {
        match certificate(parts) {
            Some(certificate) => Self::of(state, certificate, parts).await.map(Some),
            None => Ok(None),
        }
    }
}

impl FromRequestParts<AppState> for CallingNode {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Answer<Self> {
        let certificate = certificate(parts).ok_or_else(|| none("a gateway"))?;
        Self::of(state, certificate, parts)
    }
}

/// The certificate of this connection.
pub(super) fn certificate(parts: &Parts) -> Option<PeerIdentity> {
    parts.extensions.get::<PeerIdentity>().cloned()
}

/// No certificate, where one is needed.
pub(super) fn none(of: &str) -> Refusal {
    Problem::new(401, "no_certificate", format!("This call needs the certificate of {of}"))
        .with_detail("The TLS connection has shown none.")
        .into()
}

fn other_kind(of: &str) -> Refusal {
    Problem::new(403, "other_certificate", format!("This call needs the certificate of {of}"))
        .with_detail("The TLS connection has shown that of somebody else.")
        .into()
}

impl From<StandingError> for Refusal {
    fn from(error: StandingError) -> Self {
        match error {
            StandingError::Barred(barred) => barred.into(),
            StandingError::Store(error) => error.into(),
        }
    }
}

impl From<Barred> for Refusal {
    fn from(barred: Barred) -> Self {
        let (status, code, advice) = match barred {
            Barred::Unknown => (401, "device_unknown", "Sign in again."),
            Barred::SignedOut => (401, "login_ended", "Sign in again."),
            Barred::Revoked => (403, "device_revoked", "Its key never signs in again; sign in with a new one."),
            Barred::Suspended => (403, "account_suspended", "Ask an administrator."),
        };
        Problem::new(status, code, capitalised(&barred.to_string())).with_detail(advice).into()
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        let mut broken = super::Violations::default();
        broken.add("csr", "", error);
        broken.into()
    }
}

impl From<IssueError> for Refusal {
    fn from(error: IssueError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a certificate could not be signed");
        Problem::new(500, "internal", "The control plane failed").with_detail("Its log says why.").into()
    }
}

/// Reads a certificate request and holds it to a key that is known already.
pub(super) fn same_key(csr: &str, spki_sha256: &str) -> Answer<RequestedKey> {
    let key = RequestedKey::from_pem(csr)?;
    if key.spki_sha256() == spki_sha256 {
        return Ok(key);
    }
    let mut broken = super::Violations::default();
    broken.add("csr", "", "must carry the key that the certificate before it has");
    Err(broken.into())
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

impl From<devices::LoginError> for Refusal {
    fn from(error: devices::LoginError) -> Self {
        match error {
            devices::LoginError::Barred(barred) => barred.into(),
            devices::LoginError::Store(error) => error.into(),
            devices::LoginError::TooMany => Problem::new(403, "too_many_devices", "The account has too many devices")
                .with_detail("Sign in on one that it has already.")
                .into(),
            devices::LoginError::Entropy(error) => {
                tracing::error!(%error, "a token could not be made");
                Problem::new(500, "internal", "The control plane failed").with_detail("Its log says why.").into()
            }
        }
    }
}
