//! `/api/v1/sync`: a WebSocket, or long polling, for devices and nodes.

mod poll;
mod socket;
mod wire;

use axum::{
    extract::State,
    http::{header, request::Parts},
    response::Response,
};
use postern_proto::{
    lease::Revocation,
    problem::Problem,
    sync::{ClientFrame, Hello, Peer, ServerFrame, VERSION},
    time::UnixMillis,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, Refusal,
    machine::{CallingDevice, CallingNode, certificate, none},
};
use crate::{
    catalogue::{Leaving, Node},
    gateway::check_address,
    state::AppState,
    store::{Actor, StoreError},
    sync::{Exchange, REVOCATIONS_PER_FRAME, judge},
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(follow)).routes(routes!(poll::send))
}

#[utoipa::path(get, path = "/api/v1/sync", tag = "machines",
    responses((status = 101, description = "A WebSocket"), (status = 200, body = Object, description = "Long polling")))]
/// Follow the control plane, with the certificate of a device or a gateway
async fn follow(State(state): State<AppState>, parts: Parts) -> Answer<Response> {
    let caller = Follower::of(&state, &parts).await?;
    let mut parts = parts;
    if !parts.headers.contains_key(header::UPGRADE) {
        return poll::answer(state, caller, parts).await;
    }
    let (answer, coming) = wire::accept(&mut parts).map_err(|error| {
        Refusal::from(Problem::new(400, "no_websocket", "This is no WebSocket").with_detail(error.to_string()))
    })?;
    tokio::spawn(async move {
        // Once it stands, a conversation lasts for hours and is mostly silent: what the beginning needs has a place of its own,
        // which is given back.
        if let Some(conversation) = Box::pin(socket::greet(state, caller, parts, coming)).await {
            conversation.run().await;
        }
    });
    Ok(answer)
}

/// A peer that may follow.
#[derive(Clone, Debug)]
struct Follower {
    peer: Peer,
    actor: Actor,
    /// When its certificate or its login ends.
    until: UnixMillis,
}

/// A relay parks links at two or three gateways.
const MAX_PARKED: usize = 16;

impl Follower {
    async fn of(state: &AppState, parts: &Parts) -> Answer<Self> {
        let certificate = certificate(parts).ok_or_else(|| none("a device or a gateway"))?;
        let peer = certificate.peer;
        match peer {
            Peer::Device { .. } => {
                let device = CallingDevice::of(state, certificate, parts).await?;
                let until = device.standing.login.expires_at.min(device.certificate.not_after);
                Ok(Self { peer, actor: device.actor, until })
            }
            Peer::Node { .. } => {
                let node = CallingNode::of(state, certificate, parts)?;
                Ok(Self { peer, actor: node.actor, until: node.certificate.not_after })
            }
        }
    }

    /// Notes that a device is here; `hello` names its program.
    fn was_seen(&self, state: &AppState, hello: Option<&Hello>) {
        let Peer::Device { device, .. } = self.peer else { return };
        let agent = hello.map(|hello| hello.agent.chars().filter(|c| !c.is_control()).take(200).collect());
        state.journal.saw(device, Actor { agent, ..self.actor.clone() }, state.clock.now());
    }

    /// What a node may have missed; nothing for a device, which is told by its scopes.
    async fn backlog(&self, exchange: &Exchange) -> Result<Vec<Revocation>, StoreError> {
        match self.peer {
            Peer::Node { .. } => exchange.backlog().await,
            Peer::Device { .. } => Ok(Vec::new()),
        }
    }

    /// What a frame of this peer is answered with.
    async fn respond(&self, state: &AppState, frame: ClientFrame) -> Result<Vec<ServerFrame>, FrameError> {
        let node = match self.peer {
            Peer::Node { node } => Some(node),
            Peer::Device { .. } => None,
        };
        match (frame, node) {
            (ClientFrame::Ping { n }, _) => Ok(vec![ServerFrame::Pong { n, now: state.clock.now() }]),
            (ClientFrame::Live { subjects }, Some(_)) => {
                let cut = judge(&state.store, &subjects).await?;
                let chunks = cut.chunks(REVOCATIONS_PER_FRAME);
                let frames = chunks.map(|chunk| ServerFrame::Revoke { revocations: chunk.to_vec() });
                Ok(frames.chain([ServerFrame::Checked]).collect())
            }
            (ClientFrame::Health { reports }, Some(node)) => {
                state.exchange.report_health(node, reports);
                Ok(Vec::new())
            }
            (ClientFrame::Parked { mut at }, Some(node)) => {
                at.truncate(MAX_PARKED);
                state.exchange.set_parked(node, at);
                Ok(Vec::new())
            }
            (ClientFrame::Load { load }, Some(node)) => {
                state.exchange.set_load(node, load);
                Ok(Vec::new())
            }
            (ClientFrame::Presence { advertise, draining, drain_ends }, Some(node)) => {
                let ends = drain_ends.filter(|_| draining);
                state.exchange.set_leaving(node, Leaving { draining, ends });
                if let Some(advertise) = advertise {
                    self.advertise(state, node, &advertise).await?;
                }
                Ok(Vec::new())
            }
            (ClientFrame::Hello(_), _) => Err(FrameError::SecondHello),
            (_, None) => Err(FrameError::NotANode),
        }
    }

    /// Notes where a node says that it is dialled.
    async fn advertise(
        &self,
        state: &AppState,
        id: postern_proto::id::NodeId,
        address: &str,
    ) -> Result<(), FrameError> {
        let address = check_address(address).map_err(|_| FrameError::BadAddress)?;
        let known = |node: &Node| node.advertise.as_deref() == Some(&address);
        if state.store.catalogue().nodes.get(&id).is_none_or(|node| known(node)) {
            return Ok(());
        }
        let mut change = state.store.change(self.actor.clone()).await?;
        let Some(node) = change.catalogue().nodes.get(&id).cloned() else { return Ok(()) };
        change.put(Node { advertise: Some(address), ..Node::clone(&node) }).await?;
        change.commit().await?;
        Ok(())
    }
}

/// Why a peer's frame ends the connection.
#[derive(Debug, thiserror::Error)]
enum FrameError {
    #[error("the first frame must be a hello of version {VERSION}")]
    NoHello,
    #[error("the connection has greeted already")]
    SecondHello,
    #[error("this control plane speaks version {VERSION} of the sync frames, the peer version {theirs}: update it")]
    OtherVersion { theirs: u32 },
    #[error("the frame is for gateways only")]
    NotANode,
    #[error("the address is not of the form host:port")]
    BadAddress,
    #[error("the frame is not readable")]
    Unreadable,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FrameError {
    const fn code(&self) -> &'static str {
        match self {
            Self::NoHello | Self::SecondHello | Self::NotANode | Self::Unreadable => "bad_frame",
            Self::OtherVersion { .. } => "other_version",
            Self::BadAddress => "bad_address",
            Self::Store(_) => "internal",
        }
    }
}

fn check_version(hello: &Hello) -> Result<(), FrameError> {
    if hello.version == VERSION { Ok(()) } else { Err(FrameError::OtherVersion { theirs: hello.version }) }
}
