//! Simulated devices: the state that a control plane keeps for each connection, in this process, without sockets and TLS.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_control::{
    catalogue::Resource,
    clock::Clock,
    store::{Absent, Actor, Store},
    sync::{Exchange, Subscription, hub::Next},
};
use postern_proto::{
    id::DeviceId,
    sync::{Hello, Peer, VERSION},
};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use super::{
    Figures, milliseconds, number, usage,
    world::{SHARED, SINGLE, World},
};
use crate::stack::Stack;

/// How long the exchange may take to pass a change on.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures what the state of connections costs.
pub async fn measure(stack: &Stack, world: &World, figures: &mut Figures) -> anyhow::Result<()> {
    let me = std::process::id();
    let (begun, before) = (Instant::now(), usage(me)?);
    let store = Store::open(stack.control.data(), Absent::Refuse, Clock::system()).await?;
    figures.took("simulated: reading the database", begun);
    let memory = usage(me)?.memory.saturating_sub(before.memory);
    figures.say("simulated: memory of the catalogue and its index", number(memory) / 1048576.0, "MiB");
    let (exchange, follower) = Exchange::new(store.clone(), vec![])?;
    let cancel = CancellationToken::new();
    let following = tokio::spawn(follower.run(cancel.clone()));

    let count = world.size.devices;
    let (begun, before) = (Instant::now(), usage(me)?);
    let mut fleet = Fleet { devices: Vec::new(), frames: 0, bytes: 0 };
    for n in 0..count {
        let device = exchange.admit(peer(world, n), &hello());
        fleet.take(&device);
        fleet.devices.push(device);
    }
    let after = usage(me)?;
    let memory = after.memory.saturating_sub(before.memory);
    figures.say(
        format!("simulated: memory for each of {count} connected devices"),
        number(memory) / number(count) / 1024.0,
        "KiB",
    );
    figures.say("simulated: sent to each at first", number(fleet.bytes) / number(count) / 1024.0, "KiB");
    figures.say("simulated: CPU for each that connects", (after.cpu - before.cpu) * 1e6 / number(count), "µs");
    figures.took("simulated: until all were connected", begun);

    for (tag, touched) in [(SINGLE, 1), (SHARED, world.size.touched)] {
        edit(&store, world, &mut fleet, (tag, touched), figures).await?;
    }
    cancel.cancel();
    following.await?;
    drop(fleet);
    store.close().await;
    Ok(())
}

struct Fleet {
    devices: Vec<Subscription>,
    frames: u64,
    bytes: u64,
}

impl Fleet {
    /// Takes what there is for a device.
    fn take(&mut self, device: &Subscription) {
        while let Next::Send(frame) = device.next() {
            self.frames += 1;
            self.bytes += frame.len() as u64;
        }
    }

    /// Takes what there is for everybody.
    fn take_all(&mut self) {
        let devices = std::mem::take(&mut self.devices);
        for device in &devices {
            self.take(device);
        }
        self.devices = devices;
    }
}

/// One tag edit: the change itself, and until all whom it touches have been told.
async fn edit(
    store: &Store,
    world: &World,
    fleet: &mut Fleet,
    (tag, touched): (&str, u64),
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let resource = Resource::clone(store.catalogue().resources.get(&world.edited).context("the resource is gone")?);
    let told = touched.min(world.size.devices);
    let (sent, cpu, begun) = (fleet.frames, usage(std::process::id())?.cpu, Instant::now());
    let mut change = store.change(Actor::operator()).await?;
    let mut tagged = resource.clone();
    tagged.tags.insert(tag.parse()?, "yes".parse()?);
    change.put(tagged).await?;
    change.commit().await?;
    figures.took(format!("simulated: commit of a tag edit that touches {touched} accounts"), begun);
    while fleet.frames < sent + told {
        anyhow::ensure!(begun.elapsed() < PATIENCE, "only {} devices were told", fleet.frames - sent);
        tokio::time::sleep(Duration::from_millis(1)).await;
        fleet.take_all();
    }
    figures.say(format!("simulated: until {told} devices were told"), milliseconds(begun.elapsed()), "ms");
    figures.say(
        "simulated: CPU for it, this process with its devices",
        (usage(std::process::id())?.cpu - cpu) * 1e3,
        "ms",
    );
    let mut change = store.change(Actor::operator()).await?;
    change.put(resource).await?;
    change.commit().await?;
    let back = fleet.frames + told;
    let begun = Instant::now();
    while fleet.frames < back && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(1)).await;
        fleet.take_all();
    }
    Ok(())
}

fn peer(world: &World, n: u64) -> Peer {
    let device = DeviceId::from_ulid(Ulid::from_parts(1, u128::from(n)));
    Peer::Device { account: World::account(n % world.size.accounts), device }
}

fn hello() -> Hello {
    Hello { version: VERSION, agent: "scale".to_owned(), epoch: String::new(), have: BTreeMap::new() }
}
