//! A virtual network answers its owner alone, whatever others try. One test for each way that was shown to break
//! simpler designs, on the real netd in a network of the test's own.
#![cfg(target_os = "linux")]

use std::time::Duration;

use anyhow::Context as _;
use postern_tests::{
    need_program, need_vnm_bed,
    vnm::bed::{ANNA, BERT, Bed, CLAUS},
};

const GUEST: &str = env!("CARGO_BIN_EXE_vnm-guest");
const IPV6: &str = "fd12:3456:789a::/48";
/// Without the packet filter: the owner look-up and the routes are alone.
const NO_FILTER: &[&str] = &["--no-filter"];

/// Somewhere in the virtual subnet.
const THERE: &str = "100.72.1.9 5432";
const THERE_IPV6: &str = "fd12:3456:789a::109 5432";

async fn probe(bed: &Bed, uid: u32, words: &str) -> anyhow::Result<String> {
    bed.probe(uid, words).await
}

/// The same of somebody who is to have an answer, however long a busy machine takes for it.
async fn served(bed: &Bed, uid: u32, words: &str) -> anyhow::Result<String> {
    bed.probe(uid, &format!("{words} wait=20")).await
}

fn hello(label: &str) -> String {
    format!("hello from {label}")
}

/// What the kernel says at once where no route leads.
const UNREACHABLE: &str = "OSError Network is unreachable";

#[tokio::test(flavor = "multi_thread")]
async fn each_user_reaches_only_his_own_network_by_the_same_addresses() -> anyhow::Result<()> {
    need_vnm_bed!();
    for filter in [NO_FILTER, &[]] {
        let mut bed = Bed::start(GUEST, filter).await?;
        // Both answer everybody: what is shown here is the routing alone.
        let anna = bed.guest(ANNA, "anna", &["--anybody", "--ipv6", IPV6]).await?;
        let bert = bed.guest(BERT, "bert", &["--anybody", "--ipv6", IPV6]).await?;
        assert_ne!(anna.field("device")?, bert.field("device")?);
        assert_ne!(anna.field("resolver")?, bert.field("resolver")?);
        let leaked = bed.namespace.leaked().await?;
        // IPv6 gives root's packets a source address even where no route leads, so root is led by the rule for the kernel's
        // own packets. The look-up knows him.
        for (there, strangers) in [(THERE, &[CLAUS, 0][..]), (THERE_IPV6, &[CLAUS])] {
            assert_eq!(served(&bed, ANNA, &format!("tcp {there}")).await?, hello("anna"), "{there}");
            assert_eq!(served(&bed, BERT, &format!("tcp {there}")).await?, hello("bert"), "{there}");
            for stranger in strangers {
                for kind in ["tcp", "udp"] {
                    assert_eq!(probe(&bed, *stranger, &format!("{kind} {there}")).await?, UNREACHABLE, "{there}");
                }
            }
        }
        assert_eq!(bed.namespace.leaked().await?, leaked, "nothing followed the default route");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_names_the_same_routes_for_each_user() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    for (uid, label) in [(ANNA, "anna"), (BERT, "bert")] {
        let guest = bed.guest(uid, label, &["--ipv6", IPV6]).await?;
        let (name, device) = (guest.field("name")?.to_owned(), guest.field("device")?.to_owned());
        let route = bed.namespace.ip(&format!("route get 100.72.1.9 uid {uid}")).await?;
        assert!(route.contains(&format!("dev {name} table")) && route.contains(&format!("src {device} ")), "{route}");
        let route = bed.namespace.ip(&format!("-6 route get fd12:3456:789a::109 uid {uid}")).await?;
        assert!(route.contains(&format!("dev {name} table")), "{route}");
        // Nothing is paced on the way to the user's own stack, whatever the machine's default is.
        for family in ["-4", "-6"] {
            let routes = bed.namespace.ip(&format!("{family} route show table all dev {name} proto 80")).await?;
            assert!(routes.lines().all(|route| route.contains("congctl reno")) && !routes.is_empty(), "{routes}");
        }
        // Gone again, so that the next one is alone: the answers must not depend on the order.
        guest.kill().await?;
    }
    let anna = bed.guest(ANNA, "anna", &["--ipv6", IPV6]).await?;
    for stranger in [0, CLAUS, BERT] {
        for question in ["route get 100.72.1.9 uid", "-6 route get fd12:3456:789a::109 uid"] {
            let error = bed.namespace.ip(&format!("{question} {stranger}")).await.unwrap_err().to_string();
            assert!(error.contains("Network is unreachable"), "{error}");
        }
    }
    // Only our own prefix is routed.
    let route = bed.namespace.ip(&format!("route get 100.73.0.1 uid {ANNA}")).await?;
    assert!(route.contains("dev up0"), "{route}");
    let main = bed.namespace.ip("route show table main").await?;
    assert!(!main.contains(anna.field("name")?), "{main}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_binds_his_socket_to_the_device_gets_no_answer() -> anyhow::Result<()> {
    need_vnm_bed!();
    for filter in [NO_FILTER, &[]] {
        let mut bed = Bed::start(GUEST, filter).await?;
        bed.namespace.set("net/ipv4/ping_group_range", "0 2147483647").await?;
        let anna = bed.guest(ANNA, "anna", &["--ipv6", IPV6]).await?;
        let _bert = bed.guest(BERT, "bert", &["--ipv6", IPV6]).await?;
        let device = anna.field("name")?;
        for there in [THERE, THERE_IPV6] {
            for uid in [BERT, CLAUS] {
                for kind in ["tcp", "udp", "ping"] {
                    let got = probe(&bed, uid, &format!("{kind} {there} device={device}")).await?;
                    assert!(!got.starts_with("hello") && got != "echo", "{kind} {there} as {uid}: {got}");
                }
            }
            assert_eq!(served(&bed, ANNA, &format!("tcp {there} device={device}")).await?, hello("anna"));
            assert_eq!(served(&bed, ANNA, &format!("udp {there} device={device}")).await?, hello("anna"));
            assert_eq!(served(&bed, ANNA, &format!("ping {there} device={device}")).await?, "echo");
        }
        let strangers = anna.seen().iter().filter(|flow| flow["answered"] == false).count();
        match filter {
            // IPv4 takes a device for "on link": the packets arrive, and the look-up names who sent them.
            NO_FILTER => assert!(anna.seen().iter().any(|flow| flow["uid"] == CLAUS && flow["answered"] == false)),
            _ => assert_eq!(strangers, 0, "the packet filter lets none arrive: {:?}", anna.seen()),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_look_up_takes_root_for_nobody_else() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let anna = bed.guest(ANNA, "anna", &["--ipv6", IPV6]).await?;
    let device = anna.field("name")?;
    for words in [THERE_IPV6.to_owned(), format!("{THERE} device={device}")] {
        for kind in ["tcp", "udp", "ping"] {
            let got = probe(&bed, 0, &format!("{kind} {words}")).await?;
            assert!(!got.starts_with("hello") && got != "echo", "{kind} {words}: {got}");
        }
    }
    assert!(anna.seen().iter().any(|flow| flow["uid"] == 0 && flow["answered"] == false), "{:?}", anna.seen());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_the_device_for_one_datagram_gets_no_answer() -> anyhow::Result<()> {
    need_vnm_bed!();
    for filter in [NO_FILTER, &[]] {
        let mut bed = Bed::start(GUEST, filter).await?;
        bed.namespace.set("net/ipv4/ping_group_range", "0 2147483647").await?;
        let anna = bed.guest(ANNA, "anna", &["--ipv6", IPV6]).await?;
        let device = anna.field("name")?;
        for there in [THERE, THERE_IPV6] {
            for kind in ["udp", "ping"] {
                let got = probe(&bed, CLAUS, &format!("{kind} {there} pktinfo={device}")).await?;
                assert!(!got.starts_with("hello") && got != "echo", "{kind} {there}: {got}");
            }
            assert_eq!(served(&bed, ANNA, &format!("udp {there} pktinfo={device}")).await?, hello("anna"));
        }
        let arrived = anna.seen().iter().any(|flow| flow["kind"] == "udp" && flow["uid"] == CLAUS);
        assert_eq!(arrived, filter == NO_FILTER, "{:?}", anna.seen());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_users_device_address_opens_nothing() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, NO_FILTER).await?;
    let anna = bed.guest(ANNA, "anna", &["--anybody"]).await?;
    let _bert = bed.guest(BERT, "bert", &["--anybody"]).await?;
    let device = anna.field("device")?;
    let got = probe(&bed, BERT, &format!("tcp {THERE} bind={device}")).await?;
    assert!(!got.contains("anna"), "{got}");
    assert_eq!(probe(&bed, CLAUS, &format!("tcp {THERE} bind={device}")).await?, UNREACHABLE);
    assert!(anna.seen().iter().all(|line| line["kind"].is_null()), "nothing arrived: {:?}", anna.seen());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_attaches_a_queue_of_his_own() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let anna = bed.guest(ANNA, "anna", &[]).await?;
    let device = anna.field("name")?;
    for uid in [ANNA, BERT, CLAUS] {
        let got = probe(&bed, uid, &format!("attach {device}")).await?;
        assert_eq!(got, "PermissionError Operation not permitted", "as {uid}");
    }
    // The queues that were handed over work on.
    assert_eq!(served(&bed, ANNA, &format!("tcp {THERE}")).await?, hello("anna"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_made_persistent_goes_with_the_connection() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let before = bed.namespace.snapshot().await?;
    let anna = bed.guest(ANNA, "anna", &["--persist"]).await?;
    anna.kill().await?;
    settle(&bed, &before).await?;

    // And when netd dies first, its next start takes it away.
    let anna = bed.guest(ANNA, "anna", &["--persist"]).await?;
    bed.netd.kill().await?;
    anna.kill().await?;
    assert!(bed.namespace.snapshot().await?.must_equal(&before).is_err());
    bed.restart_netd().await?;
    bed.namespace.snapshot().await?.must_equal(&before)
}

/// Waits until everything is as it was.
async fn settle(bed: &Bed, before: &postern_tests::namespace::Snapshot) -> anyhow::Result<()> {
    let mut last = Ok(());
    for _ in 0..200 {
        last = bed.namespace.snapshot().await?.must_equal(before);
        if last.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn reverse_path_filters_of_every_kind_let_replies_through() -> anyhow::Result<()> {
    need_vnm_bed!();
    for mode in ["0", "1", "2"] {
        let namespace = postern_tests::namespace::Namespace::new().await?;
        namespace.add_uplink().await?;
        for scope in ["all", "default"] {
            namespace.set(&format!("net/ipv4/conf/{scope}/rp_filter"), mode).await?;
        }
        let mut bed = Bed::start_in(namespace, GUEST, NO_FILTER).await?;
        let anna = bed.guest(ANNA, "anna", &[]).await?;
        let bert = bed.guest(BERT, "bert", &[]).await?;
        assert_eq!(served(&bed, ANNA, &format!("tcp {THERE}")).await?, hello("anna"), "rp_filter {mode}");
        assert_eq!(served(&bed, BERT, &format!("tcp {THERE}")).await?, hello("bert"), "rp_filter {mode}");
        assert_eq!(probe(&bed, CLAUS, &format!("tcp {THERE}")).await?, UNREACHABLE, "rp_filter {mode}");
        for guest in [&anna, &bert] {
            let resolver = guest.field("resolver")?;
            let got = served(&bed, CLAUS, &format!("udp {resolver} 53")).await?;
            assert!(got.starts_with("hello"), "rp_filter {mode}: {got}");
        }
        // The kernel's own reset for a socket that is gone arrives too: the client gave up before the SYN was answered. One
        // who gives up before the guest has seen him is refused like a stranger, and does it again.
        let reset = async {
            while !anna.seen().iter().any(|line| line["reset"].is_string()) {
                probe(&bed, ANNA, "tcp 100.72.1.9 82 wait=0.1").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(30), reset).await.with_context(|| format!("rp_filter {mode}"))??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_come_back_after_the_link_went_down_and_up() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let anna = bed.guest(ANNA, "anna", &["--ipv6", IPV6]).await?;
    let device = anna.field("name")?;
    let up = bed.namespace.snapshot().await?;
    let leaked = bed.namespace.leaked().await?;
    bed.namespace.ip(&format!("link set {device} down")).await?;
    for there in [THERE, THERE_IPV6] {
        let got = probe(&bed, ANNA, &format!("tcp {there}")).await?;
        assert_eq!(got, UNREACHABLE, "closed, not sent elsewhere");
    }
    assert_eq!(bed.namespace.leaked().await?, leaked);
    bed.namespace.ip(&format!("link set {device} up")).await?;
    settle(&bed, &up).await?;
    for there in [THERE, THERE_IPV6] {
        assert_eq!(served(&bed, ANNA, &format!("tcp {there}")).await?, hello("anna"));
    }

    // The same for rules and routes that somebody deletes.
    bed.namespace.ip("rule del priority 1999").await?;
    bed.namespace.ip("rule del priority 1000").await?;
    bed.namespace.ip(&format!("-6 route flush table all dev {device} proto 80")).await?;
    settle(&bed, &up).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_somebody_deletes_is_made_again_when_its_holder_asks() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let before = bed.namespace.snapshot().await?;
    let mut anna = bed.guest(ANNA, "anna", &[]).await?;
    let device = anna.field("name")?.to_owned();
    bed.namespace.ip(&format!("link del {device}")).await?;
    // It sees EBADFD and asks again: the second ready line.
    let again = async {
        while anna.seen().iter().filter(|line| line["ready"] == true).count() < 2 {
            anyhow::ensure!(anna.process.is_running(), "{}", anna.process.log_end());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), again).await??;
    assert_eq!(served(&bed, ANNA, &format!("tcp {THERE}")).await?, hello("anna"));
    anna.kill().await?;
    settle(&bed, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resolvers_address_leads_nowhere_once_its_device_is_gone() -> anyhow::Result<()> {
    need_vnm_bed!();
    let mut bed = Bed::start(GUEST, &[]).await?;
    let mut anna = bed.guest(ANNA, "anna", &["--ipv6", IPV6]).await?;
    let resolvers = [anna.field("resolver")?.to_owned(), "fd12:3456:789a::2".to_owned()];
    for resolver in &resolvers {
        for uid in [ANNA, BERT, CLAUS, 0] {
            assert_eq!(served(&bed, uid, &format!("udp {resolver} 53")).await?, hello("anna"), "{resolver} as {uid}");
        }
    }
    // The device goes while its holder stands still, so that nobody asks for another one.
    anna.process.freeze().await?;
    let leaked = bed.namespace.leaked().await?;
    bed.namespace.ip(&format!("link del {}", anna.field("name")?)).await?;
    for resolver in &resolvers {
        for uid in [ANNA, CLAUS, 0] {
            assert_eq!(probe(&bed, uid, &format!("udp {resolver} 53")).await?, UNREACHABLE, "{resolver} as {uid}");
        }
    }
    assert_eq!(bed.namespace.leaked().await?, leaked, "no question left by the default route");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_machines_do_not_reach_the_devices_address() -> anyhow::Result<()> {
    need_vnm_bed!();
    let program = need_program!("ping");
    let mut bed = Bed::start(GUEST, &[]).await?;
    let anna = bed.guest(ANNA, "anna", &[]).await?;
    // A neighbour on the uplink that knows the way: up1 in a namespace of its own.
    let neighbour = postern_tests::namespace::Namespace::new().await?;
    bed.namespace.ip(&format!("link set up1 netns {}", neighbour.pid())).await?;
    neighbour.ip("addr add 10.9.0.1/24 dev up1").await?;
    neighbour.ip("link set up1 up").await?;
    neighbour.ip("route add 100.72.0.0/16 via 10.9.0.2").await?;
    // The bed's uplink has nobody at its other end, and a fixed address for him.
    bed.namespace.ip("neigh del 10.9.0.1 dev up0").await?;
    let ping = ["-c", "1", "-W", "1"];
    neighbour.run(&program, &[&ping[..], &["10.9.0.2"]].concat()).await.context("the neighbour reaches the machine")?;
    let device = anna.field("device")?;
    assert!(neighbour.run(&program, &[&ping[..], &[device]].concat()).await.is_err(), "{device} answered");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_where_ipv6_is_off() -> anyhow::Result<()> {
    need_vnm_bed!();
    let namespace = postern_tests::namespace::Namespace::new().await?;
    for scope in ["all", "default"] {
        namespace.set(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1").await?;
    }
    namespace.add_uplink().await?;
    let mut bed = Bed::start_in(namespace, GUEST, &[]).await?;
    let before = bed.namespace.snapshot().await?;
    let anna = bed.guest(ANNA, "anna", &["--ipv6", IPV6]).await?;
    assert!(anna.interface["ipv6"].is_null(), "{}", anna.interface);
    assert_eq!(served(&bed, ANNA, &format!("tcp {THERE}")).await?, hello("anna"));
    assert_eq!(probe(&bed, CLAUS, &format!("tcp {THERE}")).await?, UNREACHABLE);
    anna.kill().await?;
    settle(&bed, &before).await
}
