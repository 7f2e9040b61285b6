//! Proxy clusters: workers that stand for each other behind one address.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    balancer::Balancer,
    client::{self, End},
    stack::{How, Stack},
    target::{Behaviour, Target},
};
use serde_json::json;

/// Tries until a stream goes through: routes and bindings travel.
async fn until_answered(address: std::net::SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match client::exchange(address, b"hello").await {
            Ok(answer) if answer == b"hello" => return Ok(()),
            other if Instant::now() > deadline => anyhow::bail!("no stream goes through: {other:?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_behind_a_balancer_carry_what_is_bound_to_their_cluster_and_nothing_else() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let builder = Stack::builder().resource("bound", Kind::Tcp, target.address());
    let stack = builder.resource("free", Kind::Tcp, target.address()).start().await?;
    let balancer = Balancer::start().await?;
    let cluster = stack.create_cluster("eu", balancer.entrance().address()).await?;
    let (one_key, other_key) = (stack.create_key(cluster).await?, stack.create_key(cluster).await?);
    let mut one = stack.start_worker("one", &one_key).await?;
    let mut other = stack.start_worker("other", &other_key).await?;
    for worker in [&one, &other] {
        balancer.entrance().add(worker.listens());
        assert!(!worker.log().contains("postern_cluster_"), "the secret key is in the log");
    }
    let bound = stack.resource("bound").await?;
    stack.api().patch(&format!("/api/v1/resources/{bound}"), json!({"cluster": cluster})).await?;
    let address = stack.user().connect("bound").await?;
    let free = stack.user().connect("free").await?;
    until_answered(address).await?;

    // Held open side by side they are spread.
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = client::open(address).await?;
        client::ask(&mut stream, b"over a worker").await?;
        streams.push(stream);
    }
    let sessions = stack.user().client().sessions().await?;
    let over: Vec<_> = sessions.iter().filter(|session| session.resource_name == "bound").collect();
    assert!(over.iter().all(|session| session.gateway == Some(cluster.into())), "{over:?}");
    let named = over
        .iter()
        .filter_map(|session| session.route.as_ref())
        .any(|route| route.hops.iter().any(|hop| hop.name == "eu"));
    assert!(named, "{over:?}");
    assert_eq!(client::exchange(free, b"over the gateway").await?, b"over the gateway");

    // One dies: its streams are reset, new ones go on.
    one.kill().await?;
    let mut alive = some_were_reset(streams).await?;
    until_answered(address).await?;

    // Its state is there: it comes back as the same node. Without it, it enrols again.
    let again = stack.start_worker("one", &one_key).await?;
    assert_eq!(again.id(), one.id());
    let rotated = stack.rotate_key(cluster, &one_key).await?;
    assert!(stack.start_worker("third", &one_key).await.is_err(), "the secret key before enrols nobody");
    let mut third = stack.start_worker("third", &rotated).await?;
    assert_ne!(third.id(), one.id());
    third.stop().await?;

    // Revoked: the worker that lives is cut off, and its streams end at once.
    let path = format!("/api/v1/clusters/{cluster}/keys/{}", other_key.access_key);
    let revoked = Instant::now();
    stack.api().delete(&path).await?;
    for stream in &mut alive {
        let ended = tokio::time::timeout(Duration::from_secs(10), client::end(stream)).await;
        assert_eq!(ended.context("a stream of the revoked worker lives on")??, End::Reset);
    }
    postern_tests::figure::say(&format!("streams of a revoked worker were over after {:?}", revoked.elapsed()));
    // The client may have been told first.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !other.log().contains("removed from the control plane") {
        assert!(Instant::now() < deadline, "the worker is not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    other.stop().await?;
    drop(again);
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_moves_between_clusters_and_gateways_and_no_other_door_opens_to_it() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let (eu_balancer, us_balancer) = (Balancer::start().await?, Balancer::start().await?);
    let eu = stack.create_cluster("eu", eu_balancer.entrance().address()).await?;
    let us = stack.create_cluster("us", us_balancer.entrance().address()).await?;
    let mut in_eu = stack.start_worker("in-eu", &stack.create_key(eu).await?).await?;
    let mut in_us = stack.start_worker("in-us", &stack.create_key(us).await?).await?;
    eu_balancer.entrance().add(in_eu.listens());
    us_balancer.entrance().add(in_us.listens());
    let resource = stack.resource("echo").await?;
    let path = format!("/api/v1/resources/{resource}");
    let address = stack.user().connect("echo").await?;
    for cluster in [Some(eu), Some(us), None] {
        let mut open = client::open(address).await?;
        client::ask(&mut open, b"before it moves").await?;
        stack.api().patch(&path, json!({"cluster": cluster})).await?;
        let ended = tokio::time::timeout(Duration::from_secs(10), client::end(&mut open)).await;
        assert_eq!(ended??, End::Reset, "a stream lived on over a door that does not open any more");
        until_answered(address).await?;
    }
    // Behind the address of one cluster stands a worker of the other one: it is not spoken to.
    stack.api().patch(&path, json!({"cluster": eu})).await?;
    until_answered(address).await?;
    let wrong = Balancer::start().await?;
    wrong.entrance().add(in_us.listens());
    let moved = json!({"advertise": wrong.entrance().address().to_string()});
    stack.api().patch(&format!("/api/v1/clusters/{eu}"), moved).await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while client::exchange(address, b"hello").await.is_ok_and(|answer| answer == b"hello") {
        assert!(Instant::now() < deadline, "a worker of another cluster is taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    in_eu.stop().await?;
    in_us.stop().await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_404_from_a_worker_and_options_that_cannot_work_are_refused_with_the_reason() -> anyhow::Result<()>
{
    let stack = Stack::builder().start().await?;
    let balancer = Balancer::start().await?;
    let cluster = stack.create_cluster("eu", balancer.entrance().address()).await?;
    let mut worker = stack.start_worker("one", &stack.create_key(cluster).await?).await?;
    let curl = tokio::process::Command::new("curl")
        .args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", &format!("https://{}/", worker.listens())])
        .output()
        .await;
    match curl {
        Ok(answered) => assert_eq!(String::from_utf8_lossy(&answered.stdout), "404"),
        Err(_) => eprintln!("SKIPPED: curl is not installed"),
    }
    let refused = tokio::process::Command::new(stack.binaries().node())
        .args(["worker", "--control", "https://127.0.0.1:1", "--system-roots", "--state", "/nonexistent/worker"])
        .env("POSTERN_TLS_CERT_SOURCE", "none")
        .output()
        .await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("POSTERN_TLS_CLIENT_AUTH=none"), "{said}");
    worker.stop().await?;
    stack.stop().await
}

/// Of streams over two workers those over one are reset; what lives on.
async fn some_were_reset(streams: Vec<tokio::net::TcpStream>) -> anyhow::Result<Vec<tokio::net::TcpStream>> {
    let (reset, alive) = client::reset_and_living(streams).await?;
    assert!(reset > 0 && !alive.is_empty(), "{reset} were reset and {} live on: they were not spread", alive.len());
    Ok(alive)
}

/// Streams to an echo server side by side, each open and used.
async fn side_by_side(address: std::net::SocketAddr, count: usize) -> anyhow::Result<Vec<tokio::net::TcpStream>> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(client::open(address).await?);
    }
    Ok(streams)
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_told_that_the_worker_which_carries_their_streams_leaves_and_new_ones_go_elsewhere()
-> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().gateways(0).resource("echo", Kind::Tcp, target.address()).start().await?;
    let balancer = Balancer::start().await?;
    let cluster = stack.create_cluster("eu", balancer.entrance().address()).await?;
    let key = stack.create_key(cluster).await?;
    let (mut one, mut other) = (stack.start_worker("one", &key).await?, stack.start_worker("other", &key).await?);
    [&one, &other].into_iter().for_each(|worker| balancer.entrance().add(worker.listens()));
    let path = format!("/api/v1/resources/{}", stack.resource("echo").await?);
    stack.api().patch(&path, json!({"cluster": cluster})).await?;
    let address = stack.user().connect("echo").await?;
    until_answered(address).await?;
    let mut streams = side_by_side(address, 8).await?;

    let node = one.id();
    let drained = stack.api().post(&format!("/api/v1/nodes/{node}/drain"), json!({ "deadline": 240 })).await?;
    let ends = drained["drain_ends_at"].as_u64().context("no end")?;
    let name = drained["name"].as_str().context("no name")?.to_owned();
    let leaves = |status: &postern_local_api::message::Status| {
        status.health.iter().any(|item| item.code == "node_leaves" && item.until.is_some_and(|until| until.0 == ends))
    };
    let status = stack.user().status_when(leaves).await.context("nobody is told")?;
    let item = status.health.iter().find(|item| item.code == "node_leaves").context("no item")?;
    assert!(item.what.contains(&name), "{item:?} is not about {name}");
    let sessions = stack.user().client().sessions().await?;
    let counted = sessions.iter().filter(|session| session.ends_at.is_some_and(|at| at.0 == ends)).count();
    let unconcerned = sessions.iter().filter(|session| session.ends_at.is_none()).count();
    assert_eq!(counted + unconcerned, 8, "{sessions:?}");
    assert!(counted > 0 && unconcerned > 0, "{counted} of 8 are told to end: they were not spread");
    assert!(item.why.contains(&format!("over it: {counted}")), "{item:?} for {counted} streams");

    // New ones go over the other one alone, and what runs goes on.
    let new = side_by_side(address, 8).await?;
    let sessions = stack.user().client().sessions().await?;
    let still = sessions.iter().filter(|session| session.ends_at.is_some()).count();
    assert_eq!((sessions.len(), still), (16, counted), "{sessions:?}");
    for stream in &mut streams {
        client::ask(stream, b"still here").await?;
    }
    stack.api().delete(&format!("/api/v1/nodes/{node}/drain")).await?;
    stack.user().status_when(|status| status.health.iter().all(|item| item.code != "node_leaves")).await?;
    drop((streams, new));
    one.stop().await?;
    other.stop().await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_worker_that_hears_of_nothing_and_keeps_listening_is_not_used_any_more() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().gateways(0).resource("echo", Kind::Tcp, target.address()).start().await?;
    let (balancer, towards_control) = (Balancer::start().await?, Balancer::start().await?);
    towards_control.entrance().add(stack.control.listens());
    let cluster = stack.create_cluster("eu", balancer.entrance().address()).await?;
    let key = stack.create_key(cluster).await?;
    let cut_off = How { control: Some(towards_control.entrance().address()), ..How::default() };
    let mut one = stack.start_worker_in("one", &key, &cut_off, &[]).await?;
    let mut other = stack.start_worker("other", &key).await?;
    [&one, &other].into_iter().for_each(|worker| balancer.entrance().add(worker.listens()));
    let path = format!("/api/v1/resources/{}", stack.resource("echo").await?);
    stack.api().patch(&path, json!({"cluster": cluster})).await?;
    let address = stack.user().connect("echo").await?;
    until_answered(address).await?;
    // Nobody tells it anything from now on. It carries, as it should where the control plane is away.
    drop(towards_control);
    let streams = side_by_side(address, 8).await?;
    let carried = one.log().len();

    stack.api().delete(&format!("/api/v1/gateways/{}", one.id())).await?;
    let alive = some_were_reset(streams).await?;
    for _ in 0..8 {
        assert_eq!(client::exchange(address, b"over the other").await?, b"over the other");
    }
    drop(alive);
    // It is there, and would take streams: nobody told it. With the other one gone nobody is left all the same.
    other.kill().await?;
    let refused = tokio::time::timeout(client::DEADLINE, client::exchange(address, b"hello")).await?;
    assert!(!refused.is_ok_and(|answer| answer == b"hello"), "a removed worker carried a stream");
    let words = "removed from its cluster";
    let said = |status: &postern_local_api::message::Status| {
        serde_json::to_string(status).is_ok_and(|status| status.contains(words))
    };
    stack.user().status_when(said).await.context("nobody says why")?;
    let log = one.log();
    assert!(!log.get(carried..).unwrap_or_default().contains("removed from the control plane"), "it was told");
    tokio::net::TcpStream::connect(one.listens()).await.context("it does not listen any more")?;

    one.kill().await?;
    stack.stop().await
}
