//! netd as a service: what it undoes and when, whom it refuses, and what it is able to do at all.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "constants of the tests")]

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use postern_tests::{
    binaries::binaries,
    namespace::Snapshot,
    need_namespace, need_program, need_vnm_bed,
    polkit::{Polkit, Says},
    process::Process,
    resolver::Resolved,
    vnm::bed::{ANNA, BERT, Bed, CLAUS},
};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tun_driver::{
    interface::{InterfaceConfig, Zone},
    netd::{Client, ClientError, Code},
};

const GUEST: &str = env!("CARGO_BIN_EXE_vnm-guest");
const IPV6: &str = "fd12:3456:789a::/48";
/// How often each side is killed.
const KILLS: usize = 100;

fn wish() -> InterfaceConfig {
    InterfaceConfig {
        subnet: "100.72.0.0/16".parse().unwrap(),
        ipv6: Some(IPV6.parse().unwrap()),
        zones: vec![Zone::new("my-org").unwrap()],
        kept_out: vec![],
        queues: 1,
        mtu: 1500,
    }
}

async fn settle(bed: &Bed, before: &Snapshot) -> anyhow::Result<()> {
    let mut last = Ok(());
    for _ in 0..300 {
        last = bed.namespace.snapshot().await?.must_equal(before);
        if last.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    last
}

fn code_of<T>(answer: Result<T, ClientError>) -> anyhow::Result<Code> {
    match answer {
        Err(ClientError::Refused(problem)) => {
            anyhow::ensure!(problem.title.ends_with('.') && problem.remedy.ends_with('.'), "{problem}");
            Ok(problem.code)
        }
        Err(other) => Err(other.into()),
        Ok(_) => anyhow::bail!("was not refused"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_of_the_asker_leave_nothing_behind() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let before = bed.namespace.snapshot().await?;
    for round in 0..KILLS {
        let arguments = ["--ipv6", IPV6, "--zone", "my-org"];
        if round % 2 == 0 {
            bed.guest(ANNA, "anna", &arguments).await?.kill().await?;
        } else {
            // In the middle of it, a little later each time.
            let mut guest = bed.spawn_guest(ANNA, "anna", &arguments)?;
            tokio::time::sleep(Duration::from_micros(300 * round as u64)).await;
            guest.kill().await?;
        }
        settle(&bed, &before).await.with_context(|| format!("after {round} kills"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_of_netd_leave_nothing_behind_after_its_next_start() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let before = bed.namespace.snapshot().await?;
    for round in 0..KILLS {
        let arguments = ["--ipv6", IPV6, "--zone", "my-org"];
        let mut guest = if round % 2 == 0 {
            bed.guest(ANNA, "anna", &arguments).await?.process
        } else {
            let guest = bed.spawn_guest(ANNA, "anna", &arguments)?;
            tokio::time::sleep(Duration::from_micros(300 * round as u64)).await;
            guest
        };
        // It may outlive netd with its queues: every fourth time it does.
        let survivor = round % 4 == 0;
        if survivor {
            guest.freeze().await?;
        }
        bed.netd.kill().await?;
        if !survivor {
            guest.kill().await?;
        }
        bed.restart_netd().await?;
        bed.namespace.snapshot().await?.must_equal(&before).with_context(|| format!("after {round} kills"))?;
        if survivor {
            guest.kill().await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_takes_everything_back() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let before = bed.namespace.snapshot().await?;
    let _anna = bed.guest(ANNA, "anna", &["--ipv6", IPV6]).await?;
    let _bert = bed.guest(BERT, "bert", &["--ipv6", IPV6, "--subnet", "10.80.0.0/16"]).await?;
    let status = bed.netd.stop().await?;
    anyhow::ensure!(status.success(), "{status}\n{}", bed.netd.log_end());
    bed.namespace.snapshot().await?.must_equal(&before)?;
    assert!(!bed.socket().exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_ours_and_is_not_stays() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    bed.netd.stop().await?;
    // Our priorities without our mark, our mark elsewhere, a device with our name that we did not make.
    bed.namespace.ip("rule add priority 1000 to 100.72.0.0/16 lookup 77").await?;
    bed.namespace.ip("rule add priority 1999 to 100.99.0.0/16 unreachable").await?;
    bed.namespace.ip("rule add priority 5000 to 100.98.0.0/16 lookup 78 protocol 80").await?;
    bed.namespace.ip("tuntap add dev postern7 mode tun").await?;
    let before = bed.namespace.snapshot().await?;
    bed.restart_netd().await?;
    bed.namespace.snapshot().await?.must_equal(&before)?;
    let anna = bed.guest(ANNA, "anna", &["--subnet", "10.80.0.0/16"]).await?;
    assert_ne!(anna.field("name")?, "postern7");
    anna.kill().await?;
    settle(&bed, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_netd_refuses_to_start_and_touches_nothing() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let _anna = bed.guest(ANNA, "anna", &[]).await?;
    let before = bed.namespace.snapshot().await?;
    let mut second = bed.second_netd()?;
    let status = second.wait(Duration::from_secs(30)).await?;
    second.settle();
    assert!(!status.success());
    assert!(second.log().contains("there can be only one"), "{}", second.log());
    bed.namespace.snapshot().await?.must_equal(&before)?;
    assert!(bed.socket().exists() && bed.netd.is_running());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_again_changes_only_what_differs() -> anyhow::Result<()> {
    need_vnm_bed!();
    let bed = Bed::start(GUEST, &[]).await?;
    let before = bed.namespace.snapshot().await?;
    let mut client = Client::connect(&bed.socket()).await?;
    let first = client.configure(&wish()).await?;
    assert_eq!(first.queues.len(), 1);
    let set_up = bed.namespace.snapshot().await?;

    let again = client.configure(&wish()).await?;
    assert!(again.queues.is_empty());
    assert_eq!(again.interface, first.interface);
    bed.namespace.snapshot().await?.must_equal(&set_up)?;

    // Another subnet, another MTU, no IPv6: the device stays, and keeps its old address for the streams of before.
    let moved = InterfaceConfig { subnet: "10.80.0.0/16".parse()?, ipv6: None, mtu: 9000, ..wish() };
    let answer = client.configure(&moved).await?;
    assert!(answer.queues.is_empty());
    assert_eq!((answer.interface.index, answer.interface.mtu), (first.interface.index, 9000));
    assert_eq!(answer.interface.addresses.device.to_string(), "10.80.0.1");
    assert!(answer.interface.ipv6.is_none());
    let shown = bed.namespace.ip("-j address").await?;
    assert!(shown.contains("10.80.0.1") && shown.contains("100.72.0.1") && !shown.contains("fd12:"), "{shown}");
    let rules = bed.namespace.ip("rule").await? + &bed.namespace.ip("-6 rule").await?;
    assert!(rules.contains("10.80.0.0/16") && !rules.contains("fd12:"), "{rules}");
    let mut old = rules.lines().filter(|rule| rule.contains("100.72."));
    assert!(old.all(|rule| rule.contains("from 100.72.0.1 to 100.72.0.0/16")), "nothing begins there: {rules}");

    // And on: only the last network is remembered.
    let further = InterfaceConfig { subnet: "10.81.0.0/16".parse()?, ..moved };
    client.configure(&further).await?;
    let shown = bed.namespace.ip("-j address").await? + &bed.namespace.ip("rule").await?;
    assert!(shown.contains("10.81.0.1") && shown.contains("10.80.0.1") && !shown.contains("100.72."), "{shown}");

    // Another number of queues needs another device.
    let wider = client.configure(&InterfaceConfig { queues: 3, ..wish() }).await?;
    assert_eq!(wider.queues.len(), 3);
    assert_ne!(wider.interface.index, first.interface.index);

    client.release().await?;
    bed.namespace.snapshot().await?.must_equal(&before)?;
    assert_eq!(client.configure(&wish()).await?.queues.len(), 1);
    drop(client);
    settle(&bed, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_that_is_switched_off_is_told_once_and_keeps_nothing_else_from_being_put_back() -> anyhow::Result<()> {
    need_vnm_bed!();
    let bed = Bed::start(GUEST, &[]).await?;
    let mut client = Client::connect(&bed.socket()).await?;
    let configured = client.configure(&wish()).await?;
    let name = &configured.interface.name;
    let set_up = bed.namespace.snapshot().await?;
    let setting = format!("net/ipv6/conf/{name}/disable_ipv6");
    bed.namespace.set(&setting, "1").await?;
    for _ in 0..2 {
        // Its IPv4 route goes with its address, and has to come back.
        bed.namespace.ip(&format!("addr del 100.72.0.1/32 dev {name}")).await?;
        ipv4_comes_back(&bed, name).await?;
    }
    let log = bed.netd.log();
    assert!(!log.contains("cannot repair"), "{log}");
    assert_eq!(log.matches("IPv6 is switched off").count(), 1, "{log}");
    // Who asks again, as posternd does, gets what there is.
    bed.namespace.set(&setting, "0").await?;
    settle(&bed, &set_up).await?;
    bed.namespace.set(&setting, "1").await?;
    assert_eq!(client.configure(&wish()).await?.interface.ipv6, None);
    Ok(())
}

async fn ipv4_comes_back(bed: &Bed, name: &str) -> anyhow::Result<()> {
    for _ in 0..300 {
        let routes = bed.namespace.ip(&format!("route show table all dev {name}")).await?;
        if routes.contains("100.72.0.0/16") && routes.contains("100.72.0.2") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("no routes: {}", bed.netd.log_end())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_started_anew_follows_the_one_before() -> anyhow::Result<()> {
    need_vnm_bed!();
    let bed = Bed::start(GUEST, &[]).await?;
    let mut first = Client::connect(&bed.socket()).await?;
    first.configure(&wish()).await?;
    let mut second = Client::connect(&bed.socket()).await?;
    let same = wish();
    let handed_over = tokio::join!(second.configure(&same), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(first);
    });
    let kept = handed_over.0?;
    assert_eq!(kept.queues.len(), 1);
    // One that stays is not pushed aside.
    let mut third = Client::connect(&bed.socket()).await?;
    assert_eq!(code_of(third.configure(&wish()).await)?, Code::AlreadyInUse);
    assert!(second.configure(&wish()).await?.queues.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_the_machine_has_is_refused_with_the_name_of_its_holder() -> anyhow::Result<()> {
    need_vnm_bed!();
    let bed = Bed::start(GUEST, &[]).await?;
    bed.namespace.ip("link add tailscale0 type veth peer name ts1").await?;
    bed.namespace.ip("addr add 100.101.1.1/32 dev tailscale0").await?;
    bed.namespace.ip("link set tailscale0 up").await?;
    let before = bed.namespace.snapshot().await?;
    let mut client = Client::connect(&bed.socket()).await?;
    for (subnet, holder) in [("100.101.0.0/16", "tailscale0"), ("10.9.0.0/16", "up0")] {
        let asked = client.configure(&InterfaceConfig { subnet: subnet.parse()?, ..wish() }).await;
        let Err(ClientError::Refused(problem)) = asked else { anyhow::bail!("{subnet} was not refused") };
        assert_eq!(problem.code, Code::SubnetConflict);
        assert!(problem.conflicts.iter().any(|conflict| conflict.interface == holder), "{problem:?}");
    }
    bed.namespace.snapshot().await?.must_equal(&before)?;
    let free = InterfaceConfig { subnet: "10.80.0.0/16".parse()?, ..wish() };
    client.configure(&free).await?;
    // What comes up later is no reason to refuse a new zone.
    bed.namespace.ip("addr add 10.80.9.9/24 dev ts1").await?;
    let more = InterfaceConfig { zones: vec![Zone::new("my-org")?, Zone::new("more")?], ..free };
    client.configure(&more).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_may_have_is_refused() -> anyhow::Result<()> {
    need_vnm_bed!();
    let bed = Bed::start(GUEST, &[]).await?;
    let before = bed.namespace.snapshot().await?;
    let mut client = Client::connect(&bed.socket()).await?;
    let zones = |name: &str| anyhow::Ok(vec![Zone::new(name)?]);
    let kept_out = zones("control.example.org")?;
    let cases = [
        (InterfaceConfig { subnet: "8.8.8.0/24".parse()?, ..wish() }, Code::RangeForbidden),
        (InterfaceConfig { subnet: "127.0.0.0/8".parse()?, ..wish() }, Code::RangeForbidden),
        (InterfaceConfig { ipv6: Some("2001:db8::/48".parse()?), ..wish() }, Code::RangeForbidden),
        (InterfaceConfig { zones: zones("co.uk")?, ..wish() }, Code::ZoneForbidden),
        (InterfaceConfig { zones: zones("com")?, ..wish() }, Code::ZoneForbidden),
        (InterfaceConfig { zones: zones("example.org")?, kept_out, ..wish() }, Code::ZoneForbidden),
        (InterfaceConfig { queues: 0, ..wish() }, Code::OutOfBounds),
        (InterfaceConfig { mtu: 70_000, ..wish() }, Code::OutOfBounds),
        (InterfaceConfig { subnet: "10.0.0.0/30".parse()?, ..wish() }, Code::OutOfBounds),
    ];
    for (wish, code) in cases {
        assert_eq!(code_of(client.configure(&wish).await)?, code, "{wish:?}");
    }
    bed.namespace.snapshot().await?.must_equal(&before)?;
    // The connection is as good as before.
    client.configure(&wish()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_named_may_not_ask() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let before = bed.namespace.snapshot().await?;
    let mut guest = bed.spawn_guest(CLAUS, "claus", &[])?;
    let status = guest.wait(Duration::from_secs(30)).await?;
    guest.settle();
    assert!(!status.success());
    let log = guest.log();
    assert!(log.contains("20003 may not set up a virtual network") && log.contains("allow_uids = [20003]"), "{log}");
    bed.namespace.snapshot().await?.must_equal(&before)
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_polkit_allows_may_ask_and_nobody_else() -> anyhow::Result<()> {
    need_vnm_bed!();
    let namespace = postern_tests::namespace::Namespace::new().await?;
    namespace.add_uplink().await?;
    let mut polkit = match Polkit::start(&namespace, Says::Yes).await? {
        Ok(polkit) => polkit,
        Err(reason) => {
            postern_tests::skip::skip(&postern_tests::skip::test_name(), &reason);
            return Ok(());
        }
    };
    let mut bed = Bed::start_with(namespace, GUEST, &format!("allow_uids = [{ANNA}]\n"), &[]).await?;
    let before = bed.namespace.snapshot().await?;
    let anna = bed.guest(ANNA, "anna", &[]).await?;
    assert_eq!(polkit.take_asked(), [], "the administrator has named her");
    anna.kill().await?;

    let claus = bed.guest(CLAUS, "claus", &[]).await?;
    let asked = polkit.take_asked();
    let [question] = &asked[..] else { anyhow::bail!("{asked:?}") };
    assert_eq!((question.subject.as_str(), question.action.as_str()), ("unix-process", "org.postern.netd.configure"));
    assert_eq!((question.pid, question.uid), (claus.process.id(), i32::try_from(CLAUS)?));
    assert_eq!(question.flags, 0, "nobody is asked for a password");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", claus.process.id()))?;
    let started =
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).context("no start time")?;
    assert_eq!(question.start_time, started.parse::<u64>()?, "another process with this number is not meant");
    claus.kill().await?;
    settle(&bed, &before).await?;

    for (says, told) in [(Says::No, "active session"), (Says::Nothing, "does not answer")] {
        polkit.say(says);
        refuses(&mut bed, told).await?;
        assert_eq!(polkit.take_asked().len(), 1);
    }
    polkit.kill().await?;
    refuses(&mut bed, "could not be asked").await?;
    bed.namespace.snapshot().await?.must_equal(&before)
}

/// Claus gets no network, and is told why and what to do.
async fn refuses(bed: &mut Bed, told: &str) -> anyhow::Result<()> {
    let mut guest = bed.spawn_guest(CLAUS, "claus", &[])?;
    let status = guest.wait(Duration::from_secs(60)).await?;
    guest.settle();
    let log = guest.log();
    anyhow::ensure!(!status.success() && log.contains(told), "{status}: {log}");
    anyhow::ensure!(log.contains("20003 may not set up") && log.contains("allow_uids = [20003]"), "{log}");
    Ok(())
}

/// A connection that speaks the protocol by hand. Root, which may do everything.
struct Raw(Socket);

impl Raw {
    fn connect(bed: &Bed) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.connect(&SockAddr::unix(bed.socket())?)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self(socket))
    }

    fn hello(bed: &Bed) -> anyhow::Result<Self> {
        let raw = Self::connect(bed)?;
        let answer = raw.ask(br#"{"id":1,"body":{"request":"hello","protocol":1}}"#)?;
        anyhow::ensure!(answer.pointer("/body/answer") == Some(&json!("hello")), "{answer}");
        Ok(raw)
    }

    fn ask(&self, bytes: &[u8]) -> anyhow::Result<Value> {
        self.0.send(bytes)?;
        self.read()?.context("the connection was closed")
    }

    fn read(&self) -> anyhow::Result<Option<Value>> {
        let mut buffer = vec![0; 200_000];
        let count = std::io::Read::read(&mut &self.0, &mut buffer)?;
        buffer.truncate(count);
        Ok(if count == 0 { None } else { Some(serde_json::from_slice(&buffer)?) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_none_end_the_connection_and_nothing_else() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let before = bed.namespace.snapshot().await?;
    let deep = "[".repeat(100_000);
    let long = " ".repeat(tun_driver::netd::MAX_MESSAGE + 1);
    let injected = r#"{"id":2,"body":{"request":"configure","interface":{"subnet":"100.72.0.0/16","zones":["my-org\nnameserver 192.0.2.1"],"queues":1,"mtu":1500}}}"#;
    for bytes in ["nonsense", "{}", "\0", deep.as_str(), long.as_str(), injected] {
        for raw in [Raw::connect(&bed)?, Raw::hello(&bed)?] {
            let answer = raw.ask(bytes.as_bytes())?;
            assert_eq!(answer.pointer("/body/problem/code"), Some(&json!("bad_request")), "{answer}");
            assert!(raw.read()?.is_none(), "the connection is closed");
        }
    }
    // A request before the hello, another version, an end in the middle.
    let answer = Raw::connect(&bed)?.ask(br#"{"id":1,"body":{"request":"release"}}"#)?;
    assert_eq!(answer.pointer("/body/problem/code"), Some(&json!("bad_request")));
    let answer = Raw::connect(&bed)?.ask(br#"{"id":1,"body":{"request":"hello","protocol":99}}"#)?;
    assert_eq!(answer.pointer("/body/problem/code"), Some(&json!("wrong_protocol")));
    assert!(answer.to_string().contains("99"), "{answer}");
    drop(Raw::connect(&bed)?);
    bed.namespace.snapshot().await?.must_equal(&before)?;
    assert!(bed.netd.is_running());
    Client::connect(&bed.socket()).await?.configure(&wish()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_let_go_and_who_comes_often_is_held_back() -> anyhow::Result<()> {
    need_vnm_bed!();
    let bed = Bed::start(GUEST, &[]).await?;
    let silent: Vec<Raw> = (0..8).map(|_| Raw::connect(&bed)).collect::<anyhow::Result<_>>()?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ninth = Raw::connect(&bed)?.read()?.context("closed without a word")?;
    assert_eq!(ninth.pointer("/body/problem/code"), Some(&json!("too_many_clients")), "{ninth}");
    for raw in &silent {
        assert!(raw.read()?.is_none(), "closed for saying nothing");
    }
    Raw::hello(&bed)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn netd_can_do_no_more_than_it_must() -> anyhow::Result<()> {
    need_namespace!();
    let bed = Bed::start(GUEST, &[]).await?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", bed.netd.id()))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // CAP_NET_ADMIN is number 12.
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(set), Some("0000000000001000"), "{set}");
    }
    assert_eq!(field("CapInh:"), Some("0000000000000000"));
    assert_eq!(field("CapAmb:"), Some("0000000000000000"));
    assert_eq!(field("NoNewPrivs:"), Some("1"));
    assert_eq!(field("Seccomp:"), Some("2"), "a filter of system calls");
    Ok(())
}

/// The whole way with the powers that are left: what the resolver is told, and that it is taken back.
async fn zones_come_and_go(bed: &mut Bed, backend: &str) -> anyhow::Result<()> {
    let before = bed.namespace.snapshot().await?;
    let anna = bed.guest(ANNA, "anna", &["--zone", "my-org"]).await?;
    let expected = json!({"state": "registered", "backend": backend});
    assert_eq!(anna.interface.get("dns"), Some(&expected), "{}", bed.netd.log_end());
    anna.kill().await?;
    settle(bed, &before).await?;
    // And after a crash of netd.
    let mut anna = bed.guest(ANNA, "anna", &["--zone", "my-org"]).await?;
    bed.netd.kill().await?;
    anna.process.kill().await?;
    bed.restart_netd().await?;
    bed.namespace.snapshot().await?.must_equal(&before)
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_are_registered_with_resolved_and_taken_back() -> anyhow::Result<()> {
    need_vnm_bed!();
    let namespace = postern_tests::namespace::Namespace::new().await?;
    namespace.add_uplink().await?;
    let mut resolved = match Resolved::start(&namespace, "10.9.0.1".parse()?).await? {
        Ok(resolved) => resolved,
        Err(reason) => {
            postern_tests::skip::skip(&postern_tests::skip::test_name(), &reason);
            return Ok(());
        }
    };
    let mut bed = Bed::start_in(namespace, GUEST, &[]).await?;
    zones_come_and_go(&mut bed, "resolved").await?;
    resolved.settle();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_are_registered_with_the_stub_and_resolv_conf_comes_back() -> anyhow::Result<()> {
    need_vnm_bed!();
    let namespace = postern_tests::namespace::Namespace::new().await?;
    namespace.add_uplink().await?;
    let mut command = namespace.command(binaries()?.dns_stub());
    let mut stub = Process::spawn("stub", &mut command, namespace.folder())?;
    stub.ready().await?;
    let mut bed = Bed::start_in(namespace, GUEST, &[]).await?;
    zones_come_and_go(&mut bed, "resolv_conf").await?;
    stub.settle();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unit_file_leaves_little_to_attack() -> anyhow::Result<()> {
    let analyze = need_program!("systemd-analyze");
    let unit = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd/postern-netd.service"));
    let mut command = tokio::process::Command::new(analyze);
    command.args(["security", "--offline=true", "--threshold=30", "--no-pager"]).arg(&unit);
    let output = postern_tests::command::run(&mut command, postern_tests::command::PATIENCE).await?;
    if output.stderr.contains("offline") && !output.status.success() && output.stdout.is_empty() {
        postern_tests::skip::skip(&postern_tests::skip::test_name(), "systemd-analyze is too old for --offline");
        return Ok(());
    }
    assert!(output.stdout.contains("Overall exposure level"), "{}\n{}", output.stdout, output.stderr);
    anyhow::ensure!(output.status.success(), "above 3.0:\n{}", output.stdout);
    Ok(())
}
