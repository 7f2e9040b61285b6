//! What people see of names in a real virtual network: `postern dns query`, and the doctor's probes of zones with each of
//! their outcomes.
#![cfg(target_os = "linux")]

use std::{net::Ipv4Addr, sync::PoisonError};

use anyhow::{Context as _, ensure};
use postern_local_api::message::{Check, NameService, NetworkStatus, Verdict};
use postern_proto::resource::Kind;
use postern_tests::{
    command::{PATIENCE, run},
    need_namespace,
    network_bed::{self, add_virtual, enable},
    resolver::{DnsServer, Says},
    stack::Stack,
    target::{Behaviour, Target},
};
use serde_json::json;

/// The name server of the namespace's own resolv.conf.
const MACHINES: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// What the doctor says of the organisation's zone.
async fn probe(stack: &Stack, zone: &str) -> anyhow::Result<Check> {
    let report = stack.user().client().doctor().await?;
    let id = format!("zone:{zone}");
    report.checks.into_iter().find(|check| check.id == id).with_context(|| format!("no check of {zone}"))
}

#[test]
fn the_doctor_tells_how_names_of_a_zone_fare_in_each_way_they_can() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |mut bed| {
        bed.namespace.ip(&format!("addr add {MACHINES}/32 dev lo")).await?;
        let says = Says::NoSuchName;
        let (_server, word) = DnsServer::start_saying(&bed.namespace, (MACHINES, 53).into(), says).await?;
        // Names stay unregistered: the machine's own name server is asked for everything.
        bed.stop_netd().await?;
        bed.start_netd(&["--no-dns"]).await?;
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack_within().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let network = enable(stack.user()).await?;
        ensure!(matches!(network.names, NameService::Unavailable { .. }), "{network:?}");
        let zone = network.zones.first().context("no zone")?.clone();
        for (says, outcome) in [
            (Says::NoSuchName, "NOT_REGISTERED"),
            (Says::Address(ELSEWHERE), "HIJACKED"),
            (Says::Failure, "RESOLVER_ERROR"),
            (Says::Nothing, "TIMEOUT"),
        ] {
            *word.lock().unwrap_or_else(PoisonError::into_inner) = says;
            let check = probe(&stack, &zone).await?;
            assert_eq!(check.verdict, Verdict::Failed, "{check:?}");
            ensure!(check.detail.starts_with(&format!("{outcome}:")), "{says:?}: {check:?}");
            ensure!(check.advice.is_some(), "{check:?}");
            let commands = check.commands.join("\n");
            ensure!(commands.contains("dig ") && commands.contains("getent ahostsv4"), "{commands}");
            if let Says::Address(address) = says {
                ensure!(check.detail.contains(&address.to_string()), "who answers is named: {check:?}");
            }
        }
        stack.stop().await
    })
}

#[test]
fn a_registered_zone_is_well_and_names_are_told_with_their_answers() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |mut bed| {
        bed.start_stub().await?;
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack_within().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let network = enable(stack.user()).await?;
        ensure!(matches!(network.names, NameService::Registered { .. }), "{network:?}");
        let zone = network.zones.first().context("no zone")?.clone();
        let check = probe(&stack, &zone).await?;
        assert_eq!((check.verdict, check.detail.starts_with("OK:")), (Verdict::Ok, true), "{check:?}");
        // The same through the command, and what it says of single names.
        let shown = run(&mut stack.user().cli(&["doctor"]), PATIENCE).await?;
        ensure!(shown.stdout.contains(&format!("Zone {zone}")) && shown.stdout.contains("OK:"), "{shown:?}");
        let address = stack.user().listens("echo").await?;
        let name = format!("echo.{zone}");
        let said = stack.user().postern(&["dns", "query", &name]).await?;
        ensure!(said.contains("NOERROR") && said.matches(&address.ip().to_string()).count() >= 2, "{said}");
        let json = stack.user().postern(&["dns", "query", &name, "--json"]).await?;
        let report: serde_json::Value = serde_json::from_str(&json)?;
        assert_eq!(report.pointer("/resolver/records/0/data"), Some(&json!(address.ip())), "{report}");
        assert_eq!(report.pointer("/system/addresses/0"), Some(&json!(address.ip())), "{report}");
        let commands = report.pointer("/commands").map(ToString::to_string).unwrap_or_default();
        ensure!(commands.contains("dig ") && commands.contains("getent ahostsv4"), "{report}");
        let reverse = {
            let std::net::IpAddr::V4(ip) = address.ip() else { anyhow::bail!("{address}") };
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        };
        let said = stack.user().postern(&["dns", "query", &reverse, "--type", "PTR"]).await?;
        ensure!(said.contains(&name), "{said}");
        let nobody = run(&mut stack.user().cli(&["dns", "query", &format!("nobody.{zone}")]), PATIENCE).await?;
        ensure!(nobody.stdout.contains("NXDOMAIN"), "{nobody:?}");
        // Locked: the name is still known, and the answer says why nothing is there.
        stack.user().client().lock().await?;
        let locked = run(&mut stack.user().cli(&["dns", "query", &name]), PATIENCE).await?;
        ensure!(locked.stdout.contains("session expired"), "{locked:?}");
        stack.stop().await
    })
}

#[test]
fn status_follows_a_resolver_that_goes_and_comes_after_the_registration() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |mut bed| {
        bed.start_stub().await?;
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack_within().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let network = enable(stack.user()).await?;
        ensure!(matches!(network.names, NameService::Registered { .. }), "{network:?}");
        let names = |test: fn(&NameService) -> bool| move |status: &postern_local_api::message::Status| matches!(&status.network, NetworkStatus::Up(up) if test(&up.names));
        bed.kill_stub().await?;
        stack.user().status_when(names(|names| matches!(names, NameService::Unavailable { .. }))).await?;
        let shown = stack.user().postern(&["network", "status", "--color=never"]).await?;
        ensure!(shown.contains("postern-dns-stub"), "what to do is said: {shown}");
        bed.start_stub().await?;
        stack.user().status_when(names(|names| matches!(names, NameService::Registered { .. }))).await?;
        stack.stop().await
    })
}

#[test]
fn the_doctor_says_what_is_wrong_with_the_network_itself() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |mut bed| {
        bed.start_stub().await?;
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let network = async |stack: &Stack| {
            let report = stack.user().client().doctor().await?;
            report.checks.into_iter().find(|check| check.id == "network").context("no check of the network")
        };
        assert_eq!(network(&stack).await?.verdict, Verdict::Skipped, "it is off");
        enable(stack.user()).await?;
        let check = network(&stack).await?;
        assert_eq!(check.verdict, Verdict::Ok, "{check:?}");
        // Another product comes and takes our addresses.
        bed.namespace.ip("link add tailscale0 type veth peer name tailscale1").await?;
        bed.namespace.ip("addr add 100.101.102.103/32 dev tailscale0").await?;
        bed.namespace.ip("link set tailscale0 up").await?;
        bed.namespace.ip("route add 100.64.0.0/10 dev tailscale0 table 52").await?;
        let moved = |status: &postern_local_api::message::Status| matches!(&status.network, NetworkStatus::Up(up) if up.moved.is_some());
        stack.user().status_when(moved).await?;
        let check = network(&stack).await?;
        ensure!(check.detail.contains("tailscale0"), "who has our addresses is named: {check:?}");
        // postern-netd ends.
        bed.stop_netd().await?;
        stack.user().status_when(|status| matches!(status.network, NetworkStatus::Unavailable { .. })).await?;
        let check = network(&stack).await?;
        assert_eq!(check.verdict, Verdict::Failed, "{check:?}");
        ensure!(check.detail.contains("postern-netd") && check.advice.is_some(), "{check:?}");
        stack.stop().await
    })
}
