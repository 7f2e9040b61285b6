//! Bridges: inner workers that listen nowhere, and a worker of their cluster that passes clients on to them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use postern_proto::resource::Kind;
use postern_tests::{
    balancer::Balancer,
    capture::Capture,
    client,
    cluster_bed::{CLIENT, ClusterBed, NETWORKS, PRIVATE},
    need_namespace, need_program,
    site::{self, DMZ, address},
    stack::{Stack, Worker},
    target::{Behaviour, Target},
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Tries until a stream goes through: routes and bindings travel, and links are parked.
async fn until_answered(address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match client::exchange(address, b"hello").await {
            Ok(answer) if answer == b"hello" => return Ok(()),
            other if Instant::now() > deadline => anyhow::bail!("no stream goes through: {other:?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A cluster of a bridge and two inner workers, and where its one resource appears.
async fn bridged(target: &Target) -> anyhow::Result<(Stack, Worker, Vec<Worker>, SocketAddr)> {
    let stack = Stack::builder().resource("db", Kind::Tcp, target.address()).start().await?;
    let balancer = Balancer::start().await?;
    let cluster = stack.create_cluster("eu", balancer.entrance().address()).await?;
    let key = stack.create_key(cluster).await?;
    let bridge = stack.start_worker_with("bridge", &key, &[("POSTERN_BRIDGE", "local")]).await?;
    let address = bridge.listens().to_string();
    // Clients come to the bridge itself.
    let change = json!({"advertise": address});
    stack.api().patch(&format!("/api/v1/clusters/{cluster}"), change).await?;
    let mut inner = Vec::new();
    for name in ["inner-1", "inner-2"] {
        let worker = stack.start_worker_with(name, &key, &[("POSTERN_BRIDGE", address.as_str())]).await?;
        anyhow::ensure!(worker.is_inner(), "{name} listens");
        inner.push(worker);
    }
    let resource = stack.resource("db").await?;
    stack.api().patch(&format!("/api/v1/resources/{resource}"), json!({"cluster": cluster})).await?;
    let appears = stack.user().connect("db").await?;
    until_answered(appears).await?;
    Ok((stack, bridge, inner, appears))
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_reach_inner_workers_over_a_bridge_and_one_that_dies_is_left_out() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let (stack, mut bridge, mut inner, address) = bridged(&target).await?;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = client::open(address).await?;
        client::ask(&mut stream, &[7; 200_000]).await?;
        streams.push(stream);
    }
    // Each record is that of the inner worker that dialled.
    let recorded = stack.sessions_when(|sessions| sessions.len() >= 9).await?;
    let inner_ids: Vec<String> = inner.iter().map(|worker| worker.id().to_string()).collect();
    let nodes: Vec<_> = recorded.iter().filter_map(|session| session.get("node")?.as_str()).collect();
    assert!(!nodes.is_empty() && nodes.iter().all(|node| inner_ids.iter().any(|id| id == node)), "{nodes:?}");

    let mut first = inner.remove(0);
    first.kill().await?;
    until_answered(address).await?;
    let (reset, living) = client::reset_and_living(streams).await?;
    let alive = living.len();
    assert!(reset > 0 && alive > 0, "{reset} were reset and {alive} live on: they were not spread");
    drop(living);
    for worker in &mut inner {
        worker.stop().await?;
    }
    bridge.stop().await?;
    stack.stop().await
}

/// What the program says and the resource repeats: nowhere else, and in the clear it is found whole.
const MARKER: &[u8] = b"a-word-that-no-bridge-may-ever-read-9876543210";
const TIMES: usize = 100;

/// Says it often over as many streams as it takes to have it carried by both inner workers.
async fn say(address: SocketAddr) -> anyhow::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(client::open(address).await?);
    }
    for stream in &mut streams {
        for _ in 0..TIMES {
            stream.write_all(MARKER).await?;
            let mut answer = vec![0; MARKER.len()];
            stream.read_exact(&mut answer).await?;
            anyhow::ensure!(answer == MARKER, "something else came back");
        }
    }
    Ok(())
}

#[test]
fn a_bridge_in_the_dmz_leads_to_inner_workers_in_private_networks_and_a_recording_of_it_shows_nothing()
-> anyhow::Result<()> {
    need_namespace!();
    need_program!(Capture::PROGRAM);
    site::run(NETWORKS, async |site| {
        let mut bed = ClusterBed::start(site, Stack::builder()).await?;
        let bridge = bed.start_worker("bridge", 0, &[("POSTERN_BRIDGE", "local")]).await?;
        let edge = SocketAddr::new(DMZ, bridge.listens().port()).to_string();
        bed.change(json!({"advertise": edge})).await?;
        for (name, network) in ["inner-1", "inner-2"].into_iter().zip(PRIVATE) {
            let inner = bed.start_worker(name, network, &[("POSTERN_BRIDGE", edge.as_str())]).await?;
            anyhow::ensure!(inner.is_inner(), "{name} listens");
            bed.workers.push(inner);
        }
        let local = bed.stack.user().connect("db").await?;
        bed.carries(local).await?;

        let folder = bed.stack.folder().to_owned();
        let at_bridge = Capture::start(&bed.site, 0, &folder).await?;
        let at_resource = Capture::start(&bed.site, PRIVATE[0], &folder).await?;
        bed.site.within(CLIENT, move || say(local)).await?;
        // The control: at the resource it is seen in both directions.
        let said = 4 * TIMES;
        let (seen, length) = at_resource.occurrences(MARKER).await?;
        assert!(seen >= 2 * said, "{seen} of {} are in {length} bytes at the resource", 2 * said);
        let (seen, length) = at_bridge.occurrences(MARKER).await?;
        // In and out again, each way.
        assert!(
            length > 4 * said * MARKER.len(),
            "{length} bytes were recorded at the bridge: the traffic is not in it"
        );
        assert_eq!(seen, 0, "the bridge's network saw what was said, in {length} bytes");

        // Both have carried, for the client as the bridge saw it, and the bridge for nobody.
        let client = std::collections::BTreeSet::from([address(CLIENT, 0)]);
        let recorded = bed.recorded().await?;
        assert!(recorded.values().all(|clients| *clients == client), "{recorded:?}");
        // Nobody could come in: the private networks listen to the resource's own port alone, but for the workers' liveness.
        let liveness = format!(":{:04X} ", 9090);
        for network in PRIVATE {
            let listening = bed.site.network(network).run("cat", &["/proc/net/tcp"]).await?;
            let listening = listening.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A"));
            let open: Vec<&str> = listening.filter(|line| !line.contains(&liveness)).collect();
            assert_eq!(open.len(), usize::from(network == PRIVATE[0]), "{open:?}");
        }
        bed.workers.push(bridge);
        bed.stop().await
    })
}
