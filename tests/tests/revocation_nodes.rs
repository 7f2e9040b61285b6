//! Access that is taken away while streams run through many nodes: three gateways that dial themselves, three relays and three
//! workers of a cluster, busy and idle streams. None survives. And a node that has lost the control plane: it learns of it when it is back, and opens
//! nothing for a strict resource meanwhile.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    balancer::Balancer,
    carrier::{Carrier, RESET, Received, head, new_stream},
    client::{self, End},
    device::Device,
    figure, need_namespace,
    process::raise_file_limit,
    site::{self, DMZ, address},
    stack::{EMAIL, Gateway, How, PASSWORD, Relay, Stack, Worker},
    target::{Behaviour, Target},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};

/// Streams over all nodes together.
const STREAMS: usize = 1_000;
/// How often a busy one says something: all together some thousand times a second.
const EVERY: Duration = Duration::from_millis(100);
/// No stream may be alive then. What they take in fact is printed.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a node opens streams for a strict resource without the control plane.
const STRICT: Duration = Duration::from_secs(15);

/// One stream to its end, and when that was.
async fn live(mut stream: TcpStream, busy: bool) -> anyhow::Result<Instant> {
    if busy {
        while client::ask(&mut stream, b"busy").await.is_ok() {
            tokio::time::sleep(EVERY).await;
        }
    } else {
        let mut buffer = [0; 64];
        let end = match tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await {
            Ok(0) => End::Closed,
            _ => End::Reset,
        };
        anyhow::ensure!(end == End::Reset, "a cut stream looked complete");
    }
    Ok(Instant::now())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_streams_over_three_gateways_three_relays_and_three_workers_none_survives() -> anyhow::Result<()>
{
    raise_file_limit()?;
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().gateways(3).start().await?;
    let mut nodes: Vec<String> = (1..=3).map(|number| format!("gateway-{number}")).collect();
    for number in 1..=3 {
        let relay = format!("relay-{number}");
        stack.add_relay(&relay, "", 3).await?;
        nodes.push(relay);
    }
    let mut places: Vec<SocketAddr> = Vec::new();
    for node in &nodes {
        let name = format!("over-{node}");
        let resource = stack.create_resource(&name, Kind::Tcp, target.address()).await?;
        stack.set_egress(resource, &format!("name:{node}")).await?;
        stack.add_rule(stack.role, &[resource]).await?;
        let leads = |status: &postern_local_api::message::ResourceStatus| {
            status.route.as_ref().is_some_and(|route| route.hops.last().is_some_and(|hop| hop.name == *node))
        };
        stack.user().resource_when(&name, leads).await?;
        places.push(stack.user().connect(&name).await?);
    }
    let balancer = Balancer::start().await?;
    let (at_cluster, mut workers) = behind(&stack, &balancer, &target).await?;
    // A third of all, as of the other kinds.
    places.extend([at_cluster; 3]);
    let mut lives = JoinSet::new();
    for number in 0..STREAMS {
        let (side, busy) = (number % places.len(), (number / places.len()).is_multiple_of(2));
        let place = places.get(side).copied().context("a place")?;
        let stream = client::open(place).await.with_context(|| format!("stream {number}"))?;
        lives.spawn(async move { (side, busy, live(stream, busy).await) });
    }
    target.wait_open(STREAMS as u64, LIMIT).await?;
    each_node_carries(&stack, &workers).await?;
    let asked = stack.revoke_all().await?;
    let ends = tokio::time::timeout(LIMIT, lives.join_all()).await.context("streams survived")?;
    target.wait_open(0, LIMIT).await.context("streams survive at the resource")?;
    let mut all = Vec::new();
    let kinds = ["gateways", "relays", "workers"].into_iter().enumerate();
    for ((kind, name), busy) in kinds.flat_map(|kind| [(kind, false), (kind, true)]) {
        let mut times = Vec::new();
        for (side, was_busy, end) in &ends {
            if (side / 3, *was_busy) == (kind, busy) {
                let at = end.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
                times.push(at.saturating_duration_since(asked));
            }
        }
        all.extend(&times);
        let what = format!("revocation over three {name}, {}", if busy { "busy" } else { "idle" });
        figure::times(&what, &mut times);
    }
    assert_eq!(all.len(), STREAMS);
    figure::times(&format!("revocation, 0 of {STREAMS} streams survive"), &mut all);
    for worker in &mut workers {
        worker.stop().await?;
    }
    stack.stop().await
}

/// Three workers behind a balancer that gives turns, and where what they lead to appears.
async fn behind(stack: &Stack, balancer: &Balancer, target: &Target) -> anyhow::Result<(SocketAddr, Vec<Worker>)> {
    let cluster = stack.create_cluster("eu", balancer.entrance().address()).await?;
    let key = stack.create_key(cluster).await?;
    let mut workers = Vec::new();
    for number in 1..=3 {
        let worker = stack.start_worker(&format!("worker-{number}"), &key).await?;
        balancer.entrance().add(worker.listens());
        workers.push(worker);
    }
    let resource = stack.create_resource("over-workers", Kind::Tcp, target.address()).await?;
    stack.api().patch(&format!("/api/v1/resources/{resource}"), json!({"cluster": cluster})).await?;
    stack.add_rule(stack.role, &[resource]).await?;
    let leads = |status: &postern_local_api::message::ResourceStatus| {
        status.route.as_ref().is_some_and(|route| route.hops.last().is_some_and(|hop| hop.name == "eu"))
    };
    stack.user().resource_when("over-workers", leads).await?;
    Ok((stack.user().connect("over-workers").await?, workers))
}

/// Fails unless every gateway, relay and worker carries its share.
async fn each_node_carries(stack: &Stack, workers: &[Worker]) -> anyhow::Result<()> {
    let nodes = stack.gateways.iter().map(Gateway::id).chain(stack.relays.iter().map(Relay::id));
    let nodes: Vec<String> = nodes.chain(workers.iter().map(Worker::id)).map(|node| node.to_string()).collect();
    let count = |sessions: &[Value], node: &str| {
        sessions.iter().filter(|session| session.get("node").and_then(Value::as_str) == Some(node)).count()
    };
    let enough = |sessions: &[Value]| nodes.iter().all(|node| count(sessions, node) > STREAMS / nodes.len() / 2);
    let sessions = stack.sessions_when(enough).await?;
    let counts: Vec<usize> = nodes.iter().map(|node| count(&sessions, node)).collect();
    anyhow::ensure!(enough(&sessions), "the streams are not spread over all nodes: {counts:?}");
    figure::say(&format!("revocation over three nodes of each kind: they carry {counts:?} streams"));
    Ok(())
}

#[test]
fn a_node_that_lost_the_control_plane_opens_nothing_strict_and_cuts_what_was_revoked_when_it_is_back()
-> anyhow::Result<()> {
    need_namespace!();
    site::run(2, async |site| {
        site.join(1, 2).await?;
        let target = site.target(2, Behaviour::Echo).await?;
        let mut stack = Stack::builder().gateways(0).host(DMZ).without_user().start().await?;
        let host = Some(address(2, 1));
        let how = How { launcher: site.launcher(2), host, ..How::default() };
        let gateway = stack.add_gateway_with("gateway-1", &how).await?;
        let (node, door) = (gateway.id(), gateway.address());
        stack.gateways.push(gateway);
        let resource = stack.create_resource("echo", Kind::Tcp, target.address()).await?;
        stack.api().patch(&format!("/api/v1/resources/{resource}"), json!({"strict": true})).await?;
        stack.add_rule(stack.role, &[resource]).await?;
        // Somebody who has a lease and hears of no revocation.
        let device = Device::with_password(stack.control.address(), EMAIL, PASSWORD).await?;
        let lease = device.lease(resource).await?.token;
        let (ca, identity) = (stack.control.address().ca.clone(), device.identity.clone());
        let (opened, open) = tokio::sync::oneshot::channel();
        let first = {
            let (ca, identity, lease) = (ca.clone(), identity.clone(), lease.clone());
            site.within(1, move || async move {
                let mut carrier = Carrier::dial(door, node, &ca, &identity).await?;
                let reply = carrier.open(&head(resource, &lease, new_stream())).await?.context("no answer")?;
                anyhow::ensure!(reply.status == 200, "{}", reply.text);
                let _ = opened.send(());
                let end = loop {
                    match carrier.receive_patiently(2 * LIMIT + STRICT).await? {
                        Received::Frame(RESET, code) => break Some(code),
                        Received::Frame(..) => {}
                        Received::Closed => break None,
                    }
                };
                Ok((end, Instant::now()))
            })
        };
        let after = async {
            open.await.context("the stream does not open")?;
            target.wait_open(1, LIMIT).await?;
            site.cut(0, 2).await?;
            stack.revoke_all().await?;
            let revoked = Instant::now();
            tokio::time::sleep(STRICT + Duration::from_secs(1)).await;
            assert_eq!(target.open(), 1, "the node cannot know");
            let reply = site.within(1, move || async move {
                let mut carrier = Carrier::dial(door, node, &ca, &identity).await?;
                carrier.open(&head(resource, &lease, new_stream())).await?.context("no answer")
            });
            let reply = reply.await?;
            assert_ne!(reply.status, 200, "a strict resource was opened without the control plane");
            figure::say(&format!("cut off from the control plane: {} {}", reply.status, reply.code));
            site.mend(0, 2).await?;
            anyhow::Ok((revoked, Instant::now()))
        };
        let ((end, at), (revoked, mended)) = tokio::try_join!(first, after)?;
        assert!(end.is_some(), "the node does not say why");
        assert!(at > mended, "it was cut before the node could know");
        target.wait_open(0, LIMIT).await?;
        figure::say(&format!(
            "cut off from the control plane: revoked access ended {:.1?} after the path was mended, {:.1?} after the revocation",
            at - mended,
            at - revoked
        ));
        stack.stop().await
    })
}
