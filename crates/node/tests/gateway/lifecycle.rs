//! Starting, stopping, restarting, renewing.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use postern_node::gateway::GatewayError;
use postern_proto::{frame::ResetCode, record::EndReason, sync::DrainOrder};
use postern_tunnel::stream::EndCause;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Bench, Control, Device, Running, Stream, arguments, echo, now, resource_id, until};

#[tokio::test]
async fn draining_refuses_new_streams_and_lets_running_ones_end() {
    let bench = Bench::start().await;
    let mut running = bench.carrying().await;
    let warm = bench.carrying().await;
    assert_eq!(warm.close().await, EndCause::Done);
    bench.gateway.stop.cancel();
    let refused = loop {
        let stream = bench.open(1).await;
        match stream.close().await {
            EndCause::Refused(problem) => break problem,
            cause => assert_eq!(cause, EndCause::Done),
        }
    };
    assert_eq!(refused.status, 503, "{refused}");
    running.ping(b"still carried").await.unwrap();
    let id = running.id;
    assert_eq!(running.close().await, EndCause::Done);
    bench.gateway.ended().await;
    assert_eq!(bench.control.end_of(id).await.reason, EndReason::Closed);
}

#[tokio::test]
async fn a_second_signal_cuts_what_runs_and_records_it() {
    let bench = Bench::start().await;
    let stream = bench.carrying().await;
    let id = stream.id;
    bench.gateway.stop.cancel();
    bench.gateway.stop_now.cancel();
    assert_eq!(stream.ended().await, EndCause::PeerReset(ResetCode::Draining));
    bench.gateway.ended().await;
    assert_eq!(bench.control.end_of(id).await.reason, EndReason::Drained);
}

#[tokio::test]
async fn when_the_drain_is_over_the_rest_is_cut_and_recorded() {
    let control = Control::start(vec![echo(1).await]).await;
    let state = tempfile::tempdir().unwrap();
    let gateway = Running::try_start(&control, &state, &["--enrol-token", "token", "--drain", "0"]).await.unwrap();
    let device = Device::new(&control.ca, 1);
    let mut stream = Stream::open(&device.entry(gateway.ready.listen), 1, &device.lease(1)).await;
    stream.ping(b"x").await.unwrap();
    let id = stream.id;
    gateway.stop.cancel();
    assert_eq!(stream.ended().await, EndCause::PeerReset(ResetCode::Draining));
    gateway.ended().await;
    assert_eq!(control.end_of(id).await.reason, EndReason::Drained);
}

/// Opens streams until one is refused, or until one is not.
async fn opens(bench: &Bench, wanted: bool) {
    loop {
        match bench.open(1).await.close().await {
            EndCause::Refused(problem) if wanted => assert_eq!(problem.status, 503, "{problem}"),
            EndCause::Refused(problem) => return assert_eq!(problem.code, "draining"),
            cause => assert_eq!(cause, EndCause::Done),
        }
        if wanted && bench.open(1).await.close().await == EndCause::Done {
            return;
        }
    }
}

#[tokio::test]
async fn a_drain_that_was_ordered_refuses_new_streams_until_it_is_taken_back() {
    let bench = Bench::start().await;
    let mut running = bench.carrying().await;
    bench.control.order(Some(DrainOrder { ends_at: now().plus(Duration::from_secs(600)) }));
    opens(&bench, false).await;
    running.ping(b"still carried").await.unwrap();
    let told = || bench.control.shared.presence.lock().unwrap().last().is_some_and(|(_, draining)| *draining);
    until(told).await;
    bench.control.order(None);
    opens(&bench, true).await;
    until(|| !told()).await;
    running.ping(b"all the time").await.unwrap();
    assert_eq!(running.close().await, EndCause::Done);
    bench.gateway.finish().await;
}

#[tokio::test]
async fn what_outlasts_an_ordered_drain_is_cut_and_the_node_stays_out_of_service_after_a_restart() {
    let bench = Bench::start().await;
    let stream = bench.carrying().await;
    let id = stream.id;
    bench.control.order(Some(DrainOrder { ends_at: now() }));
    assert_eq!(stream.ended().await, EndCause::PeerReset(ResetCode::Draining));
    let end = bench.control.end_of(id).await;
    assert_eq!((end.reason, end.detail.as_deref()), (EndReason::Drained, Some("the node was drained")));
    let Bench { mut control, gateway, state, device, .. } = bench;
    gateway.finish().await;
    // What it was told last holds as long as nobody tells it otherwise.
    control.stop().await;
    let gateway = Running::try_start(&control, &state, &[]).await.unwrap();
    let stream = Stream::open(&device.entry(gateway.ready.listen), 1, &device.lease(1)).await;
    let EndCause::Refused(problem) = stream.ended().await else { panic!("it is in service again") };
    assert_eq!(problem.code, "draining");
    gateway.finish().await;
}

#[tokio::test]
async fn two_gateways_do_not_share_a_state_folder() {
    let bench = Bench::start().await;
    let error = Running::try_start(&bench.control, &bench.state, &[]).await.err().unwrap();
    assert!(matches!(error, GatewayError::State(_)), "{error}");
    bench.gateway.finish().await;
}

#[tokio::test]
async fn a_restart_needs_neither_token_nor_control_plane() {
    let mut bench = Bench::start().await;
    until(|| !bench.control.shared.health.lock().unwrap().is_empty()).await;
    bench.gateway.finish().await;
    bench.control.stop().await;
    let gateway = Running::try_start(&bench.control, &bench.state, &[]).await.unwrap();
    let entry = bench.device.entry(gateway.ready.listen);
    let mut stream = Stream::open(&entry, 1, &bench.device.lease(1)).await;
    stream.ping(b"on what was known").await.unwrap();
    let id = stream.id;
    assert_eq!(stream.close().await, EndCause::Done);
    bench.control.resume().await;
    assert_eq!(bench.control.end_of(id).await.reason, EndReason::Closed);
    gateway.finish().await;
}

#[tokio::test]
async fn the_certificate_is_renewed_ahead_of_its_end_without_cutting_anything() {
    let control = Control::start(vec![echo(1).await]).await;
    *control.shared.life.lock().unwrap() = Duration::from_secs(6);
    let state = tempfile::tempdir().unwrap();
    let gateway = Running::start(&control, &state).await;
    let device = Device::new(&control.ca, 1);
    let entry = device.entry(gateway.ready.listen);
    let mut stream = Stream::open(&entry, 1, &device.lease(1)).await;
    stream.ping(b"before").await.unwrap();
    *control.shared.life.lock().unwrap() = Duration::from_secs(3600);
    until(|| *control.shared.certificates.lock().unwrap() > 1 && *control.shared.connected.lock().unwrap() > 1).await;
    stream.ping(b"after").await.unwrap();
    let mut next = Stream::open(&device.entry(gateway.ready.listen), 1, &device.lease(1)).await;
    next.ping(b"new").await.unwrap();
    gateway.finish().await;
    let gateway = Running::try_start(&control, &state, &[]).await.unwrap();
    gateway.finish().await;
}

#[tokio::test]
async fn a_gateway_whose_certificate_ended_while_it_was_away_enrols_again_and_loses_no_record() {
    let mut bench = Bench::start().await;
    until(|| !bench.control.shared.health.lock().unwrap().is_empty()).await;
    bench.control.stop().await;
    let stream = bench.carrying().await;
    let waiting = stream.id;
    assert_eq!(stream.close().await, EndCause::Done);
    bench.gateway.finish().await;
    // A week later.
    let file = bench.state.path().join("identity.json");
    let mut identity: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let node = identity["node"].clone();
    identity["not_after"] = 1.into();
    std::fs::write(&file, identity.to_string()).unwrap();
    bench.control.resume().await;
    let error = Running::try_start(&bench.control, &bench.state, &[]).await.err().unwrap();
    assert!(matches!(error, GatewayError::CertificateEnded), "{error}");
    assert!(error.to_string().contains("postern admin gateways token"), "{error}");
    let gateway = Running::try_start(&bench.control, &bench.state, &["--enrol-token", "token"]).await.unwrap();
    assert_eq!(serde_json::to_value(gateway.ready.node).unwrap(), node);
    assert_eq!(bench.control.end_of(waiting).await.reason, EndReason::Closed);
    let mut stream = Stream::open(&bench.device.entry(gateway.ready.listen), 1, &bench.device.lease(1)).await;
    stream.ping(b"with the new certificate").await.unwrap();
    assert_eq!(stream.close().await, EndCause::Done);
    until(|| bench.control.ends().len() == 2).await;
    gateway.finish().await;
    // The new certificate is on disk: the next start needs no token.
    Running::try_start(&bench.control, &bench.state, &[]).await.unwrap().finish().await;
}

/// The program itself, as a process.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) listen: std::net::SocketAddr,
}

impl Process {
    fn start(control: &Control, state: &tempfile::TempDir) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_postern-node")), control, state)
    }

    /// `command` runs the program with the arguments that follow.
    pub(crate) fn start_by(mut command: Command, control: &Control, state: &tempfile::TempDir) -> Self {
        let mut child = command
            .arg("gateway")
            .args(arguments(control, state))
            .env("POSTERN_ENROL_TOKEN", "token")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["ready"], true);
        let listen = ready["listen"].as_str().unwrap().parse().unwrap();
        Self { child, listen }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_loses_no_session_and_ends_them_at_its_next_start() {
    let control = Control::start(vec![echo(1).await]).await;
    let state = tempfile::tempdir().unwrap();
    let device = Device::new(&control.ca, 1);
    let mut begun = Vec::new();
    let mut open = Vec::new();
    for round in 0..4 {
        let process = Process::start(&control, &state);
        let entry = device.entry(process.listen);
        for n in 0..25 {
            let mut stream = Stream::open(&entry, 1, &device.lease(1)).await;
            stream.ping(b"x").await.unwrap();
            begun.push(stream.id);
            if n % 2 == 0 {
                assert_eq!(stream.close().await, EndCause::Done);
            } else {
                open.push(stream);
            }
        }
        // While records are under way, and in the last round while the control plane takes none.
        *control.shared.deaf.lock().unwrap() = round >= 2;
        process.signal(Signal::KILL);
    }
    for stream in open {
        assert_eq!(stream.ended().await, EndCause::LinkLost);
    }
    *control.shared.deaf.lock().unwrap() = false;
    let mut process = Process::start(&control, &state);
    until(|| control.ends().len() == begun.len()).await;
    let mut starts: Vec<_> = control.starts().iter().map(|start| start.stream).collect();
    starts.sort();
    begun.sort();
    assert_eq!(starts, begun);
    let mut ends: Vec<_> = control.ends().iter().map(|end| end.stream).collect();
    ends.sort();
    assert_eq!(ends, begun);
    assert!(control.ends().iter().filter(|end| end.reason == EndReason::NodeLost).count() >= 48);
    process.signal(Signal::TERM);
    assert!(process.child.wait().unwrap().success());
    assert_eq!(control.starts()[0].resource, resource_id(1));
}
