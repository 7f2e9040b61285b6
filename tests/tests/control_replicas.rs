//! Several control planes on one PostgreSQL database, behind a balancer: one that is killed, and a database that is
//! restarted, are missed by no stream, and nothing that was acknowledged is lost.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_local_api::message::ControlLink;
use postern_proto::resource::Kind;
use postern_tests::{
    api::Api,
    balancer::Balancer,
    client, need_program,
    servers::Postgres,
    stack::{ControlPlane, Stack},
    target::{Behaviour, Target},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// How long everybody may take to be back after a failure. Generous: the machine may be busy.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// What goes on while things fail.
#[derive(Clone)]
struct Load {
    over: Arc<AtomicBool>,
    /// New streams that were carried.
    carried: Arc<AtomicU64>,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    /// One stream that is used all the time; it must outlive everything.
    async fn keep_talking(self, address: SocketAddr) -> anyhow::Result<u64> {
        let mut stream = client::open(address).await?;
        let mut said = 0_u64;
        while self.goes_on() {
            client::ask(&mut stream, format!("word {said}").as_bytes()).await.context("the stream was cut")?;
            said += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(said)
    }

    /// New streams, one after the other; each must be carried.
    async fn open_streams(self, address: SocketAddr) -> anyhow::Result<u64> {
        while self.goes_on() {
            let sent = b"a stream of its own".to_vec();
            anyhow::ensure!(client::exchange(address, &sent).await? == sent, "a new stream was not carried");
            self.carried.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(self.carried.load(Ordering::SeqCst))
    }

    /// Writes; the names of those that were acknowledged. What is refused or broken off is tried no second time.
    async fn write(self, api: Api) -> anyhow::Result<Vec<String>> {
        let mut acknowledged = Vec::new();
        for number in 0.. {
            if !self.goes_on() {
                break;
            }
            let name = format!("role {number}");
            let answer = api.post("/api/v1/roles", json!({"name": name})).await;
            if answer.is_ok() {
                acknowledged.push(name);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(acknowledged)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_and_their_database_may_die_without_a_stream_or_an_acknowledged_write_lost() -> anyhow::Result<()> {
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    let mut database = Postgres::start().await?;
    let balancer = Balancer::start().await?;
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder()
        .database(&format!("postgres://postgres@{}/postgres", database.address()))
        .behind(&balancer)
        .resource("echo", Kind::Tcp, target.address())
        .start()
        .await?;
    let mut second = stack.start_replica("control-2").await?;
    assert_eq!(second.ca_fingerprint(), stack.control.ca_fingerprint());
    let address = stack.user().connect("echo").await?;
    let load = Load { over: Arc::default(), carried: Arc::default() };
    let mut streams = JoinSet::new();
    streams.spawn(load.clone().keep_talking(address));
    streams.spawn(load.clone().open_streams(address));
    let writing = tokio::spawn(load.clone().write(stack.api().clone()));

    stack.control.kill().await?;
    everybody_is_back(&stack, &load).await.context("after the first replica was killed")?;
    stack.control.restart().await?;
    second.kill().await?;
    everybody_is_back(&stack, &load).await.context("after the second replica was killed")?;
    second.restart().await?;
    database.restart().await?;
    everybody_is_back(&stack, &load).await.context("after the database was restarted")?;

    load.over.store(true, Ordering::SeqCst);
    let mut said = Vec::new();
    while let Some(ended) = streams.join_next().await {
        said.push(ended??);
    }
    let acknowledged = writing.await??;
    assert!(acknowledged.len() > 20, "{} writes", acknowledged.len());
    // A replica reads what another wrote a moment later, and after its database was away a second later.
    let names: Vec<String> = roles_known_everywhere(&stack, &second).await?.iter().filter_map(name).collect();
    for name in &acknowledged {
        assert!(names.contains(name), "{name} was acknowledged and is gone");
    }
    // Every stream is on record, none twice.
    let carried = usize::try_from(load.carried.load(Ordering::SeqCst))?;
    let whole = |sessions: &[Value]| {
        sessions.len() > carried
            && sessions.iter().all(|session| session.get("ended_at").is_some_and(|at| !at.is_null()))
    };
    assert_eq!(stack.sessions_when(whole).await?.len(), carried + 1);
    let verified = stack.api().get("/api/v1/audit/verify").await?;
    assert_eq!(verified.get("ok"), Some(&json!(true)), "{verified}");
    // What one revokes reaches a gateway and a service at the other.
    let mut running = client::open(address).await?;
    client::ask(&mut running, b"before").await?;
    stack.revoke_all().await?;
    let cut = tokio::time::timeout(BACK_WITHIN, client::end(&mut running)).await;
    assert!(cut.is_ok(), "the stream lives on");
    second.stop().await?;
    stack.stop().await?;
    database.stop().await
}

fn name(of: &Value) -> Option<String> {
    of.get("name").and_then(Value::as_str).map(str::to_owned)
}

/// Waits until the administrator, the service and the gateway are served again, and some more streams were carried.
async fn everybody_is_back(stack: &Stack, load: &Load) -> anyhow::Result<()> {
    let deadline = Instant::now() + BACK_WITHIN;
    let carried = load.carried.load(Ordering::SeqCst);
    loop {
        let there = stack.has_all_nodes().await;
        let status = stack.user().client().status().await?;
        let linked = matches!(status.control, ControlLink::Connected { .. });
        if there && linked && load.carried.load(Ordering::SeqCst) > carried + 10 {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "gateways connected: {there}, service connected: {linked}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until both replicas know the same roles. Each knows at once what it wrote itself, so these are all.
async fn roles_known_everywhere(stack: &Stack, second: &ControlPlane) -> anyhow::Result<Vec<Value>> {
    let (one, other) = (stack.admin_at(&stack.control)?, stack.admin_at(second)?);
    let deadline = Instant::now() + BACK_WITHIN;
    loop {
        let roles = one.list("/api/v1/roles").await?;
        if other.list("/api/v1/roles").await? == roles {
            return Ok(roles);
        }
        anyhow::ensure!(Instant::now() < deadline, "the second replica knows something else");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
