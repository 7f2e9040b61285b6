//! Postern itself, as the demo runs it.

use std::path::Path;

use anyhow::Context;

use super::{Ground, NameServer, Started, our_programs};
use crate::stack::{Bind, Programs, Service, Stack};

const NAME: &str = "bench-target";

/// With postern-netd's socket the target is in the virtual network, under a name, else at a loopback address.
pub(super) fn start(
    ground: &Ground<'_>,
    netd: Option<&Path>,
    name_server: &mut Option<NameServer>,
) -> anyhow::Result<Started> {
    let programs = Programs::in_folder(&our_programs()?)?;
    let stack = Stack::start(&programs, ground.folder, netd, ground.interrupt)?;
    stack.publish(&[Service {
        name: NAME.to_owned(),
        kind: "tcp",
        host: ground.target.ip().to_string(),
        port: ground.target.port(),
        allow_local: true,
        bind: if netd.is_some() { Bind::Virtual } else { Bind::Loopback },
    }])?;
    let entry = *stack.connect(&[NAME])?.first().context("the target was not connected")?;
    if netd.is_some() {
        let (address, zone) = stack.name_server()?;
        *name_server = Some(NameServer { address, names: vec![format!("{NAME}.{zone}")] });
    }
    Ok((entry, stack.into_processes()))
}
