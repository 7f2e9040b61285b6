//! A disk that is full: a small one of the gateway's own, in a mount namespace of its own.

use std::{collections::BTreeSet, fs, io::Write as _, path::PathBuf, process::Command};

use postern_proto::id::StreamId;
use postern_tunnel::stream::EndCause;
use rustix::process::Signal;

use crate::{
    bench::{Control, Device, Stream, echo, until},
    lifecycle::Process,
    skip,
};

/// Room for the gateway's own files and some of its records.
const DISK: &str = "size=3m,mode=0700";
/// Streams that find room before the disk must have been noticed.
const MANY: usize = 2000;

/// The program with a small disk in the place of its state folder.
fn on_a_small_disk(state: &tempfile::TempDir) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("mount -t tmpfs -o {DISK} postern \"$1\" && shift && exec \"$@\"");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(state.path()).arg(env!("CARGO_BIN_EXE_postern-node"));
    command
}

fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "postern", "/tmp"]).output();
    tried.is_ok_and(|tried| tried.status.success())
}

/// Takes what room there is.
fn fill(path: &PathBuf) {
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_full_streams_are_refused_with_the_cause_and_no_record_is_lost() {
    if !may_mount() {
        return skip::skip("full_disk", "needs root and a mount namespace for a disk of its own");
    }
    let control = Control::start(vec![echo(1).await]).await;
    let (state, device) = (tempfile::tempdir().unwrap(), Device::new(&control.ca, 1));
    let mut command = on_a_small_disk(&state);
    command.env("POSTERN_SPOOL_LIMIT", "1");
    let mut process = Process::start_by(command, &control, &state);
    let entry = device.entry(process.listen);
    let mut running = Stream::open(&entry, 1, &device.lease(1)).await;
    running.ping(b"before").await.unwrap();
    // Records that nobody takes stay on the disk.
    *control.shared.deaf.lock().unwrap() = true;
    let seen_from_here = format!("/proc/{}/root{}", process.child.id(), state.path().join("fill").display());
    let filler = PathBuf::from(seen_from_here);
    fill(&filler);

    let mut carried = BTreeSet::from([running.id]);
    let problem = loop {
        assert!(carried.len() < MANY, "the disk is full, and streams are opened all the same");
        let mut stream = Stream::open(&entry, 1, &device.lease(1)).await;
        let id = stream.id;
        if stream.ping(b"x").await.is_err() {
            break stream.refusal().await;
        }
        carried.insert(id);
        assert_eq!(stream.close().await, EndCause::Done);
    };
    assert_eq!((problem.status, problem.code.as_str()), (503, "audit_unavailable"), "{problem}");
    assert!(problem.to_string().contains("No space left on device"), "{problem}");
    for _ in 0..5 {
        let problem = Stream::open(&entry, 1, &device.lease(1)).await.refusal().await;
        assert_eq!(problem.code, "audit_unavailable");
    }
    running.ping(b"what runs goes on").await.unwrap();
    assert_eq!(running.close().await, EndCause::Done);

    fs::remove_file(&filler).unwrap();
    let again = loop {
        let mut stream = Stream::open(&entry, 1, &device.lease(1)).await;
        if stream.ping(b"there is room").await.is_ok() {
            break stream;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    carried.insert(again.id);
    assert_eq!(again.close().await, EndCause::Done);
    *control.shared.deaf.lock().unwrap() = false;
    let ended = || -> BTreeSet<StreamId> { control.ends().iter().map(|end| end.stream).collect() };
    until(|| carried.is_subset(&ended())).await;
    // Each once. A refused stream may have a start, of which the record says that it was abandoned.
    let starts: Vec<StreamId> = control.starts().iter().map(|start| start.stream).collect();
    let once: BTreeSet<StreamId> = starts.iter().copied().collect();
    assert_eq!(starts.len(), once.len());
    assert!(carried.is_subset(&once) && once == ended(), "{} starts, {} ends", once.len(), ended().len());
    process.signal(Signal::TERM);
    assert!(process.child.wait().unwrap().success());
}
