//! Virtual Networking Mode: resources at names and addresses of their own, in a network of this user.
//!
//! The engine decides whether there is a network and who is where in it. This is its shell: [`Vnm`] asks postern-netd for
//! the device, runs one thread per queue of it, and tells the engine what became of that. Nothing here decides who may
//! reach what: a connection is admitted by whose socket it is ([`gate`]), means what the [`directory`] says, and is
//! carried as one at a loopback address is.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use postern_netstack::{MAX_COUPLED, MAX_PACKET, StackConfig, dns::TableError};
use postern_proto::id::{OrgId, ResourceId};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    carriage::Destination,
    engine::{Input, NetworkPlan, NetworkTicket, Places},
    listener::Reception,
    refusals::Refusal,
    store::Store,
};

mod directory;
mod driver;
mod flow;
mod gate;
mod host_end;
mod hosts;
mod map;
mod names;
mod neighbours;
mod pace;
mod queue;
mod shard;
mod sources;
mod threads;

pub use directory::{Directory, Meaning, Published};
pub use flow::{FlowEnd, Received};
pub use gate::TunGate;
pub use hosts::HostBook;
pub use map::Map;
pub use names::Names;
pub use neighbours::Seat;
pub use queue::PacketQueue;
pub use shard::{Attendant, Shard, ShardError, ShardParts};
pub use threads::{MTU, queues};

use driver::{Driver, Order};
use host_end::{HostEnd, Marks};
use threads::{Fitting, Threads};

/// Orders that may wait for the driver; the engine has one question under way at a time.
const ORDERS: usize = 16;
/// How long taking the network down may take when the service stops: resetting what is open, netd's part, and writing down
/// which hosts were reached.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug)]
pub struct Vnm {
    reception: Reception,
    store: Store,
    allowed: Vec<u32>,
    orders: mpsc::Sender<Order>,
    /// The driver, and for each map who writes its marks.
    tasks: JoinSet<()>,
    stop: CancellationToken,
    current: Option<Current>,
    threads: Arc<Mutex<Threads>>,
}

/// Of the network that is up.
#[derive(Debug)]
struct Current {
    org: OrgId,
    map: Arc<Map>,
    marks: Marks,
}

impl Vnm {
    /// `inputs` leads to the engine. Within a runtime.
    #[must_use]
    pub fn new(reception: Reception, store: Store, allowed: Vec<u32>, inputs: mpsc::Sender<Input>) -> Self {
        let (orders, queue) = mpsc::channel(ORDERS);
        let (stop, threads) = (CancellationToken::new(), Arc::new(Mutex::new(Threads::default())));
        let mut tasks = JoinSet::new();
        tasks.spawn(Driver::new(inputs, Arc::clone(&threads)).run(queue, stop.clone()));
        Self { reception, store, allowed, orders, tasks, stop, current: None, threads }
    }

    /// Asks netd for this network; the engine hears what became of it.
    pub async fn configure(&self, ticket: NetworkTicket, plan: NetworkPlan) {
        let _ = self.orders.send(Order::Configure { ticket, plan }).await;
    }

    /// Takes the network down: connections are reset, then the device goes.
    pub async fn release(&self) {
        let _ = self.orders.send(Order::Release).await;
    }

    /// Who is where from now on: when this returns, no connection begins any more at what was taken away.
    pub fn set_places(
        &mut self,
        org: OrgId,
        places: Option<Arc<Places>>,
        destinations: &HashMap<ResourceId, Arc<Destination>>,
        warnings: &mut Vec<String>,
    ) {
        let Some(places) = places else {
            if let Some(current) = self.current.take() {
                current.map.close();
            }
            return;
        };
        let concerned = places.places.iter().filter_map(|place| destinations.get_key_value(&place.resource));
        let destinations = concerned.map(|(id, destination)| (*id, Arc::clone(destination))).collect();
        let set = match &self.current {
            Some(current) if current.org == org => current.map.set(places, destinations),
            Some(_) | None => self.open_map(org, places, destinations, warnings),
        };
        if let Err(error) = set {
            tracing::error!("the virtual network cannot be used: {error}");
        }
        if let Some(Current { map, marks, .. }) = &self.current {
            let porter = Porter { reception: self.reception.clone(), marks: marks.clone() };
            threads(&self.threads).start(&Fitting { map: Arc::clone(map), porter, allowed: self.allowed.clone() });
        }
    }

    fn open_map(
        &mut self,
        org: OrgId,
        places: Arc<Places>,
        destinations: HashMap<ResourceId, Arc<Destination>>,
        warnings: &mut Vec<String>,
    ) -> Result<(), TableError> {
        // Who wrote for earlier maps has ended, or is about to.
        while self.tasks.try_join_next().is_some() {}
        let hosts = Arc::new(HostBook::open(&self.store, org, places.plan.subnet, warnings));
        let map = Arc::new(Map::new(Arc::clone(&hosts), places, destinations)?);
        self.current = Some(Current { org, map, marks: Marks::new(hosts, &mut self.tasks) });
        Ok(())
    }

    /// Takes everything down.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // Marks are written until nobody can make any: the threads end before the driver does.
        self.current = None;
        let all_gone = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_DEADLINE, all_gone).await.is_err() {
            tracing::warn!("the virtual network did not go down in time; postern-netd takes the device away");
        }
    }
}

fn threads(threads: &Mutex<Threads>) -> MutexGuard<'_, Threads> {
    threads.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes connections to resources and carries them.
#[derive(Clone, Debug)]
struct Porter {
    reception: Reception,
    marks: Marks,
}

impl Attendant for Porter {
    fn attend(&self, shard: &Rc<Shard>, flow: FlowEnd, meaning: Meaning) {
        let Meaning::Resource { destination, wanted } = meaning else { return };
        let carriage = &self.reception.carriage;
        let stream = carriage.list(flow.source(), &destination);
        // Whoever takes a place away publishes that first and cuts what is listed then: so either the stream is found there,
        // or the place is found gone here.
        if !shard.directory().still_means(flow.destination(), destination.id) {
            carriage.streams.remove(stream.id);
            return;
        }
        let carriage = Arc::clone(carriage);
        let tasks = carriage.tasks().clone();
        match wanted.host.clone() {
            None => {
                tokio::task::spawn_local(tasks.track_future(carriage.carry(flow, stream, destination, wanted)));
            }
            // From here on its address is remembered longer than a dial can take.
            Some(host) if self.marks.try_out(&host) => {
                let end = HostEnd { end: flow, host, marks: self.marks.clone() };
                tokio::task::spawn_local(tasks.track_future(carriage.carry(end, stream, destination, wanted)));
            }
            Some(_) => carriage.streams.remove(stream.id),
        }
    }

    fn turned_away(&self, meaning: &Meaning, destination: std::net::SocketAddr, uid: Option<u32>) {
        let Meaning::Resource { destination: resource, .. } = meaning else { return };
        self.reception.note_refusal(Refusal { resource: resource.id, bind: destination, uid });
    }
}

/// The sizes and limits of the stack at `seat`. What can be held in all is shared out, what may gather goes to where it does.
#[must_use]
pub fn stack_config(seat: &Seat) -> StackConfig {
    let whole = StackConfig::default();
    let share = |whole: usize, gathered: usize| {
        let gathered = if seat.shards() > 1 { gathered } else { 0 };
        whole.saturating_sub(gathered).div_ceil(seat.shards().max(1)) + if seat.gathers() { gathered } else { 0 }
    };
    StackConfig {
        largest: if takes_large_packets() { MAX_COUPLED } else { MAX_PACKET },
        mtu: MTU as usize,
        offload: tun_driver::frames::OFFLOAD,
        max_flows: share(whole.max_flows, neighbours::GATHERED_FLOWS),
        // Two thirds of what a stack holds may be one user's: so that all that gathers may be his, it is half as much again.
        max_held: share(whole.max_held, neighbours::GATHERED_HELD * 3 / 2),
        answers: postern_netstack::Answers::Asked,
        ..whole
    }
}

/// Whether the system takes packets over IPv4 beyond 64 KiB from a device: Linux since 6.3.
#[cfg(target_os = "linux")]
fn takes_large_packets() -> bool {
    rustix::system::uname().release().to_str().is_ok_and(|release| is_at_least(release, 6, 3))
}

#[cfg(not(target_os = "linux"))]
fn takes_large_packets() -> bool {
    false
}

#[cfg(any(target_os = "linux", test))]
fn is_at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map_while(|number| number.parse().ok());
    let (has_major, has_minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (has_major, has_minor) >= (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_compared_by_its_numbers() {
        for (release, newer) in [
            ("6.18.44-fc-v657", true),
            ("6.3", true),
            ("6.2.16-20", false),
            ("5.15.0-91-generic", false),
            ("odd", false),
        ] {
            assert_eq!(is_at_least(release, 6, 3), newer, "{release}");
        }
    }
}
