//! Postern itself, as the demo runs it.

use std::{net::SocketAddr, path::Path};

use anyhow::Context;

use super::{Ground, NameServer, Started, our_programs};
use crate::stack::{Bind, Netd, Programs, Service, Stack};

const NAME: &str = "bench-target";

/// The target behind a relay, and where the gateway listens.
pub(super) fn start_relayed(ground: &Ground<'_>) -> anyhow::Result<(Started, SocketAddr)> {
    let mut stack = begin(ground, None)?;
    stack.put_behind_relay(NAME)?;
    let (entry, door) = (connect(&stack)?, stack.door);
    Ok(((entry, stack.into_processes()), door))
}

/// The target behind a worker, and where that listens.
pub(super) fn start_at_worker(ground: &Ground<'_>) -> anyhow::Result<(Started, SocketAddr)> {
    let mut stack = begin(ground, None)?;
    stack.put_behind_worker(NAME)?;
    let (entry, door) = (connect(&stack)?, stack.door);
    Ok(((entry, stack.into_processes()), door))
}

/// In loopback mode, and where the gateway listens.
pub(super) fn start_with_door(ground: &Ground<'_>) -> anyhow::Result<(Started, SocketAddr)> {
    let stack = begin(ground, None)?;
    let (entry, door) = (connect(&stack)?, stack.door);
    Ok(((entry, stack.into_processes()), door))
}

/// With postern-netd's socket the target is in the virtual network, under a name, else at a loopback address.
pub(super) fn start(
    ground: &Ground<'_>,
    netd: Option<&Path>,
    name_server: &mut Option<NameServer>,
) -> anyhow::Result<Started> {
    let stack = begin(ground, netd)?;
    let entry = connect(&stack)?;
    if netd.is_some() {
        let (address, zone) = stack.name_server()?;
        *name_server = Some(NameServer { address, names: vec![format!("{NAME}.{zone}")] });
    }
    Ok((entry, stack.into_processes()))
}

fn begin(ground: &Ground<'_>, netd: Option<&Path>) -> anyhow::Result<Stack> {
    let programs = Programs::in_folder(&our_programs()?)?;
    let helper = netd.map_or(Netd::None, Netd::At);
    let stack = Stack::start(&programs, ground.folder, helper, ground.interrupt)?;
    stack.publish(&[Service {
        name: NAME.to_owned(),
        kind: "tcp",
        host: ground.target.ip().to_string(),
        port: ground.target.port(),
        allow_local: true,
        bind: if netd.is_some() { Bind::Virtual } else { Bind::Loopback },
    }])?;
    Ok(stack)
}

fn connect(stack: &Stack) -> anyhow::Result<SocketAddr> {
    stack.connect(&[NAME])?.first().copied().context("the target was not connected")
}
