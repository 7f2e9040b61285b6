//! From the options to a running relay and back to nothing.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use postern_proto::{api::NodeKind, frame::ResetCode, id::NodeId};
use postern_tunnel::control::ControlClient;
use serde::Serialize;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    RelayOptions,
    moorings::{self, Shared},
};
use crate::{
    gateway::{
        GatewayError,
        run::{self as common, Place, Running},
    },
    monitor::{Monitor, MonitorPlaces},
    state::StateFolder,
};

/// Passages that have come and are not served yet.
const INCOMING: usize = 64;

/// The line on stdout when the relay is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RelayReady {
    pub ready: bool,
    pub node: NodeId,
    /// Where liveness and metrics are served, when they are.
    #[serde(flatten)]
    pub monitor: MonitorPlaces,
}

/// Runs until `stop` is cancelled and the drain is over, or until `stop_now`. `ready` is called once, when the relay knows
/// what it may dial.
pub async fn run(
    options: RelayOptions,
    stop: CancellationToken,
    stop_now: CancellationToken,
    ready: impl FnOnce(&RelayReady) + Send,
) -> Result<(), GatewayError> {
    let options = options.node;
    let state = Arc::new(StateFolder::open(&options.state)?);
    let client = Arc::new(ControlClient::new(options.control()?, options.trust()?));
    let monitor = Monitor::start(options.liveness, options.metrics)?;
    let proof = common::Proof::Token(options.enrol_token()?);
    let identifying = common::identify(&state, &client, (NodeKind::Relay, proof), None);
    let Some(identity) = stop.run_until_cancelled(identifying).await else { return Ok(()) };
    let identity = identity?;
    client.set_identity(Some(identity.client_identity()?));
    let spool = common::resume_records(&options, &state, &client, identity.node).await?;
    let parked_tls = identity.client_tls()?.for_parking();
    let running = common::start(&options, &state, &client, &identity, spool.clone(), Place::Relay, (&monitor, &stop))?;
    let Running { server, live, drain, validity, mut complete, patience, neighbours, parked, .. } = running;
    let Running { mut tasks, background, uploading, .. } = running;
    let _ = timeout(patience, stop.run_until_cancelled(complete.wait_for(|complete| *complete))).await;

    let (incoming, came) = mpsc::channel(INCOMING);
    let (node, tls) = (identity.node, RwLock::new(parked_tls));
    let shared = Arc::new(Shared { node, tls, incoming, live: Arc::clone(&live), drain });
    let renewed = {
        let (server, shared) = (Arc::clone(&server), Arc::clone(&shared));
        move |identity: &crate::identity::NodeIdentity| {
            server.set_tls(identity.server_tls()?);
            shared.set_tls(identity.client_tls()?.for_parking());
            validity.renew(identity);
            Ok(())
        }
    };
    let renewals = common::renew(identity.clone(), Arc::clone(&state), Arc::clone(&client), renewed);
    tasks.spawn(common::until(background.clone(), renewals));
    // Its links outlive the control plane's word that the relay stops: streams run on them.
    let mooring = CancellationToken::new();
    tasks.spawn(common::until(mooring.clone(), moorings::run(shared, neighbours, parked)));

    tracing::info!(%node, name = ?identity.name, "relay is ready");
    ready(&RelayReady { ready: true, node, monitor: monitor.places() });
    let serving = server.serve_parked(came, stop, options.drain());
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        () = stop_now.cancelled() => {
            let cut = live.cut_all(ResetCode::Draining, "the relay was stopped at once");
            tracing::warn!(cut, "stopping at once");
            let _ = timeout(Duration::from_secs(5), serving).await;
        }
    }
    mooring.cancel();
    common::finish(spool, tasks, &background, &uploading).await;
    Ok(())
}
