//! Several networks joined by cables that can be cut: what a client, a demilitarised zone and private networks are to each
//! other. Nothing is forwarded between them.
//!
//! ```text
//! need_namespace!();
//! site::run(3, async |site| {
//!     site.join(1, 2).await?;                       // besides the cable from each to the DMZ
//!     let stack = Stack::builder().host(DMZ).user_launcher(&site.launcher(1)).start().await?;
//!     …
//!     site.cut(0, 2).await?;                        // packets vanish, and nobody is told
//! })
//! ```
//!
//! The test itself and every program that it starts without a launcher are in the DMZ.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd as _,
    sync::Arc,
};

use anyhow::Context as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

use crate::{
    namespace::Namespace,
    target::{Behaviour, Target},
};

/// An address of the DMZ that every network has a route to.
pub const DMZ: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// Nobody's: what is sent there is taken by nobody.
const NOBODY: &str = "02:00:00:00:00:99";

/// The networks of one test. Number 0 is the DMZ.
pub struct Site {
    networks: Vec<Arc<Namespace>>,
}

/// Runs a test in the DMZ of `count` other networks, each with a cable to it: 10.77.N.1 there, 10.77.N.2 at network N.
pub fn run<F>(count: usize, test: impl FnOnce(Site) -> F + Send + 'static) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let outer = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let site = outer.block_on(Site::new(count))?;
    let network = Arc::new(site.network(0).network()?);
    let inner = std::thread::Builder::new().name(crate::skip::test_name()).spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        let enter = move || {
            // A thread that cannot enter would test the machine's own network.
            if move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
                std::process::abort();
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start(enter)
            .enable_all()
            .build()?;
        runtime.block_on(test(site))
    })?;
    inner.join().map_err(|panic| std::panic::resume_unwind(panic))?
}

impl Site {
    async fn new(count: usize) -> anyhow::Result<Self> {
        let mut networks = Vec::new();
        for _ in 0..=count {
            networks.push(Arc::new(Namespace::new().await?));
        }
        let site = Self { networks };
        for network in &site.networks {
            // A new network takes this over from the machine's own.
            network.set("net/ipv4/ip_forward", "0").await?;
        }
        site.network(0).ip(&format!("addr add {DMZ}/32 dev lo")).await?;
        for number in 1..=count {
            site.join(0, number).await?;
            site.network(number).ip(&format!("route add default via {}", address(0, number))).await?;
        }
        Ok(site)
    }

    /// A network by its number.
    #[must_use]
    pub fn network(&self, number: usize) -> &Arc<Namespace> {
        // Tests name networks that they asked for.
        self.networks.get(number).unwrap_or_else(|| unreachable!("there is no network {number}"))
    }

    /// What makes a program one of network `number`.
    #[must_use]
    pub fn launcher(&self, number: usize) -> Vec<String> {
        ["nsenter", "-t", &self.network(number).pid().to_string(), "-n", "--"].map(str::to_owned).to_vec()
    }

    /// Joins two networks by a cable, see [`address`].
    pub async fn join(&self, one: usize, other: usize) -> anyhow::Result<()> {
        let (here, there) = (self.network(one), self.network(other));
        here.ip(&format!("link add to{other} type veth peer name to{one} netns {}", there.pid())).await?;
        for (network, own, far) in [(here, one, other), (there, other, one)] {
            network.ip(&format!("addr add {}/24 dev to{far}", address_at(own, one, other))).await?;
            network.ip(&format!("link set to{far} up")).await?;
        }
        Ok(())
    }

    /// Takes the cable between two networks away, and with it the routes over it.
    pub async fn part(&self, one: usize, other: usize) -> anyhow::Result<()> {
        self.network(one).ip(&format!("link del to{other}")).await.map(drop)
    }

    /// Has everything vanish that is sent over the cable between two networks, in both directions. No interface goes down
    /// and nobody is told, as when a cable is cut behind a switch.
    pub async fn cut(&self, one: usize, other: usize) -> anyhow::Result<()> {
        for (own, far) in [(one, other), (other, one)] {
            let neighbour = address_at(far, one, other);
            let change = format!("neigh replace {neighbour} lladdr {NOBODY} dev to{far} nud permanent");
            self.network(own).ip(&change).await?;
        }
        Ok(())
    }

    /// Has it work again.
    pub async fn mend(&self, one: usize, other: usize) -> anyhow::Result<()> {
        for (own, far) in [(one, other), (other, one)] {
            self.network(own).ip(&format!("neigh del {} dev to{far}", address_at(far, one, other))).await?;
        }
        Ok(())
    }

    /// Starts a server within a network, on a port of its loopback.
    pub async fn target(&self, number: usize, behaviour: Behaviour) -> anyhow::Result<LocalTarget> {
        self.target_at(number, Ipv4Addr::LOCALHOST.into(), behaviour).await
    }

    /// The same at another address of that network.
    pub async fn target_at(&self, number: usize, host: IpAddr, behaviour: Behaviour) -> anyhow::Result<LocalTarget> {
        let (told, tell) = oneshot::channel();
        let serving = self.serve(number, async move || {
            let _ = told.send(Target::start_at(host, behaviour).await);
        });
        let target = tell.await.context("the server does not start")??;
        Ok(LocalTarget { target, _serving: serving })
    }

    /// Runs `work` on a thread of its own within a network, and what it has spawned, for as long as the value lives.
    pub fn serve(&self, number: usize, work: impl AsyncFnOnce() + Send + 'static) -> Serving {
        let (alive, over) = oneshot::channel::<()>();
        let network = Arc::clone(self.network(number));
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                tokio::select! {
                    () = async {
                        work().await;
                        std::future::pending::<()>().await;
                    } => {}
                    _ = over => {}
                }
            });
            anyhow::Ok(())
        };
        tokio::spawn(async move { network.inside(body).await? });
        Serving { _alive: alive }
    }

    /// Runs `work` to its end within a network.
    pub async fn within<T, F>(&self, number: usize, work: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>>,
    {
        let running = self.network(number).inside(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        });
        running.await.context("the thread in another network")?
    }
}

/// Something that runs in a network; it ends when this is dropped.
pub struct Serving {
    _alive: oneshot::Sender<()>,
}

/// A [`Target`] in a network.
pub struct LocalTarget {
    target: Target,
    _serving: Serving,
}

impl std::ops::Deref for LocalTarget {
    type Target = Target;

    fn deref(&self) -> &Target {
        &self.target
    }
}

/// The address of network `one` on the cable to network `other`.
#[must_use]
pub fn address(one: usize, other: usize) -> IpAddr {
    address_at(one, one.min(other), one.max(other))
}

/// The address of `own` on the cable between `one` and `other`, the lower of which has the first address.
fn address_at(own: usize, one: usize, other: usize) -> IpAddr {
    let (low, high) = (one.min(other), one.max(other));
    let net = u8::try_from(low * 16 + high).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 77, net, if own == low { 1 } else { 2 }).into()
}
