//! A user's service in small: asks netd for a virtual network and answers in it, to its own user alone, as posternd does.
//!
//! TCP gets "hello from LABEL" once it has sent something (port 81 is refused, port 82 answers late), UDP the same as a
//! datagram, echo requests an echo. Each new flow is a line on standard output: who sent it by the kernel's word, and
//! whether it was answered.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::json;
use tun_driver::{
    frames::{FrameQueue, is_gone},
    interface::{Configured, InterfaceConfig, Queue, Zone},
    netd::Client,
    socket_owner::{Peer, SocketOwners, Transport, own_uid},
};

use super::packet::{ACK, FIN, ICMP, ICMPV6, Packet, RST, SYN, Segment, TCP, UDP, ports};

/// Refused, whoever asks.
pub const REFUSED_PORT: u16 = 81;
/// The SYN is answered once its sender has given up.
pub const LATE_PORT: u16 = 82;

/// A guest of netd.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    #[arg(long)]
    pub socket: PathBuf,
    #[arg(long, default_value = "100.72.0.0/16")]
    pub subnet: Ipv4Net,
    #[arg(long)]
    pub ipv6: Option<Ipv6Net>,
    #[arg(long)]
    pub zone: Vec<Zone>,
    #[arg(long, default_value_t = 2)]
    pub queues: u8,
    /// What it answers is "hello from LABEL".
    #[arg(long, default_value = "guest")]
    pub label: String,
    /// Answers everybody: shows what the kernel alone keeps out.
    #[arg(long)]
    pub anybody: bool,
    /// Makes the device outlive its holder, as a hostile one would.
    #[arg(long)]
    pub persist: bool,
}

/// Asks, says so with a ready line, and answers until it is killed.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let wish = InterfaceConfig {
        subnet: options.subnet,
        ipv6: options.ipv6,
        zones: options.zone.clone(),
        kept_out: Vec::new(),
        queues: options.queues,
        mtu: 1500,
    };
    let mut client = Client::connect(&options.socket).await?;
    let options = Arc::new(options);
    loop {
        let Configured { interface, queues } = client.configure(&wish).await?;
        anyhow::ensure!(queues.len() == usize::from(options.queues), "got {} queues", queues.len());
        if options.persist {
            make_persistent(queues.first().context("no queue")?)?;
        }
        let answerer = Answerer::new(Arc::clone(&options), interface.index)?;
        let running: Vec<_> =
            queues.into_iter().map(|queue| tokio::spawn(Arc::clone(&answerer).serve(queue))).collect();
        print(&json!({"ready": true, "interface": interface}));
        for queue in running {
            tokio::select! {
                ended = queue => ended??,
                () = client.closed() => anyhow::bail!("netd is gone"),
            }
        }
        print(&json!({"gone": interface.name}));
    }
}

#[expect(clippy::print_stdout, reason = "the test reads it")]
fn print(line: &serde_json::Value) {
    println!("{line}");
}

/// `TUNSETPERSIST`, which needs no privilege.
fn make_persistent(queue: &Queue) -> anyhow::Result<()> {
    let script = "import fcntl; fcntl.ioctl(0, 0x400454cb, 1)";
    let mut python = std::process::Command::new(super::bed::PYTHON);
    let status = python.args(["-c", script]).stdin(Stdio::from(queue.try_clone()?)).status()?;
    anyhow::ensure!(status.success(), "cannot make the device persistent");
    Ok(())
}

struct Answerer {
    options: Arc<Options>,
    device: u32,
    owners: SocketOwners,
}

impl Answerer {
    fn new(options: Arc<Options>, device: u32) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { options, device, owners: SocketOwners::open()? }))
    }

    /// Until the device is gone.
    async fn serve(self: Arc<Self>, queue: Queue) -> anyhow::Result<()> {
        let queue = FrameQueue::open(queue)?;
        let mut buffer = vec![0; 70_000];
        // Our next sequence number of each flow.
        let mut flows: HashMap<(SocketAddr, SocketAddr), u32> = HashMap::new();
        loop {
            let count = match std::future::poll_fn(|cx| queue.poll_read(cx, &mut buffer)).await {
                Err(error) if is_gone(&error) => return Ok(()),
                other => other?,
            };
            let Some(packet) = buffer.get(10..count).and_then(Packet::parse) else { continue };
            for frame in self.handle(&packet, &mut flows).await {
                // The device may have gone just now: the next read says so.
                let _ = std::future::poll_fn(|cx| queue.poll_write(cx, &frame)).await;
            }
        }
    }

    async fn handle(&self, packet: &Packet<'_>, flows: &mut HashMap<(SocketAddr, SocketAddr), u32>) -> Vec<Vec<u8>> {
        match packet.protocol {
            TCP => match Segment::parse(packet) {
                Some(segment) => self.handle_segment(packet, &segment, flows).await,
                None => Vec::new(),
            },
            UDP => self.handle_datagram(packet).into_iter().collect(),
            ICMP | ICMPV6 => self.handle_echo(packet).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    async fn handle_segment(
        &self,
        packet: &Packet<'_>,
        segment: &Segment<'_>,
        flows: &mut HashMap<(SocketAddr, SocketAddr), u32>,
    ) -> Vec<Vec<u8>> {
        let key = (segment.from, segment.to);
        if segment.flags & RST != 0 {
            print(&json!({"reset": segment.from.to_string()}));
            flows.remove(&key);
            return Vec::new();
        }
        if segment.flags & SYN != 0 {
            let sender = self.owners.sender(Transport::Tcp, segment.from, segment.to, self.device);
            if !self.admits("tcp", sender, segment.from, segment.to) || segment.to.port() == REFUSED_PORT {
                return vec![segment.answer(packet, 0, RST | ACK, &[])];
            }
            if segment.to.port() == LATE_PORT {
                let looked_up = || self.owners.sender(Transport::Tcp, segment.from, segment.to, self.device);
                while matches!(looked_up(), Peer::Known(_)) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            flows.insert(key, 1001);
            return vec![segment.answer(packet, 1000, SYN | ACK, &[])];
        }
        let Some(next) = flows.get_mut(&key) else { return Vec::new() };
        let mut answers = Vec::new();
        if !segment.data.is_empty() {
            let hello = format!("hello from {}", self.options.label);
            answers.push(segment.answer(packet, *next, ACK, hello.as_bytes()));
            *next += hello.len() as u32;
        }
        if segment.flags & FIN != 0 {
            answers.push(segment.answer(packet, *next, FIN | ACK, &[]));
        }
        answers
    }

    fn handle_datagram(&self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        let (from, to) = ports(packet)?;
        let sender = self.owners.sender(Transport::Udp, from, to, self.device);
        // Names are everybody's, as the system's resolver asks on the user's behalf.
        if to.port() != 53 && !self.admits("udp", sender, from, to) {
            return None;
        }
        let hello = format!("hello from {}", self.options.label);
        let mut bytes = Vec::new();
        bytes.extend(to.port().to_be_bytes());
        bytes.extend(from.port().to_be_bytes());
        bytes.extend((8 + hello.len() as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(hello.as_bytes());
        Some(packet.reply(bytes, 6))
    }

    fn handle_echo(&self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        let (request, reply) = if packet.protocol == ICMP { (8, 0) } else { (128, 129) };
        let mut bytes = packet.payload.to_vec();
        if *bytes.first()? != request {
            return None;
        }
        let identifier = u16::from_be_bytes(bytes.get(4..6)?.try_into().ok()?);
        let (from, to) = (SocketAddr::new(packet.source, identifier), SocketAddr::new(packet.destination, 0));
        if !self.admits("echo", self.owners.sender(Transport::Echo, from, to, self.device), from, to) {
            return None;
        }
        *bytes.first_mut()? = reply;
        Some(packet.reply(bytes, 2))
    }

    fn admits(&self, kind: &str, sender: Peer, from: SocketAddr, to: SocketAddr) -> bool {
        let uid = match sender {
            Peer::Known(owner) => Some(owner.uid),
            Peer::Unknown => None,
        };
        let answered = self.options.anybody || uid == Some(own_uid());
        let (from, to) = (from.to_string(), to.to_string());
        print(&json!({"kind": kind, "from": from, "to": to, "uid": uid, "answered": answered}));
        answered
    }
}
