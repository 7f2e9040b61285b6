//! Our virtual network: end to end, and its stack alone. Each in a network of its own, since postern-netd gives a user
//! one device.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;

use super::{Ground, Started, our_programs, postern};
use crate::process::Process;

/// posternd, gateway and control plane with the target at an address of the virtual network.
pub(super) fn start_whole(ground: &Ground<'_>) -> anyhow::Result<Started> {
    let (netd, socket) = start_netd(ground)?;
    let (entry, mut processes) = postern::start(ground, Some(&socket))?;
    processes.push(netd);
    Ok((entry, processes))
}

/// The stack with flows that go straight to the target. `queues`: one for each core when none are given.
pub(super) fn start_stack(ground: &Ground<'_>, queues: Option<u8>) -> anyhow::Result<Started> {
    let (netd, socket) = start_netd(ground)?;
    let program = our_programs()?.join("examples/stack_alone");
    let mut process = Process::start_with("stack_alone", ground.folder, |command| {
        command.arg(program).arg("--netd").arg(&socket).arg("--folder").arg(ground.folder);
        command.args(["--target", &ground.target.to_string()]);
        command.args(queues.map(|queues| format!("--queues={queues}")));
    })?;
    let ready = process.ready_line(ground.interrupt)?;
    let listen = ready.get("listen").and_then(|listen| listen.as_str()).context("its ready line names no address")?;
    let entry: SocketAddr = listen.parse()?;
    Ok((entry, vec![process, netd]))
}

/// Without a hand in the system's resolver: it is the machine's, and names are asked for at the resolver's own address.
fn start_netd(ground: &Ground<'_>) -> anyhow::Result<(Process, PathBuf)> {
    let folder = ground.folder.join("netd");
    std::fs::create_dir(&folder).context("cannot make netd's folder")?;
    let socket = folder.join("netd.sock");
    let program = our_programs()?.join("postern-netd");
    let mut process = Process::start_with("postern-netd", ground.folder, |command| {
        command.arg(program).arg("--socket").arg(&socket).arg("--state").arg(&folder).arg("--no-dns");
    })?;
    process.ready_line(ground.interrupt)?;
    Ok((process, socket))
}
