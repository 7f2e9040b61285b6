//! From the options to a running worker.

use postern_proto::api::NodeKind;
use postern_tunnel::node::Carrier;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    WorkerOptions,
    certificate::{CertificateError, CertificateFiles},
    options::{BadWorkerOption, Outside},
};
use crate::gateway::{
    GatewayError, Ready,
    run::{self as common, Front, Proof, until},
};

/// Why a worker does not run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Option(#[from] BadWorkerOption),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Node(#[from] GatewayError),
}

/// Runs until `stop` is cancelled and the drain is over, or until `stop_now`. `ready` is called once, when clients may
/// come.
pub async fn run(
    options: WorkerOptions,
    stop: CancellationToken,
    stop_now: CancellationToken,
    ready: impl FnOnce(&Ready) + Send,
) -> Result<(), WorkerError> {
    let outside = options.outside()?;
    let key_pair = options.key_pair()?;
    let ended = CancellationToken::new();
    let carrier = match outside {
        Outside::Nothing => Some(Carrier::Direct),
        Outside::Plain => Some(Carrier::PlainWebSocket),
        Outside::Own => None,
        Outside::Files { certificate, key } => {
            let files = CertificateFiles { certificate, key };
            let content = files.read()?;
            let (sender, receiver) = watch::channel(files.tls(&content)?);
            tokio::spawn(until(ended.clone(), files.follow(content, sender)));
            Some(Carrier::WebSocket(receiver))
        }
    };
    let front = Front {
        kind: NodeKind::Worker,
        listen: options.bind_address,
        advertise: None,
        carrier,
        balancers: options.arrival.balancers(),
        proof: Proof::KeyPair(key_pair),
        bridge: options.bridge,
    };
    let ran = common::serve(&options.node, front, stop, stop_now, ready).await;
    ended.cancel();
    Ok(ran?)
}
