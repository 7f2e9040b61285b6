//! The virtual network as a whole: real postern-netd, control plane, gateway and posternd in a network of the test's own.
#![cfg(target_os = "linux")]

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use postern_local_api::message::{Connection, NameService, NetworkFault, NetworkStatus, ResourceStatus};
use postern_proto::resource::Kind;
use postern_tests::{
    client,
    command::{PATIENCE, run},
    content, figure, need_namespace, need_program,
    network_bed::{self, NetworkBed, add_virtual, enable, up},
    servers::{Nginx, Postgres, Redis, Sshd},
    target::{Behaviour, Target},
};
use serde_json::json;
use tokio::net::TcpStream;

/// A user of the machine whom nothing here concerns.
const STRANGER: u32 = 20_002;
const OWNER: u32 = 20_001;

#[test]
fn a_resource_is_reached_at_its_own_address_and_gone_when_access_is_taken() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |bed| {
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let before = bed.namespace.snapshot().await?;
        let network = enable(stack.user()).await?;
        let address = stack.user().listens("echo").await?;
        assert!(network.subnet.starts_with("100.72.0.0/"), "{network:?}");
        assert_eq!(address.port(), 7);
        let mut streams = Vec::new();
        for _ in 0..50 {
            let mut stream = TcpStream::connect(address).await?;
            client::ask(&mut stream, &vec![7; 100_000]).await?;
            streams.push(stream);
        }
        let sessions = stack.user().client().sessions().await?;
        assert_eq!(sessions.iter().filter(|session| session.resource_name == "echo").count(), 50);
        let refused = TcpStream::connect(SocketAddr::new(address.ip(), 8)).await;
        assert!(refused.is_err(), "no such port");
        stack.revoke_all().await?;
        for stream in &mut streams {
            assert_eq!(client::end(stream).await?, client::End::Reset);
        }
        assert!(TcpStream::connect(address).await.is_err());
        // A stream is cut first and unlisted then.
        let deadline = std::time::Instant::now() + client::DEADLINE;
        while !stack.user().client().sessions().await?.is_empty() {
            anyhow::ensure!(std::time::Instant::now() < deadline, "cut streams stay listed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stack.user().postern(&["network", "disable"]).await?;
        settles(&bed, &before).await?;
        stack.stop().await
    })
}

#[test]
fn a_target_that_refuses_stays_refused_and_orderly_ends_stay_orderly() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |bed| {
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        add_virtual(&stack, "nobody", Kind::Tcp, nobody, json!({"port": 9})).await?;
        enable(stack.user()).await?;
        let address = stack.user().listens("echo").await?;
        let bytes = vec![3; 5_000_000];
        assert!(client::exchange(address, &bytes).await? == bytes, "what was sent came back, then both ends ended");
        let refused = TcpStream::connect(stack.user().listens("nobody").await?).await;
        assert_eq!(refused.err().map(|error| error.kind()), Some(std::io::ErrorKind::ConnectionRefused));
        stack.stop().await
    })
}

#[test]
fn the_four_services_are_reached_by_name_at_their_own_ports() -> anyhow::Result<()> {
    need_namespace!();
    for program in [&Postgres::PROGRAMS[..], &Sshd::PROGRAMS, &Nginx::PROGRAMS, &Redis::PROGRAMS].concat() {
        need_program!(program);
    }
    network_bed::run(async |mut bed| {
        bed.start_stub().await?;
        let (postgres, sshd, nginx, redis) =
            (Postgres::start().await?, Sshd::start().await?, Nginx::start().await?, Redis::start().await?);
        let stack = bed.stack().start().await?;
        for (name, kind, at, port) in [
            ("orders-db", Kind::Postgres, postgres.address(), 5432),
            ("build-7", Kind::Ssh, sshd.address(), 22),
            ("grafana", Kind::Http, nginx.address(), 80),
            ("cache", Kind::Redis, redis.address(), 6379),
        ] {
            add_virtual(&stack, name, kind, at, json!({"port": port})).await?;
        }
        let network = enable(stack.user()).await?;
        assert!(matches!(network.names, NameService::Registered { .. }), "{network:?}");
        let zone = network.zones.first().context("no zone")?.clone();
        let somewhere = SocketAddr::from(([127, 0, 0, 1], 5432));

        let mut psql = Postgres::client("psql", somewhere)?;
        psql.env("PGHOST", format!("orders-db.{zone}"));
        psql.args(["--no-align", "--tuples-only", "--quiet", "--command", "select 6 * 7"]);
        assert_eq!(run(&mut bed.within(&psql), PATIENCE).await?.success()?.trim(), "42");
        let mut pgbench = Postgres::client("pgbench", somewhere)?;
        pgbench.env("PGHOST", format!("orders-db.{zone}"));
        run(bed.within(&pgbench).args(["--initialize", "--quiet", "--scale", "1"]), PATIENCE).await?.success()?;
        let mut load = bed.within(&pgbench);
        load.args(["--client", "20", "--jobs", "2", "--select-only", "--no-vacuum", "--time", "3"]);
        let output = run(&mut load, PATIENCE).await?.success()?;
        assert!(output.contains("number of failed transactions: 0"), "{output}");
        output.lines().filter(|line| line.contains("tps")).for_each(figure::say);

        let host = format!("build-7.{zone}");
        let ssh = |program: &str, words: &[&str]| -> anyhow::Result<tokio::process::Command> {
            let client = sshd.client(program, SocketAddr::from(([127, 0, 0, 1], 22)))?;
            let mut command =
                bed.within_as(&client, |word| word.replace("HostName=127.0.0.1", &format!("HostName={host}")));
            command.args(words);
            Ok(command)
        };
        assert_eq!(run(&mut ssh("ssh", &["resource", "echo $((6 * 7))"])?, PATIENCE).await?.success()?.trim(), "42");
        let [from, there] = ["from", "there"].map(|name| sshd.folder().join(name).display().to_string());
        content::write_dense(std::path::Path::new(&from), 11, 20_000_000)?;
        run(&mut ssh("scp", &["-q", &from, &format!("resource:{there}")])?, PATIENCE).await?.success()?;
        assert_eq!(content::hash_file(std::path::Path::new(&there))?, content::hash_file(std::path::Path::new(&from))?);

        content::write_dense(&nginx.root().join("file"), 21, 50_000_000)?;
        let got = bed.namespace.folder().join("got").display().to_string();
        let url = format!("http://grafana.{zone}/file");
        bed.command("curl", &["--silent", "--show-error", "--fail", "--noproxy", "*", "-o", &got, &url])
            .await?
            .success()?;
        assert_eq!(content::hash_file(std::path::Path::new(&got))?, content::hash_file(&nginx.root().join("file"))?);

        let redis_cli = bed.command("redis-cli", &["-h", &format!("cache.{zone}"), "set", "word", "kept"]).await?;
        assert_eq!(redis_cli.success()?.trim(), "OK");
        stack.stop().await?;
        postgres.stop().await?;
        sshd.stop().await?;
        nginx.stop().await?;
        redis.stop().await
    })
}

#[test]
fn whoever_is_not_the_owner_gets_no_answer() -> anyhow::Result<()> {
    need_namespace!();
    need_program!("curl");
    network_bed::run(async |bed| {
        let nginx = Nginx::start().await?;
        std::fs::write(nginx.root().join("word"), "hello")?;
        let stack = bed.stack().owner(OWNER).start().await?;
        add_virtual(&stack, "web", Kind::Http, nginx.address(), json!({"port": 80})).await?;
        let network = enable(stack.user()).await?;
        let url = format!("http://{}/word", stack.user().listens("web").await?);
        let served = ["--silent", "--noproxy", "*", &url];
        assert_eq!(bed.command_as(OWNER, "curl", &served).await?.success()?, "hello");
        let get = [&["--max-time", "3"][..], &served].concat();
        let device = network.interface.as_str();
        for uid in [STRANGER, 0] {
            let around = [&["--interface", device][..], &get].concat();
            for words in [&get[..], &around] {
                let output = bed.command_as(uid, "curl", words).await?;
                assert!(!output.status.success() && output.stdout.is_empty(), "uid {uid} {words:?}: {output:?}");
                // 7: refused at once by the kernel's routes or filter; 28: nobody answered.
                assert!(matches!(output.status.code(), Some(7 | 28)), "uid {uid}: {output:?}");
            }
        }
        assert_eq!(bed.command_as(OWNER, "curl", &served).await?.success()?, "hello");
        stack.stop().await?;
        nginx.stop().await
    })
}

#[test]
fn without_netd_everything_is_at_loopback_and_comes_back_with_it() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |mut bed| {
        bed.stop_netd().await?;
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let ran = run(&mut stack.user().cli(&["network", "enable"]), PATIENCE).await?;
        let said = ran.failure()?;
        assert!(said.contains("cannot be had"), "{said}");
        let fell_back = |status: &ResourceStatus| status.fallback.is_some() && is_loopback(status);
        let status = stack.user().resource_when("echo", fell_back).await?;
        assert!(status.fallback.as_deref().is_some_and(|why| why.contains("postern-netd")), "{status:?}");
        client::open(stack.user().listens("echo").await?).await?;
        let NetworkStatus::Unavailable { fault, .. } = stack.user().status().await?.network else {
            anyhow::bail!("the network is there without netd");
        };
        assert_eq!(fault, NetworkFault::NoService);
        for command in [["status", "--color=never"], ["resources", "--color=never"]] {
            let shown = stack.user().postern(&command).await?;
            assert!(shown.contains("postern-netd"), "{shown}");
        }
        let mut stream = client::open(stack.user().listens("echo").await?).await?;
        bed.start_netd(&[]).await?;
        up(stack.user()).await?;
        let address = stack.user().resource_when("echo", |status| !is_loopback(status)).await?;
        assert_eq!(address.fallback, None);
        client::open(stack.user().listens("echo").await?).await?;
        client::ask(&mut stream, b"the stream at loopback goes on").await?;
        // netd restarts: the network comes back by itself.
        bed.stop_netd().await?;
        stack.user().status_when(|status| matches!(status.network, NetworkStatus::Unavailable { .. })).await?;
        bed.start_netd(&[]).await?;
        up(stack.user()).await?;
        client::open(stack.user().resource_address("echo").await?).await?;
        stack.stop().await
    })
}

fn is_loopback(status: &ResourceStatus) -> bool {
    matches!(status.connection, Connection::Listening { address } if address.ip().is_loopback())
}

#[test]
fn a_hundred_kills_leave_resolver_routes_and_rules_as_they_were() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |mut bed| {
        bed.start_stub().await?;
        bed.namespace.add_uplink().await?;
        let target = Target::start(Behaviour::Echo).await?;
        let mut stack = bed.stack().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let before = bed.namespace.snapshot().await?;
        enable(stack.user()).await?;
        for round in 0..100 {
            up(stack.user()).await.with_context(|| format!("round {round}"))?;
            if round % 10 == 0 {
                client::open(stack.user().listens("echo").await?).await?;
            }
            stack.user_mut().kill().await?;
            settles(&bed, &before).await.with_context(|| format!("after kill {round}"))?;
            stack.user_mut().restart().await?;
        }
        up(stack.user()).await?;
        stack.stop().await
    })
}

/// netd hears of the end of its asker at once; undoing takes it a moment.
async fn settles(bed: &NetworkBed, before: &postern_tests::namespace::Snapshot) -> anyhow::Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let now = bed.namespace.snapshot().await?.must_equal(before);
        if now.is_ok() || std::time::Instant::now() > deadline {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_product_that_has_our_addresses_moves_us_whichever_starts_first() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |bed| {
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        add_virtual(&stack, "both", Kind::Tcp, target.address(), json!({"mode": "both", "port": 8})).await?;
        let network = enable(stack.user()).await?;
        assert!(network.moved.is_none(), "{network:?}");
        let before = stack.user().listens("echo").await?;
        stack.user().postern(&["connect", "both"]).await?;
        let both = stack.user().resource_when("both", |status| status.also_at.is_some()).await?;
        let mut at_loopback = client::open(both.also_at.context("no loopback address")?).await?;
        // The other one starts second: it takes all of 100.64.0.0/10.
        start_tailscale(&bed).await?;
        let moved = |status: &postern_local_api::message::Status| matches!(&status.network, NetworkStatus::Up(up) if up.moved.is_some());
        let status = stack.user().status_when(moved).await?;
        let NetworkStatus::Up(network) = status.network else { anyhow::bail!("not up") };
        let why = network.moved.context("not moved")?.because.join(" ");
        assert!(why.contains("tailscale0") && why.contains("Tailscale"), "{why}");
        let after = stack
            .user()
            .resource_when(
                "echo",
                |status| matches!(status.connection, Connection::Listening { address } if address != before),
            )
            .await?;
        let Connection::Listening { address: after } = after.connection else { anyhow::bail!("nowhere") };
        let (std::net::IpAddr::V4(old), std::net::IpAddr::V4(new)) = (before.ip(), after.ip()) else {
            anyhow::bail!("IPv4")
        };
        assert_eq!(old.octets()[2..], new.octets()[2..], "host parts stay");
        client::open(after).await?;
        client::ask(&mut at_loopback, b"a stream elsewhere is untouched").await?;
        // The other one is there first.
        stack.user().postern(&["network", "disable"]).await?;
        let network = enable(stack.user()).await?;
        assert!(network.moved.is_some(), "{network:?}");
        client::open(stack.user().listens("echo").await?).await?;
        // It goes: the wish can be met again at the next start.
        bed.namespace.ip("link del tailscale0").await?;
        stack.user().postern(&["network", "disable"]).await?;
        let freed = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            if enable(stack.user()).await?.moved.is_none() {
                break;
            }
            anyhow::ensure!(tokio::time::Instant::now() < freed, "it stays away");
            stack.user().postern(&["network", "disable"]).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(stack.user().listens("echo").await?, before);
        stack.stop().await
    })
}

async fn start_tailscale(bed: &NetworkBed) -> anyhow::Result<()> {
    bed.namespace.ip("link add tailscale0 type veth peer name tailscale1").await?;
    bed.namespace.ip("addr add 100.101.102.103/32 dev tailscale0").await?;
    bed.namespace.ip("link set tailscale0 up").await?;
    bed.namespace.ip("route add 100.64.0.0/10 dev tailscale0 table 52").await?;
    Ok(())
}

#[test]
fn a_machine_without_ipv6_has_the_network_all_the_same() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |bed| {
        for what in ["all", "default"] {
            bed.namespace.set(&format!("net/ipv6/conf/{what}/disable_ipv6"), "1").await?;
        }
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let network = enable(stack.user()).await?;
        assert_eq!(network.ipv6, None);
        client::open(stack.user().listens("echo").await?).await?;
        stack.stop().await
    })
}
