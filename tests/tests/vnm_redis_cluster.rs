//! A resource of several hosts and ports: a real Redis Cluster, whose nodes send clients to each other by name (MOVED).
//! Nobody on the user's machine knows these names but Postern, and the client is the one of the package.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use postern_tests::{
    need_namespace, need_program,
    network_bed::{self, NetworkBed, enable},
    servers::RedisCluster,
    stack::{Stack, id},
};
use serde_json::{Value, json};

const KEYS: usize = 60;

/// A cluster, and a resource that leads to its hosts at port 7001 and these.
async fn scene(bed: &NetworkBed, ports: &[&str], hosts: &[&str]) -> anyhow::Result<(RedisCluster, Stack)> {
    let cluster = RedisCluster::start().await?;
    let mut builder = bed.stack();
    for (name, ip) in RedisCluster::hosts().chain([(format!("other.{}", RedisCluster::DOMAIN), [127, 0, 1, 1].into())])
    {
        builder = builder.gateway_host(&name, ip);
    }
    let stack = builder.start().await?;
    let body = json!({
        "name": "cluster", "kind": "redis", "host": "n1.redis.internal", "port": 7001, "ports": ports, "hosts": hosts,
        "allow_local": true, "bind": {"mode": "vnm", "dns_name": "*.redis.internal"},
    });
    let resource = id(&stack.api().post("/api/v1/resources", body).await?)?;
    stack.add_rule(stack.role, &[resource]).await?;
    stack.user().knows("cluster").await?;
    enable(stack.user()).await?;
    stack.user().listens("cluster").await?;
    Ok((cluster, stack))
}

/// The unmodified client, on the user's machine.
async fn redis_cli(bed: &NetworkBed, arguments: &[&str]) -> anyhow::Result<String> {
    Ok(bed.command("redis-cli", arguments).await?.success()?.trim().to_owned())
}

fn targets(sessions: &[Value]) -> BTreeSet<&str> {
    sessions.iter().filter_map(|session| session.get("target")?.as_str()).collect()
}

#[test]
fn an_unmodified_client_follows_a_cluster_from_host_to_host_by_name() -> anyhow::Result<()> {
    need_namespace!();
    for program in RedisCluster::PROGRAMS {
        need_program!(program);
    }
    network_bed::run(async |mut bed| {
        bed.start_stub().await?;
        let (cluster, stack) = scene(&bed, &["7002"], &[]).await?;
        let first = ["-c", "-h", "n1.redis.internal", "-p", "7001"];
        for n in 0..KEYS {
            let (key, value) = (format!("key-{n}"), format!("value-{n}"));
            let said = redis_cli(&bed, &[&first[..], &["set", &key, &value]].concat()).await?;
            ensure!(said == "OK", "{said}");
        }
        // From another node, and from a replica's port.
        for (n, entry) in (0..KEYS).zip(["n1", "n2", "n3"].iter().cycle()) {
            let host = format!("{entry}.{}", RedisCluster::DOMAIN);
            let port = if n % 2 == 0 { "7001" } else { "7002" };
            let key = format!("key-{n}");
            let said = redis_cli(&bed, &["-c", "-h", &host, "-p", port, "get", &key]).await?;
            ensure!(said == format!("value-{n}"), "{key} from {host}:{port} is {said:?}");
        }
        let mut held = 0;
        for (host, _) in RedisCluster::hosts() {
            let count: usize = redis_cli(&bed, &["-h", &host, "-p", "7001", "dbsize"]).await?.parse()?;
            ensure!(count > 0, "{host} was given nothing: nobody was moved to it");
            held += count;
        }
        assert_eq!(held, KEYS);
        // Without following, the node's own answer shows.
        let moved = redis_cli(&bed, &["-h", "n1.redis.internal", "-p", "7001", "get", "key-0"]).await?;
        let other = redis_cli(&bed, &["-h", "n2.redis.internal", "-p", "7001", "get", "key-0"]).await?;
        ensure!([&moved, &other].iter().any(|said| said.contains(".redis.internal:700")), "{moved:?} {other:?}");

        let expected: BTreeSet<String> =
            RedisCluster::hosts().flat_map(|(host, _)| [7001, 7002].map(|port| format!("{host}:{port}"))).collect();
        let all = |sessions: &[Value]| targets(sessions).len() >= expected.len();
        let sessions = stack.sessions_when(all).await?;
        assert_eq!(
            targets(&sessions),
            expected.iter().map(String::as_str).collect(),
            "each host as asked for, on record"
        );
        cluster.stop().await?;
        stack.stop().await
    })
}

#[test]
fn hosts_and_ports_outside_of_the_resource_are_refused_to_the_unmodified_client() -> anyhow::Result<()> {
    need_namespace!();
    for program in RedisCluster::PROGRAMS {
        need_program!(program);
    }
    network_bed::run(async |mut bed| {
        let hosts: Vec<String> = RedisCluster::hosts().map(|(host, _)| host).collect();
        let listed: Vec<&str> = hosts.iter().map(String::as_str).collect();
        bed.start_stub().await?;
        let (cluster, stack) = scene(&bed, &[], &listed).await?;
        let ping = async |host: &str, port: &str| bed.command("redis-cli", &["-h", host, "-p", port, "ping"]).await;
        assert_eq!(ping("n2.redis.internal", "7001").await?.success()?.trim(), "PONG");
        // A node listens there, and the resource has no such port.
        let refused = ping("n2.redis.internal", "7002").await?;
        ensure!(!refused.stdout.contains("PONG"), "{refused:?}");
        // The gateway could resolve it, and it is not in the list.
        let refused = ping("other.redis.internal", "7001").await?;
        ensure!(!refused.stdout.contains("PONG"), "{refused:?}");
        let told = |code: &str| {
            let code = code.to_owned();
            let api = stack.api();
            async move {
                for _ in 0..300 {
                    let all = api.list("/api/v1/activities?filter=verb:stream.refused").await?;
                    if all.iter().any(|activity| activity.to_string().contains(&code)) {
                        return Ok(());
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
                anyhow::bail!("no administrator is told of {code}")
            }
        };
        told("host_not_allowed").await?;
        // Who was got through to keeps its address for ever; who was refused may have to give it back.
        let kept = stack.user().home().join("state").join("virtual-hosts.json");
        let reached = || -> anyhow::Result<BTreeMap<String, bool>> {
            let kept: Value = serde_json::from_slice(&std::fs::read(&kept)?)?;
            let record = |host: &Value| Some((host["host"].as_str()?.to_owned(), host["reached"] == true));
            Ok(kept["hosts"].as_array().into_iter().flatten().filter_map(record).collect())
        };
        let mut hosts = reached()?;
        for _ in 0..300 {
            if hosts.get("n2.redis.internal") == Some(&true) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            hosts = reached()?;
        }
        assert_eq!(hosts.get("n2.redis.internal"), Some(&true), "{hosts:?}");
        assert_eq!(hosts.get("other.redis.internal"), Some(&false), "{hosts:?}");
        cluster.stop().await?;
        stack.stop().await
    })
}
