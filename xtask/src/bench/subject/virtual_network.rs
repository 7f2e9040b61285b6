//! Our virtual network: end to end, and its stack alone. Each in a network of its own, since postern-netd gives a user
//! one device.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::Context;

use super::{Ground, NameServer, Started, our_programs, postern};
use crate::{bench::dns, process::Process};

const DNS_PORT: u16 = 53;

/// posternd, gateway and control plane with the target at an address of the virtual network.
pub(super) fn start_whole(ground: &Ground<'_>, name_server: &mut Option<NameServer>) -> anyhow::Result<Started> {
    let (netd, socket) = start_netd(ground)?;
    let (entry, mut processes) = postern::start(ground, Some(&socket), name_server)?;
    processes.push(netd);
    Ok((entry, processes))
}

/// The stack with flows that go straight to the target. `args`: what else it is told, such as how many queues; one for each
/// core when nothing is.
pub(super) fn start_stack(
    ground: &Ground<'_>,
    args: &[&str],
    name_server: &mut Option<NameServer>,
) -> anyhow::Result<Started> {
    let (netd, socket) = start_netd(ground)?;
    let program = our_programs()?.join("examples/stack_alone");
    let mut process = Process::start_with("stack_alone", ground.folder, |command| {
        command.arg(program).arg("--netd").arg(&socket).arg("--folder").arg(ground.folder);
        command.args(["--target", &ground.target.to_string(), "--names", &dns::NAMES.to_string()]);
        command.args(args);
    })?;
    let ready = process.ready_line(ground.interrupt)?;
    let word = |name: &str| ready.get(name).and_then(|word| word.as_str()).context("its ready line lacks an address");
    let entry: SocketAddr = word("listen")?.parse()?;
    let resolver: IpAddr = word("resolver")?.parse()?;
    *name_server = Some(NameServer { address: (resolver, DNS_PORT).into(), names: dns::names() });
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
