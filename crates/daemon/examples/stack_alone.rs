//! The virtual network without the tunnel, for `cargo xtask bench vnm`: posternd's own threads and stack, whose flows go
//! to a plain TCP address instead of through a gateway. What is measured so is what the stack costs.
//!
//! `stack_alone --netd SOCKET --target ADDR [--queues N] [--names N]` prints
//! `{"ready":true,"listen":"IP:PORT","resolver":"IP"}`. It answers for `host-0.bench` and so many more. With `--bounce` it is
//! no stack at all: see [`bounce`].

#[path = "stack_alone/bounce.rs"]
mod bounce;

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    thread,
};

use anyhow::Context as _;
use clap::Parser;
use postern_daemon::{
    carriage::Destination,
    engine::{NetworkPlan, Place, Places, Standing},
    store::Store,
    vnm::{
        Attendant, FlowEnd, HostBook, MTU, Map, Meaning, Names, Received, Seat, Shard, ShardParts, TunGate, queues,
        stack_config,
    },
};
use postern_local_api::paths::Paths;
use postern_proto::{
    bind::Cidr,
    id::{OrgId, ResourceId},
    port::PortSet,
};
use postern_tunnel::local_end::LocalEnd;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tun_driver::{
    interface::{Interface, InterfaceConfig, Queue},
    netd::Client,
};
use ulid::Ulid;

use self::bounce::Bounce;

const SUBNET: &str = "100.80.0.0/16";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(100, 80, 1, 1);
const PORT: u16 = 5000;
const ZONE: &str = "bench";

#[derive(Parser)]
struct Options {
    /// Where postern-netd listens
    #[arg(long)]
    netd: PathBuf,
    /// Where every connection goes
    #[arg(long)]
    target: SocketAddr,
    /// Queues of the device, each with a thread
    #[arg(long)]
    queues: Option<u8>,
    /// Names that the resolver knows
    #[arg(long, default_value_t = 0)]
    names: u16,
    /// Only turn packets round; the target is then the port of `--target` at the device's own address
    #[arg(long)]
    bounce: bool,
    /// An empty folder
    #[arg(long)]
    folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut netd = Client::connect(&options.netd).await?;
        let wish = InterfaceConfig {
            subnet: SUBNET.parse()?,
            ipv6: None,
            zones: Vec::new(),
            kept_out: Vec::new(),
            queues: options.queues.unwrap_or_else(queues),
            mtu: MTU,
        };
        let configured = netd.configure(&wish).await?;
        let map = Arc::new(map(&options, &configured.interface)?);
        let seats = Seat::all(configured.queues.len());
        for (queue, seat) in configured.queues.into_iter().zip(seats) {
            if options.bounce {
                let bounce = bounce_of(&configured.interface, options.target);
                thread::spawn(move || bounce.run(queue));
                continue;
            }
            let (map, interface, target) = (Arc::clone(&map), configured.interface.clone(), options.target);
            thread::spawn(move || {
                if let Err(error) = run(queue, seat, &interface, map, target) {
                    eprintln!("{error:#}");
                }
            });
        }
        let (listen, resolver) = (SocketAddr::from((ADDRESS, PORT)), configured.interface.addresses.resolver);
        println!("{}", serde_json::json!({ "ready": true, "listen": listen, "resolver": resolver }));
        netd.closed().await;
        anyhow::bail!("postern-netd has ended")
    })
}

fn bounce_of(interface: &Interface, target: SocketAddr) -> Bounce {
    Bounce {
        entry: SocketAddrV4::new(ADDRESS, PORT),
        stand_in: Ipv4Addr::from_bits(ADDRESS.to_bits() + 1),
        target: SocketAddrV4::new(interface.addresses.device, target.port()),
        resolver: interface.addresses.resolver,
    }
}

/// One address, and others that only have names.
fn map(options: &Options, interface: &Interface) -> anyhow::Result<Map> {
    let subnet: Cidr = SUBNET.parse()?;
    let resource = ResourceId::from_ulid(Ulid::from(1_u128));
    let place = |address: Ipv4Addr, alias| Place {
        resource,
        address,
        port: PORT,
        ports: PortSet::default(),
        alias,
        standing: Standing::Open,
    };
    let named = |host: u16| {
        let alias = format!("host-{host}.{ZONE}").parse()?;
        anyhow::Ok(place(Ipv4Addr::from_bits(ADDRESS.to_bits() + 1 + u32::from(host)), Some(alias)))
    };
    let named: Vec<Place> = (0..options.names).map(named).collect::<anyhow::Result<_>>()?;
    let all = std::iter::once(place(ADDRESS, None)).chain(named).collect();
    let plan = NetworkPlan { subnet, ipv6: None, zones: vec![ZONE.parse()?], kept_out: Vec::new() };
    let places = Places { interface: interface.clone(), plan, moved_from: None, locked: false, places: all };
    let store = Store::new(&Paths::under(&options.folder)?);
    let hosts = HostBook::open(&store, OrgId::from_ulid(Ulid::from(1_u128)), subnet, &mut Vec::new());
    let destinations = HashMap::from([(resource, Arc::new(Destination::new(resource, Vec::new())))]);
    Map::new(Arc::new(hosts), Arc::new(places), destinations).context("cannot make the directory")
}

/// What a thread of posternd does.
fn run(queue: Queue, seat: Seat, interface: &Interface, map: Arc<Map>, target: SocketAddr) -> anyhow::Result<()> {
    Shard::run(seat, queue, &CancellationToken::new(), |seat| {
        Ok(Shard::new(ShardParts {
            seat,
            config: stack_config(seat),
            seed: 1,
            published: Arc::clone(map.published()),
            gate: TunGate::open(&[], interface)?,
            names: Names::new(map),
            attendant: Box::new(Direct { target }),
        }))
    })
}

/// Takes connections to the target.
struct Direct {
    target: SocketAddr,
}

impl Attendant for Direct {
    fn attend(&self, _: &Rc<Shard>, flow: FlowEnd, _: Meaning) {
        let target = self.target;
        tokio::task::spawn_local(async move {
            // A broken stream is the business of its two ends.
            let _ = carry(flow, target).await;
        });
    }

    fn turned_away(&self, _: &Meaning, destination: SocketAddr, uid: Option<u32>) {
        eprintln!("turned away: {destination} {uid:?}");
    }
}

async fn carry(flow: FlowEnd, target: SocketAddr) -> io::Result<()> {
    let mut far = TcpStream::connect(target).await?;
    // As a gateway treats the targets it dials.
    far.arm()?;
    flow.opened()?;
    let (mut up, mut down) = (false, false);
    poll_fn(|cx| {
        if !up && poll_up(cx, &flow, &mut far)?.is_ready() {
            up = true;
            socket2::SockRef::from(&far).shutdown(std::net::Shutdown::Write)?;
        }
        if !down && poll_down(cx, &flow, &mut far)?.is_ready() {
            down = true;
            flow.end_writing();
        }
        if up && down { Poll::Ready(Ok::<(), io::Error>(())) } else { Poll::Pending }
    })
    .await?;
    flow.close();
    LocalEnd::close(far);
    Ok(())
}

/// Until the program has ended its direction. Bytes go from the flow's ring to the socket without a stop.
fn poll_up(cx: &mut Context<'_>, flow: &FlowEnd, far: &mut TcpStream) -> Poll<io::Result<()>> {
    let mut far_cx = Context::from_waker(cx.waker());
    loop {
        let mut full = false;
        let received = ready!(flow.poll_recv(cx, |data| {
            let written = Pin::new(&mut *far).poll_write(&mut far_cx, data);
            full = written.is_pending();
            if let Poll::Ready(written) = written { written } else { Ok(0) }
        }));
        match received {
            Received::Data(moved) => moved?,
            Received::End => return Poll::Ready(Ok(())),
            Received::Broken => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        };
        if full {
            return Poll::Pending;
        }
    }
}

/// Until the target has ended its direction.
fn poll_down(cx: &mut Context<'_>, flow: &FlowEnd, far: &mut TcpStream) -> Poll<io::Result<()>> {
    let mut far_cx = Context::from_waker(cx.waker());
    loop {
        let mut empty = false;
        let moved = ready!(flow.poll_send(cx, |space| {
            let mut space = ReadBuf::new(space);
            let read = Pin::new(&mut *far).poll_read(&mut far_cx, &mut space);
            empty = read.is_pending();
            if let Poll::Ready(Err(error)) = read { Err(error) } else { Ok(space.filled().len()) }
        }))??;
        if empty {
            return Poll::Pending;
        }
        if moved == 0 {
            return Poll::Ready(Ok(()));
        }
    }
}
