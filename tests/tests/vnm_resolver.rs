//! The names of virtual networks in the system's resolver, in networks of the tests' own: with systemd-resolved and
//! without it. `the_registering_process` stands for netd: it is started as a program inside the namespace.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use postern_tests::{
    binaries::binaries,
    namespace::Namespace,
    need_namespace,
    process::Process,
    resolver::{DnsServer, Resolved, ask},
    skip,
};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use tun_driver::{
    dns::{DnsBackend, DnsState, LinkNames, SplitDns as _, SystemDns, SystemDnsConfig},
    interface::Zone,
};

/// Tells the registering process its folder; without it that test does nothing.
const FOLDER: &str = "POSTERN_TEST_REGISTER";
/// What a virtual network answers, and what everybody else does.
const OURS: Ipv4Addr = Ipv4Addr::new(100, 72, 0, 9);
const THEIRS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(100, 72, 0, 2);
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
const RESOLVED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 72, 53));
const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test of its own: registers, keeps writing down how that stands, and ends at SIGTERM.
#[tokio::test]
async fn the_registering_process() -> anyhow::Result<()> {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return Ok(()) };
    let index = fs::read_to_string(folder.join("index"))?.trim().parse()?;
    let zones = fs::read_to_string(folder.join("zones"))?;
    let names = LinkNames {
        index,
        name: "postern0".to_owned(),
        resolvers: vec![RESOLVER.into()],
        zones: zones.split_ascii_whitespace().map(Zone::new).collect::<Result<_, _>>()?,
    };
    let backup = folder.join("backup");
    let dns = SystemDns::new(SystemDnsConfig { backup, ..SystemDnsConfig::default() });
    dns.restore().await?;
    if let Err(error) = dns.register(&names).await {
        fs::write(folder.join("error"), error.to_string())?;
    }
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let status = dns.status().await;
        let text = format!("{}\n{}", serde_json::to_string(&status.state)?, status.detail.join("\n"));
        fs::write(folder.join("new"), text)?;
        fs::rename(folder.join("new"), folder.join("status"))?;
        tokio::select! {
            _ = stop.recv() => break,
            () = sleep(Duration::from_millis(50)) => {}
        }
    }
    dns.revert(index).await?;
    Ok(())
}

/// A network with a device of ours, a server that answers on it, and another that answers for the rest of the world.
struct Bed {
    namespace: Namespace,
    ours: DnsServer,
    theirs: DnsServer,
    registrations: u32,
}

impl Bed {
    async fn new() -> anyhow::Result<Self> {
        let namespace = Namespace::new().await?;
        namespace.ip("link add postern0 type veth peer name other0").await?;
        for link in ["postern0", "other0"] {
            // An address of its own would come some time later, into a snapshot or not. Without IPv6 there is none.
            let _ = namespace.ip(&format!("link set {link} addrgenmode none")).await;
        }
        namespace.ip("link set other0 up").await?;
        namespace.ip("addr add 100.72.0.1/32 dev postern0").await?;
        namespace.ip(&format!("addr add {RESOLVER}/32 dev postern0")).await?;
        namespace.ip("link set postern0 up").await?;
        namespace.ip(&format!("addr add {UPSTREAM}/32 dev lo")).await?;
        let ours = DnsServer::start(&namespace, (RESOLVER, 53).into(), OURS).await?;
        let theirs = DnsServer::start(&namespace, (UPSTREAM, 53).into(), THEIRS).await?;
        let bed = Self { namespace, ours, theirs, registrations: 0 };
        let links: serde_json::Value = serde_json::from_str(&bed.namespace.ip("-j link show dev postern0").await?)?;
        let index = links.pointer("/0/ifindex").and_then(serde_json::Value::as_u64).context("no number")?;
        fs::write(bed.file("index"), index.to_string())?;
        fs::write(bed.file("zones"), "my-org db.real.example")?;
        Ok(bed)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.namespace.folder().join(name)
    }

    fn resolv_conf(&self) -> PathBuf {
        self.namespace.path("/etc/resolv.conf")
    }

    fn register(&mut self) -> anyhow::Result<Process> {
        self.registrations += 1;
        let _ = fs::remove_file(self.file("status"));
        let mut command = self.namespace.command(std::env::current_exe()?);
        command.args(["--exact", "the_registering_process", "--nocapture"]).env(FOLDER, self.namespace.folder());
        command.env_remove("NEXTEST").env("RUST_BACKTRACE", "0");
        Process::spawn(&format!("register{}", self.registrations), &mut command, self.namespace.folder())
    }

    fn status(&self) -> Option<(DnsState, String)> {
        let text = fs::read_to_string(self.file("status")).ok()?;
        let (state, detail) = text.split_once('\n')?;
        Some((serde_json::from_str(state).ok()?, detail.to_owned()))
    }

    async fn wait_for(&self, what: &str, mut done: impl FnMut(&DnsState, &str) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.status().is_some_and(|(state, detail)| done(&state, &detail)) {
            let error = fs::read_to_string(self.file("error")).unwrap_or_default();
            anyhow::ensure!(Instant::now() < deadline, "{what}: {:?} {error}", self.status());
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn wait_for_backend(&self, backend: DnsBackend) -> anyhow::Result<()> {
        self.wait_for("not registered", |state, _| *state == DnsState::Registered { backend }).await
    }

    /// Names of ours are answered by us, all others by the other server, and neither hears of the other's.
    async fn must_be_split(&self, server: IpAddr) -> anyhow::Result<()> {
        self.ours.forget();
        self.theirs.forget();
        for (name, answer) in [
            ("db.my-org", OURS),
            ("www.other.example", THEIRS),
            ("db.real.example", OURS),
            ("real.example", THEIRS),
            ("my-org.example", THEIRS),
        ] {
            assert_eq!(ask(&self.namespace, server, name).await?, Some(answer), "{name}");
        }
        assert_eq!(self.ours.asked().into_keys().collect::<Vec<_>>(), ["db.my-org", "db.real.example"]);
        let others = ["my-org.example", "real.example", "www.other.example"];
        assert_eq!(self.theirs.asked().into_keys().collect::<Vec<_>>(), others);
        Ok(())
    }

    /// What any program gets.
    async fn look_up(&self, name: &str) -> anyhow::Result<String> {
        let found = self.namespace.run("getent", &["ahostsv4", name]).await?;
        Ok(found.split_ascii_whitespace().next().unwrap_or_default().to_owned())
    }

    async fn start_stub(&self) -> anyhow::Result<Process> {
        let mut command = self.namespace.command(binaries()?.dns_stub());
        let mut stub = Process::spawn("stub", &mut command, self.namespace.folder())?;
        stub.ready().await?;
        Ok(stub)
    }
}

async fn end(mut process: Process) -> anyhow::Result<()> {
    process.signal(Signal::TERM)?;
    let status = process.wait(PATIENCE).await?;
    anyhow::ensure!(status.success(), "{status}\n{}\n{}", process.output(), process.log_end());
    process.settle();
    Ok(())
}

/// resolved in the namespace, or leaves the test.
macro_rules! need_resolved {
    ($bed:expr) => {
        match Resolved::start(&$bed.namespace, UPSTREAM.into()).await? {
            Ok(resolved) => resolved,
            Err(reason) => {
                skip::skip(&skip::test_name(), &reason);
                return Ok(());
            }
        }
    };
}

#[tokio::test]
async fn resolved_asks_us_for_our_zones_only() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    let mut resolved = need_resolved!(bed);
    let before = bed.namespace.snapshot().await?;
    assert_eq!(ask(&bed.namespace, RESOLVED, "db.my-org").await?, Some(THEIRS), "nobody has registered yet");
    let process = bed.register()?;
    bed.wait_for_backend(DnsBackend::Resolved).await?;
    bed.must_be_split(RESOLVED).await?;
    assert_eq!(bed.look_up("db.my-org").await?, OURS.to_string());
    assert_eq!(bed.look_up("www.other.example").await?, THEIRS.to_string());
    let (_, detail) = bed.status().context("a status")?;
    assert_eq!(detail, "systemd-resolved asks 100.72.0.2 for ~my-org ~db.real.example on postern0");
    bed.namespace.snapshot().await?.must_equal(&before)?;

    end(process).await?;
    bed.ours.forget();
    assert_eq!(ask(&bed.namespace, RESOLVED, "db.my-org").await?, Some(THEIRS));
    assert!(bed.ours.asked().is_empty(), "taken back");
    resolved.settle();
    Ok(())
}

#[tokio::test]
async fn a_restarted_resolved_is_told_again() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    let mut resolved = need_resolved!(bed);
    let process = bed.register()?;
    bed.wait_for_backend(DnsBackend::Resolved).await?;
    for _ in 0..3 {
        resolved.stop().await?;
        bed.wait_for("resolved is away", |state, _| matches!(state, DnsState::Unavailable { .. })).await?;
        resolved.restart(&bed.namespace).await?;
        let told =
            |state: &DnsState, detail: &str| matches!(state, DnsState::Registered { .. }) && detail.contains("~my-org");
        bed.wait_for("told again", told).await?;
        bed.must_be_split(RESOLVED).await?;
    }
    end(process).await?;
    resolved.settle();
    Ok(())
}

#[tokio::test]
async fn resolved_forgets_us_when_we_are_killed_and_the_device_goes() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    // Without any other network resolved would ask nobody at all.
    bed.namespace.add_uplink().await?;
    let mut resolved = need_resolved!(bed);
    let before = fs::read_link(bed.resolv_conf())?;
    let mut process = bed.register()?;
    bed.wait_for_backend(DnsBackend::Resolved).await?;
    process.kill().await?;
    bed.namespace.ip("link del postern0").await?;
    assert_eq!(fs::read_link(bed.resolv_conf())?, before);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(&bed.namespace, RESOLVED, "db.my-org").await?;
        if answer == Some(THEIRS) {
            break;
        }
        anyhow::ensure!(Instant::now() < deadline, "resolved still asks on a device that is gone: {answer:?}");
    }
    resolved.settle();
    Ok(())
}

#[tokio::test]
async fn without_resolved_a_stub_splits_and_resolv_conf_comes_back() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    fs::write(
        bed.resolv_conf(),
        format!("# by hand\nsearch corp.example\nnameserver {UPSTREAM}\noptions timeout:3\n"),
    )?;
    let before = bed.namespace.snapshot().await?;
    let stub = bed.start_stub().await?;
    let process = bed.register()?;
    bed.wait_for_backend(DnsBackend::ResolvConf).await?;
    let text = fs::read_to_string(bed.resolv_conf())?;
    assert!(text.ends_with("nameserver 127.0.72.53\n# by hand\nsearch corp.example\noptions timeout:3\n"), "{text}");
    bed.must_be_split(STUB).await?;
    assert_eq!(bed.look_up("db.my-org").await?, OURS.to_string());
    assert_eq!(bed.look_up("www.other.example").await?, THEIRS.to_string());
    let (_, detail) = bed.status().context("a status")?;
    assert!(detail.contains("/etc/resolv.conf names 127.0.72.53; other names are asked at 192.0.2.53:53"), "{detail}");
    end(process).await?;
    bed.namespace.snapshot().await?.must_equal(&before)?;
    end(stub).await
}

#[tokio::test]
async fn the_stub_runs_as_nobody_with_one_right() -> anyhow::Result<()> {
    need_namespace!();
    let bed = Bed::new().await?;
    let stub = bed.start_stub().await?;
    let status = fs::read_to_string(format!("/proc/{}/status", stub.id()))?;
    for line in ["Uid:\t65534\t65534\t65534\t65534", "Groups:\t \n", "CapEff:\t0000000000000400", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line:?} in {status}");
    }
    end(stub).await
}

#[tokio::test]
async fn killed_at_any_moment_it_leaves_names_working_and_recovery_brings_every_byte_back() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    fs::write(bed.resolv_conf(), format!("nameserver {UPSTREAM}\n# no final line end"))?;
    let before = bed.namespace.snapshot().await?;
    let stub = bed.start_stub().await?;
    for round in 0..10_u64 {
        let mut process = bed.register()?;
        if round % 2 == 0 {
            bed.wait_for_backend(DnsBackend::ResolvConf).await?;
        } else {
            // Somewhere in its start.
            sleep(Duration::from_millis(round * 11)).await;
        }
        process.kill().await?;
        assert_eq!(bed.look_up("www.other.example").await?, THEIRS.to_string(), "DNS works without netd");
    }
    let process = bed.register()?;
    bed.wait_for_backend(DnsBackend::ResolvConf).await?;
    end(process).await?;
    bed.namespace.snapshot().await?.must_equal(&before)?;
    end(stub).await
}

#[tokio::test]
async fn what_others_write_meanwhile_is_followed_and_stays() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    bed.namespace.ip("addr add 192.0.2.54/32 dev lo").await?;
    let other = DnsServer::start(&bed.namespace, "192.0.2.54:53".parse()?, Ipv4Addr::new(198, 51, 100, 8)).await?;
    let stub = bed.start_stub().await?;
    let process = bed.register()?;
    bed.wait_for_backend(DnsBackend::ResolvConf).await?;
    // A DHCP client: another network.
    let theirs = "# dhcp\nnameserver 192.0.2.54\n";
    fs::write(bed.resolv_conf(), theirs)?;
    bed.wait_for("the new server is taken up", |state, detail| {
        matches!(state, DnsState::Registered { .. }) && detail.contains("192.0.2.54:53")
    })
    .await?;
    assert_eq!(bed.look_up("www.other.example").await?, "198.51.100.8");
    assert_eq!(bed.look_up("db.my-org").await?, OURS.to_string());
    assert!(!other.asked().is_empty());
    end(process).await?;
    assert_eq!(fs::read_to_string(bed.resolv_conf())?, theirs);
    end(stub).await
}

/// netd's answer tells how names stood when it registered; what it does and undoes follows how they stand.
#[tokio::test]
async fn who_answers_names_may_change_after_the_registration_and_each_way_is_undone() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    let stub = bed.start_stub().await?;
    let mut resolved = need_resolved!(bed);
    let link = fs::read_link(bed.resolv_conf())?;
    let by_hand = format!("# by hand\nnameserver {UPSTREAM}\n# no final line end");
    for ends_with_resolved in [true, false] {
        let process = bed.register()?;
        bed.wait_for_backend(DnsBackend::Resolved).await?;
        // An administrator leaves resolved.
        resolved.stop().await?;
        fs::remove_file(bed.resolv_conf())?;
        fs::write(bed.resolv_conf(), &by_hand)?;
        bed.wait_for_backend(DnsBackend::ResolvConf).await?;
        bed.must_be_split(STUB).await?;
        if ends_with_resolved {
            // And comes back to it, over our file.
            resolved.restart(&bed.namespace).await?;
            fs::remove_file(bed.resolv_conf())?;
            std::os::unix::fs::symlink(&link, bed.resolv_conf())?;
            bed.wait_for_backend(DnsBackend::Resolved).await?;
            bed.must_be_split(RESOLVED).await?;
        }
        end(process).await?;
        assert!(!bed.file("backup").exists(), "nothing is left to be undone");
        if ends_with_resolved {
            assert_eq!(fs::read_link(bed.resolv_conf())?, link);
            bed.ours.forget();
            assert_eq!(ask(&bed.namespace, RESOLVED, "db.my-org").await?, Some(THEIRS));
            assert!(bed.ours.asked().is_empty(), "taken back from resolved too");
        } else {
            assert_eq!(fs::read_to_string(bed.resolv_conf())?, by_hand);
        }
    }
    resolved.settle();
    end(stub).await
}

#[tokio::test]
async fn whoever_keeps_writing_resolv_conf_wins_and_the_user_learns_it() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    let stub = bed.start_stub().await?;
    let process = bed.register()?;
    bed.wait_for_backend(DnsBackend::ResolvConf).await?;
    let theirs = format!("nameserver {UPSTREAM}\n");
    let deadline = Instant::now() + PATIENCE;
    while !bed.status().is_some_and(|(state, _)| matches!(state, DnsState::Unavailable { .. })) {
        anyhow::ensure!(Instant::now() < deadline, "it fights on");
        fs::write(bed.resolv_conf(), &theirs)?;
        sleep(Duration::from_millis(300)).await;
    }
    let (state, _) = bed.status().context("a status")?;
    let DnsState::Unavailable { reason } = state else { anyhow::bail!("{state:?}") };
    assert!(reason.contains("another program keeps writing /etc/resolv.conf"), "{reason}");
    assert_eq!(fs::read_to_string(bed.resolv_conf())?, theirs);
    end(process).await?;
    assert_eq!(fs::read_to_string(bed.resolv_conf())?, theirs);
    end(stub).await
}

#[tokio::test]
async fn when_the_stub_dies_resolv_conf_comes_back_at_once() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    let before = bed.namespace.snapshot().await?;
    let mut stub = bed.start_stub().await?;
    let process = bed.register()?;
    bed.wait_for_backend(DnsBackend::ResolvConf).await?;
    stub.kill().await?;
    bed.wait_for(
        "said aloud",
        |state, _| matches!(state, DnsState::Unavailable { reason } if reason.contains("postern-dns-stub")),
    )
    .await?;
    bed.namespace.snapshot().await?.must_equal(&before)?;
    assert_eq!(bed.look_up("www.other.example").await?, THEIRS.to_string());
    end(process).await
}

#[tokio::test]
async fn without_resolved_and_without_a_stub_nothing_is_touched() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    let before = bed.namespace.snapshot().await?;
    let process = bed.register()?;
    bed.wait_for("said aloud", |state, _| matches!(state, DnsState::Unavailable { .. })).await?;
    bed.namespace.snapshot().await?.must_equal(&before)?;
    end(process).await
}

#[tokio::test]
async fn a_link_of_nobody_we_know_is_left_alone() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    fs::rename(bed.resolv_conf(), bed.namespace.path("/etc/resolv.conf.mine"))?;
    std::os::unix::fs::symlink("resolv.conf.mine", bed.resolv_conf())?;
    let before = bed.namespace.snapshot().await?;
    let stub = bed.start_stub().await?;
    let process = bed.register()?;
    let said = |state: &DnsState, _: &str| matches!(state, DnsState::Unavailable { reason } if reason.contains("is a link to resolv.conf.mine"));
    bed.wait_for("said aloud", said).await?;
    bed.namespace.snapshot().await?.must_equal(&before)?;
    end(process).await?;
    end(stub).await
}

#[tokio::test]
async fn with_ipv6_off_names_work_all_the_same() -> anyhow::Result<()> {
    need_namespace!();
    let mut bed = Bed::new().await?;
    for scope in ["all", "default", "lo"] {
        bed.namespace.set(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1").await?;
    }
    let stub = bed.start_stub().await?;
    let process = bed.register()?;
    bed.wait_for_backend(DnsBackend::ResolvConf).await?;
    bed.must_be_split(STUB).await?;
    end(process).await?;
    end(stub).await
}

#[tokio::test]
async fn changes_of_the_network_are_told_once_they_settle() -> anyhow::Result<()> {
    use tun_driver::network::{Change, Landscape, Watch};
    need_namespace!();
    let bed = Bed::new().await?;
    let read = bed.namespace.inside(Landscape::read).await??;
    let device = read.interfaces.iter().find(|interface| interface.name == "postern0").context("the device")?;
    assert_eq!(read.ours(), [device.index]);
    assert!(device.addresses.contains(&"100.72.0.1/32".parse()?), "{device:?}");
    let (told, mut changes) = tokio::sync::mpsc::unbounded_channel();
    let watching = bed.namespace.inside(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let watch = runtime.block_on(async { Watch::open() })?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let mut watch = watch;
                while let Ok(changes) = watch.next().await {
                    if told.send(changes).is_err() {
                        return;
                    }
                }
            });
        });
        std::io::Result::Ok(())
    });
    watching.await??;
    bed.namespace.ip("link add late0 type veth peer name late1").await?;
    bed.namespace.ip("addr add 100.80.0.1/16 dev late0").await?;
    bed.namespace.ip("link set late0 up").await?;
    bed.namespace.ip("route add 10.77.0.0/16 dev late0").await?;
    let mut seen = std::collections::BTreeSet::new();
    let wanted = [Change::Link, Change::Address, Change::Route];
    while !wanted.iter().all(|change| seen.contains(change)) {
        seen.extend(tokio::time::timeout(PATIENCE, changes.recv()).await?.context("no changes")?);
    }
    let read = bed.namespace.inside(Landscape::read).await??;
    let said: Vec<String> = ["100.80.0.0/16", "10.77.5.0/24"]
        .iter()
        .flat_map(|wanted| read.conflicts(wanted.parse().unwrap(), &read.ours()))
        .map(|conflict| conflict.to_string())
        .collect();
    assert_eq!(said, ["100.80.0.0/16 is the network of late0 (carrier NAT)", "10.77.0.0/16 is routed to late0"]);
    Ok(())
}
