//! Who a node is, and that it stays who it is: enrolment, and the renewal of its certificate.

use std::{sync::Arc, time::Duration};

use postern_proto::api::NodeKind;
use postern_tunnel::control::{Backoff, CallError, ControlClient};
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::GatewayError;
use crate::{
    clock,
    gateway::follow::REPLICA_FILE,
    identity::{Credential, IdentityError, NodeIdentity, renewal_retry},
    state::StateFolder,
    worker::ClusterKey,
};

/// By what a node enrols, when it is given; once enrolled a node needs it no more.
pub(crate) enum Proof {
    Token(Option<Zeroizing<String>>),
    KeyPair(Option<ClusterKey>),
}

/// Who this node is: from the disk, or by enrolment.
pub(crate) async fn identify(
    state: &StateFolder,
    client: &ControlClient,
    (kind, proof): (NodeKind, Proof),
    advertise: Option<String>,
) -> Result<NodeIdentity, GatewayError> {
    let known = NodeIdentity::load(state)?;
    let over = known.as_ref().is_some_and(|identity| identity.is_over(clock::now()));
    let token = match proof {
        Proof::Token(token) => token,
        Proof::KeyPair(pair) => return identify_worker(state, client, known.filter(|_| !over), pair).await,
    };
    match (known, token) {
        (Some(identity), token) if !over => {
            if token.is_some() {
                tracing::info!(node = %identity.node, "enrolled already; the enrolment token is not used");
            }
            Ok(identity)
        }
        (None, None) => Err(GatewayError::NotEnrolled),
        (Some(_), None) => Err(GatewayError::CertificateEnded),
        (_, Some(token)) => enrol(state, client, (kind, &Credential::Token(&token)), advertise).await,
    }
}

/// Who this worker is. One that enrolled with another key pair than it is given, or that the control plane does not know
/// any more, enrols again, as another node.
async fn identify_worker(
    state: &StateFolder,
    client: &ControlClient,
    known: Option<NodeIdentity>,
    pair: Option<ClusterKey>,
) -> Result<NodeIdentity, GatewayError> {
    let given = pair.as_ref().map(|pair| pair.access_key);
    if let Some(identity) = known.filter(|identity| given.is_none() || identity.access_key == given) {
        client.set_identity(Some(identity.client_identity()?));
        match identity.renew(state, client, clock::now()).await {
            Ok(renewed) => return Ok(renewed),
            Err(IdentityError::Call(error)) if error.problem().is_some_and(|problem| problem.status == 401) => {
                tracing::warn!(node = %identity.node, "the control plane does not know this worker any more");
            }
            Err(error) => {
                tracing::warn!(%error, "going on with the certificate that is here");
                return Ok(identity);
            }
        }
    }
    let pair = pair.ok_or(GatewayError::NoKeyPair)?;
    client.set_identity(None);
    forget(state);
    enrol(state, client, (NodeKind::Worker, &Credential::KeyPair(&pair)), None).await
}

/// Puts aside what another node has left: its records go on nobody else's chain, and what it dialled may be not for this
/// one.
fn forget(state: &StateFolder) {
    let aside = state.file(&format!("records-{}", clock::now()));
    for done in [std::fs::rename(state.file("records"), aside), std::fs::remove_file(state.file(REPLICA_FILE))] {
        match done {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "what an earlier worker left here cannot be put aside");
            }
            _ => {}
        }
    }
}

/// Tries until the control plane answers: it may be started after its gateways.
async fn enrol(
    state: &StateFolder,
    client: &ControlClient,
    (kind, credential): (NodeKind, &Credential<'_>),
    advertise: Option<String>,
) -> Result<NodeIdentity, GatewayError> {
    let mut backoff = Backoff::default();
    loop {
        match NodeIdentity::enrol(state, client, (kind, credential), advertise.clone(), clock::now()).await {
            Err(IdentityError::Call(error @ CallError::Unreachable { .. })) => {
                let wait = backoff.next(rand::random());
                tracing::warn!(%error, ?wait, "cannot enrol yet");
                sleep(wait).await;
            }
            result => return Ok(result?),
        }
    }
}

/// Renews the certificate ahead of its end, for ever.
pub(crate) async fn renew(
    mut identity: NodeIdentity,
    state: Arc<StateFolder>,
    client: Arc<ControlClient>,
    apply: impl Fn(&NodeIdentity) -> Result<(), IdentityError>,
) {
    loop {
        // The wall clock may jump: it is asked often.
        while clock::now() < identity.renew_at() {
            let left = identity.renew_at().since(clock::now());
            sleep(left.clamp(Duration::from_secs(1), Duration::from_secs(60))).await;
        }
        let renewed = identity.renew(&state, &client, clock::now()).await;
        let applied = renewed.and_then(|renewed| {
            apply(&renewed)?;
            Ok((renewed.client_identity()?, renewed))
        });
        match applied {
            Ok((shown, renewed)) => {
                client.set_identity(Some(shown));
                tracing::info!(not_after = %renewed.not_after, "certificate renewed");
                identity = renewed;
            }
            Err(error) => {
                if identity.is_over(clock::now()) {
                    let ended = GatewayError::CertificateEnded;
                    tracing::error!(%error, "no client can connect: {ended}, and restart it");
                } else {
                    tracing::warn!(%error, ends = %identity.not_after, "the certificate cannot be renewed yet");
                }
                sleep(renewal_retry(rand::random())).await;
            }
        }
    }
}
