//! What it costs to make a session record durable: one at a time, and many at once.
//!
//! `cargo run --release -p postern-node --example record_cost -- FOLDER` prints the figures that
//! docs/decisions/session-records-on-disk.md holds.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_node::spool::{Spool, SpoolConfig, Tip};
use postern_proto::{
    id::{AccountId, DeviceId, NodeId, ResourceId, StreamId},
    record::SessionStart,
    time::UnixMillis,
};
use rustix::fs::{FallocateFlags, OFlags, fallocate, fdatasync};
use ulid::Ulid;

const WRITES: usize = 3000;
const RECORD: usize = 600;
const FILE: u64 = 8 << 20;

fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("the folder to measure in is missing")?);
    let folder = folder.join("record-cost");
    std::fs::create_dir_all(&folder)?;
    for _ in 0..2 {
        raw(&folder, "append, fdatasync", |path| Ok(File::create(path)?), append)?;
        raw(&folder, "fallocate, pwrite, fdatasync", allocated, overwrite)?;
        raw(&folder, "zeroes, pwrite, fdatasync", zeroed, overwrite)?;
        raw(&folder, "zeroes, pwrite through O_DSYNC", zeroed_dsync, |file, n| {
            Ok(file.write_all_at(&[b'x'; RECORD], n * RECORD as u64)?)
        })?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for tasks in [1, 8, 64, 512] {
        runtime.block_on(spool(&folder.join(format!("spool-{tasks}")), tasks))?;
    }
    Ok(std::fs::remove_dir_all(folder)?)
}

fn raw(
    folder: &Path,
    name: &str,
    open: impl Fn(&Path) -> anyhow::Result<File>,
    write: impl Fn(&File, u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = folder.join("raw");
    let file = open(&path)?;
    let mut took = Vec::with_capacity(WRITES);
    for n in 0..WRITES as u64 {
        let begun = Instant::now();
        write(&file, n)?;
        took.push(begun.elapsed());
    }
    report(name, took, None)?;
    Ok(std::fs::remove_file(path)?)
}

fn append(mut file: &File, _n: u64) -> anyhow::Result<()> {
    file.write_all(&[b'x'; RECORD])?;
    Ok(fdatasync(file)?)
}

fn overwrite(file: &File, n: u64) -> anyhow::Result<()> {
    file.write_all_at(&[b'x'; RECORD], n * RECORD as u64)?;
    Ok(fdatasync(file)?)
}

fn allocated(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, FILE)?;
    file.sync_all()?;
    Ok(file)
}

fn zeroed(path: &Path) -> anyhow::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(&vec![0; usize::try_from(FILE)?])?;
    file.sync_all()?;
    Ok(file)
}

fn zeroed_dsync(path: &Path) -> anyhow::Result<File> {
    zeroed(path)?;
    Ok(OpenOptions::new().write(true).custom_flags(i32::try_from(OFlags::DSYNC.bits())?).open(path)?)
}

/// `tasks` streams begin again and again for two seconds.
async fn spool(folder: &Path, tasks: usize) -> anyhow::Result<()> {
    let node = NodeId::from_ulid(Ulid::from_parts(1, 1));
    let (spool, _) = Spool::open(SpoolConfig::new(folder), node, Tip::default())?;
    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let spool = spool.clone();
        running.spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < Duration::from_secs(2) {
                let start = start((task as u128) << 64 | took.len() as u128);
                let begun = Instant::now();
                spool.start(UnixMillis(1), start).await?;
                took.push(begun.elapsed());
            }
            anyhow::Ok(took)
        });
    }
    let mut all = Vec::new();
    for took in running.join_all().await {
        all.extend(took?);
    }
    let span = begun.elapsed();
    spool.close(Instant::now() + Duration::from_secs(5));
    report(&format!("spool, {tasks} at once"), all, Some(span))
}

fn start(n: u128) -> SessionStart {
    let ulid = Ulid::from_parts(1, n);
    SessionStart {
        stream: StreamId::from_ulid(ulid),
        account: AccountId::from_ulid(ulid),
        device: DeviceId::from_ulid(ulid),
        resource: ResourceId::from_ulid(ulid),
        resource_name: "billing database".into(),
        resource_tags: BTreeMap::from([("env".into(), "prod".into())]),
        grant: "rol_01JABCDEFGHJKMNPQRSTVWXYZ0".into(),
        client: ([127, 0, 0, 1], 40_000).into(),
        target: "10.0.0.1:5432".into(),
        prepared: None,
    }
}

fn report(name: &str, mut took: Vec<Duration>, span: Option<Duration>) -> anyhow::Result<()> {
    took.sort_unstable();
    let at = |share: usize| took.get(took.len() * share / 100).map_or(0, Duration::as_micros);
    let rate =
        span.map(|span| format!("  {:>7.0} records/s", took.len() as f64 / span.as_secs_f64())).unwrap_or_default();
    let line = format!("{name:32} p50 {:>5} us  p90 {:>5} us  p99 {:>6} us{rate}", at(50), at(90), at(99));
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
