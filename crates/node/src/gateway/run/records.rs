//! The session records of an earlier run, and where their chain goes on.

use std::time::{Duration, Instant};

use postern_proto::{
    id::{NodeId, StreamId},
    record::{EndReason, Event, SessionEnd},
};
use postern_tunnel::control::{CallError, ControlClient};
use tokio::time::{sleep, timeout};

use super::GatewayError;
use crate::{
    clock,
    gateway::NodeOptions,
    spool::{Spool, SpoolConfig, SpoolOpenError, Tip},
    state::StateFolder,
    upload,
};

/// How long every replica of the control plane may take to hear of a node that another one has enrolled.
const HEARD_OF: Duration = Duration::from_secs(2);

/// Opens the session records, and ends those sessions in them whose node died.
pub(crate) async fn resume_records(
    options: &NodeOptions,
    state: &StateFolder,
    client: &ControlClient,
    node: NodeId,
) -> Result<Spool, GatewayError> {
    let (spool, lost) = open_spool(options, state, client, node).await?;
    lost.into_iter().for_each(|stream| spool.note(clock::now(), node_lost(stream)));
    Ok(spool)
}

/// Opens the session records. Where there are none, the control plane says where the chain goes on; where it knows more
/// than is here, the state folder is an old copy, and what it holds is put aside.
async fn open_spool(
    options: &NodeOptions,
    state: &StateFolder,
    client: &ControlClient,
    node: NodeId,
) -> Result<(Spool, Vec<StreamId>), GatewayError> {
    let config = SpoolConfig::new(state.file("records")).with_limit(options.spool_limit());
    let here = Spool::tip_of(&config)?;
    let there = timeout(Duration::from_secs(3), stored(client)).await;
    let base = match (here, there) {
        (Some(here), Ok(Ok(there))) if there.seq > here.seq => {
            let aside = state.file(&format!("records-{}", clock::now()));
            tracing::error!(here = here.seq, there = there.seq, aside = %aside.display(),
                "the control plane has session records that are missing here; putting the old ones aside");
            std::fs::rename(&config.folder, &aside)
                .map_err(|source| SpoolOpenError::Disk { path: config.folder.clone(), source })?;
            there
        }
        (Some(here), _) => here,
        (None, Ok(Ok(there))) => there,
        (None, Ok(Err(error))) => return Err(GatewayError::Resume(error)),
        (None, Err(_)) => {
            return Err(GatewayError::Resume(CallError::Unreachable {
                url: client.url().to_string(),
                reason: "no answer within 3 s".into(),
            }));
        }
    };
    Ok(Spool::open(config, node, base)?)
}

/// Which session records the control plane has. A replica that did not enrol this node itself hears of it a moment later.
async fn stored(client: &ControlClient) -> Result<Tip, CallError> {
    let deadline = Instant::now() + HEARD_OF;
    loop {
        match upload::stored(client).await {
            Err(error) if error.problem().is_some_and(|problem| problem.status == 401) && Instant::now() < deadline => {
                sleep(HEARD_OF / 10).await;
            }
            answer => return answer,
        }
    }
}

fn node_lost(stream: StreamId) -> Event {
    let detail = Some("the node stopped without writing the end".to_owned());
    Event::End(SessionEnd { stream, dialled: None, bytes_up: 0, bytes_down: 0, reason: EndReason::NodeLost, detail })
}
