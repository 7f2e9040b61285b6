//! Peers that terminate TCP behind a TUN device, each with a device of its own in the benchmark's network.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::Context;

use super::{Ground, Kind, Started, start_own};
use crate::{
    bench::{network::ip, peers::Peer},
    process::Process,
};

/// What a device of Ethernet would have.
pub(super) const ETHERNET: u16 = 1500;
/// The largest that there is; the link is local, so it may be.
pub(super) const JUMBO: u16 = 65_535;

/// Packets that the kernel queues before the device. Peers that are slow to read then lose fewer.
const QUEUE: &str = "4000";
/// Any port: they all take every connection.
const PORT: u16 = 5000;
/// Each device has a network of the range for benchmarks (RFC 2544) to itself.
static NEXT: AtomicU8 = AtomicU8::new(1);

pub(super) fn start(kind: Kind, peer: Peer, ground: &Ground<'_>) -> anyhow::Result<Started> {
    let program = peer.program(ground.target_folder)?;
    let device = Device::make(kind.mtu())?;
    let (mtu, target) = (device.mtu.to_string(), ground.target.to_string());
    let (name, folder) = (kind.to_string(), ground.folder);
    let processes = match peer {
        Peer::NetstackSmoltcp | Peer::Gvisor => {
            let mut process = Process::start(&name, folder, &program, [&device.name, &mtu, &target])?;
            process.ready_line(ground.interrupt)?;
            vec![process]
        }
        Peer::Tun2proxy => {
            let (proxy, socks) = start_own("bench-socks", &[&target], folder, ground.interrupt)?;
            vec![start_tun2proxy(&name, &program, &device, proxy, ground)?, socks]
        }
    };
    Ok((device.entry, processes))
}

/// It says nothing when it is ready. Its limit of sessions is so low that a case would run into it. Uploads stall on an MTU
/// of 64 KiB, whatever MSS it is told to announce.
fn start_tun2proxy(
    name: &str,
    program: &Path,
    device: &Device,
    proxy: SocketAddr,
    ground: &Ground<'_>,
) -> anyhow::Result<Process> {
    let (url, mtu, mss) = (format!("socks5://{proxy}"), device.mtu.to_string(), (device.mtu - 40).to_string());
    let args = ["--tun", &device.name, "--proxy", &url, "--mtu", &mtu, "--tcp-mss", &mss];
    let rest = ["--max-sessions", "10000", "--verbosity", "warn"];
    let mut process = Process::start(name, ground.folder, program, args.into_iter().chain(rest))?;
    process.wait_until_listening(device.entry, ground.interrupt)?;
    // It sets the device up anew, for itself.
    device.raise()?;
    Ok(process)
}

struct Device {
    name: String,
    mtu: u16,
    network: u8,
    entry: SocketAddr,
}

impl Device {
    /// It lives as long as the benchmark's network.
    fn make(mtu: u16) -> anyhow::Result<Self> {
        let network = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench{network}");
        let entry = SocketAddr::from((Ipv4Addr::new(198, 18, network, 2), PORT));
        let device = Self { name, mtu, network, entry };
        ip(["tuntap", "add", "dev", &device.name, "mode", "tun"]).context("cannot make a TUN device")?;
        device.raise()?;
        Ok(device)
    }

    fn raise(&self) -> anyhow::Result<()> {
        ip(["link", "set", "dev", &self.name, "mtu", &self.mtu.to_string(), "txqueuelen", QUEUE, "up"])?;
        ip(["address", "replace", &format!("198.18.{}.1/24", self.network), "dev", &self.name])
    }
}
