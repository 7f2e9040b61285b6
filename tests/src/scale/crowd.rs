//! Real devices: each signs in, and follows the control plane over a mutual-TLS connection of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::{api::Credential, replica::Replica};
use postern_tunnel::control::{ClientIdentity, ControlClient, ControlUrl, SyncEvent, SyncLoop, SyncTiming, Trust};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Figures, milliseconds, number,
    questions::tags,
    usage,
    world::{SHARED, World},
};
use crate::{api::ControlAddress, device::Device, stack::Stack};

/// Sign-ins under way at once.
const AT_ONCE: usize = 16;
/// How long everybody is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the devices of the crowd have seen since the counts were last set back.
#[derive(Default)]
struct Seen {
    complete: AtomicU64,
    changed: AtomicU64,
}

/// Measures what real connections cost.
pub async fn measure(stack: &mut Stack, world: &World, figures: &mut Figures) -> anyhow::Result<()> {
    let count = world.size.connections;
    let process = stack.control.process_id();
    let (begun, before) = (Instant::now(), usage(process)?);
    let devices = sign_in(stack.control.address(), count).await?;
    let after = usage(process)?;
    figures.say("sign-ins of devices, real", number(count) / begun.elapsed().as_secs_f64(), "per s");
    figures.say("CPU of postern-control for a sign-in", (after.cpu - before.cpu) * 1e3 / number(count), "ms");

    let (seen, cancel) = (Arc::new(Seen::default()), CancellationToken::new());
    let (begun, before) = (Instant::now(), usage(process)?);
    let mut tasks = JoinSet::new();
    for device in &devices {
        tasks.spawn(follow(stack.control.address().clone(), device.clone(), Arc::clone(&seen), cancel.clone()));
    }
    wait_for(&seen.complete, count).await.context("not every device came")?;
    let after = usage(process)?;
    figures.say("first connections of devices, real", number(count) / begun.elapsed().as_secs_f64(), "per s");
    figures.say("CPU of postern-control for a first connection", (after.cpu - before.cpu) * 1e3 / number(count), "ms");
    let memory = after.memory.saturating_sub(before.memory);
    figures.say(
        "memory of postern-control for a connected device, real",
        number(memory) / number(count) / 1024.0,
        "KiB",
    );

    push(stack, world, &seen, figures).await?;
    storm(stack, &seen, count, figures).await?;
    cancel.cancel();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn sign_in(control: &ControlAddress, count: u64) -> anyhow::Result<Vec<Device>> {
    let (mut devices, mut tasks) = (Vec::new(), JoinSet::new());
    for n in 0..count {
        if tasks.len() >= AT_ONCE {
            devices.push(tasks.join_next().await.context("no task")???);
        }
        let control = control.clone();
        tasks.spawn(async move { Device::login(&control, Credential::ServiceToken { token: World::token(n) }).await });
    }
    while let Some(device) = tasks.join_next().await {
        devices.push(device??);
    }
    Ok(devices)
}

async fn follow(
    control: ControlAddress,
    device: Device,
    seen: Arc<Seen>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let url: ControlUrl = format!("https://{}", control.address).parse()?;
    let client = Arc::new(ControlClient::new(url.into(), Trust::Ca(control.ca)));
    client.set_identity(Some(ClientIdentity::from_pem(&device.identity.certificate, &device.identity.key)?));
    let (sync, mut handle) = SyncLoop::new(client, "scale", Replica::default(), SyncTiming::default());
    let run = tokio::spawn(sync.run(cancel));
    while let Some(event) = handle.events.recv().await {
        match event {
            SyncEvent::Complete => seen.complete.fetch_add(1, Ordering::Relaxed),
            SyncEvent::Changed(_) => seen.changed.fetch_add(1, Ordering::Relaxed),
            _ => continue,
        };
    }
    Ok(run.await?)
}

/// One tag edit that every device of the crowd is told of.
async fn push(stack: &Stack, world: &World, seen: &Seen, figures: &mut Figures) -> anyhow::Result<()> {
    let told = world.size.connections.min(world.size.touched);
    let (path, plain, with) = tags(stack, world, SHARED).await?;
    // The owners of the resource have it before and after.
    let before = seen.changed.load(Ordering::Relaxed);
    let cpu = usage(stack.control.process_id())?.cpu;
    let begun = Instant::now();
    stack.api().patch(&path, json!({"tags": with})).await?;
    let answered = begun.elapsed();
    wait_for(&seen.changed, before + told).await.context("not every device was told")?;
    let touched = world.size.touched;
    figures.say(
        format!("one tag edit that touches {touched} accounts, {told} of them connected"),
        milliseconds(answered),
        "ms",
    );
    figures.took("until the last of them was told", begun);
    let cpu = usage(stack.control.process_id())?.cpu - cpu;
    figures.say("CPU of postern-control for it", cpu * 1e3, "ms");
    stack.api().patch(&path, json!({"tags": plain})).await.map(drop)
}

/// The control plane dies and comes back: everybody connects again, each after a random wait of its own.
async fn storm(stack: &mut Stack, seen: &Seen, count: u64, figures: &mut Figures) -> anyhow::Result<()> {
    let before = seen.complete.load(Ordering::Relaxed);
    stack.control.kill().await?;
    let begun = Instant::now();
    stack.control.restart().await?;
    figures.took("start after a SIGKILL", begun);
    let (ready, cpu) = (Instant::now(), usage(stack.control.process_id())?.cpu);
    wait_for(&seen.complete, before + count * 9 / 10).await.context("nine in ten did not come back")?;
    figures.took("until nine in ten devices were back, counted from ready", ready);
    wait_for(&seen.complete, before + count).await.context("not every device came back")?;
    figures.took("until the last device was back", ready);
    let cpu = usage(stack.control.process_id())?.cpu - cpu;
    figures.say("CPU of postern-control for a device that comes back", cpu * 1e3 / number(count), "ms");
    Ok(())
}

async fn wait_for(count: &AtomicU64, enough: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while count.load(Ordering::Relaxed) < enough {
        anyhow::ensure!(Instant::now() < deadline, "{} of {enough} in {PATIENCE:?}", count.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
