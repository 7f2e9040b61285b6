//! Relays in networks of their own: a client that reaches one gateway and nothing else, two private networks that accept
//! nothing from outside, and a gateway that only the other gateway reaches.
//!
//! ```text
//! client ── 10.77.1.0/24 ── DMZ (control plane, gateway-1) ── 10.77.2.0/24 ── private 1 (relay-1, PostgreSQL)
//!                             ├─ 10.77.3.0/24 ── private 2 (relay-2, PostgreSQL)
//!                             └─ 10.77.4.0/24 ── far (gateway-2 and relay-3 of group "far", PostgreSQL)
//! ```
//!
//! Nothing is forwarded between them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client::{self, End},
    figure, need_namespace, need_program,
    servers::Postgres,
    site::{self, DMZ, Site},
    stack::{How, Stack},
};

/// The networks by number.
const CLIENT: usize = 1;
const PRIVATE: [usize; 2] = [2, 3];
const FAR: usize = 4;

/// The first message of PostgreSQL's protocol, version 3.
fn startup() -> Vec<u8> {
    let text = b"user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(8 + text.len()).unwrap_or_default();
    [&length.to_be_bytes()[..], &196_608_u32.to_be_bytes(), text].concat()
}

/// A stack in the DMZ, whose user is in the client's network. Resources `db-1`, `db-2` and `db-3` are databases in the
/// private networks and the far one, each bound to the relay there; where they appear to the user.
async fn start(site: &Site) -> anyhow::Result<(Stack, Vec<Postgres>, Vec<SocketAddr>)> {
    let words = site.launcher(CLIENT);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut stack = Stack::builder().host(DMZ).user_launcher(&words).start().await?;
    let far = How {
        group: "far".to_owned(),
        launcher: site.launcher(FAR),
        host: Some(site::address(FAR, 0)),
        ..How::default()
    };
    let gateway = stack.add_gateway_with("gateway-2", &far).await?;
    stack.gateways.push(gateway);
    let (mut servers, mut appear) = (Vec::new(), Vec::new());
    for (number, network) in (1..).zip(PRIVATE.into_iter().chain([FAR])) {
        let server = site.within(network, Postgres::start).await.context("PostgreSQL")?;
        let group = if number == 3 { "far" } else { "" };
        let how = How { group: group.to_owned(), launcher: site.launcher(network), ..How::default() };
        stack.add_relay_with(&format!("relay-{number}"), 1, &how).await?;
        let name = format!("db-{number}");
        let resource = stack.create_resource(&name, Kind::Postgres, server.address()).await?;
        stack.set_egress(resource, &format!("name:relay-{number}")).await?;
        stack.add_rule(stack.role, &[resource]).await?;
        stack.user().knows(&name).await?;
        appear.push(stack.user().connect(&name).await?);
        let far = |status: &postern_local_api::message::ResourceStatus| {
            status.route.as_ref().is_some_and(|route| route.hops.len() == 2)
        };
        stack.user().resource_when(&name, far).await?;
        servers.push(server);
    }
    Ok((stack, servers, appear))
}

#[test]
fn databases_that_accept_nothing_from_outside_are_reached_over_their_relays() -> anyhow::Result<()> {
    need_namespace!();
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    site::run(4, async |site| {
        let (stack, servers, appear) = start(&site).await?;
        for (number, address) in (1..).zip(&appear) {
            let address = *address;
            let asked = Instant::now();
            let answer = site.within(CLIENT, move || async move {
                Postgres::query(address, "select sum(n) from generate_series(1, 1000) n").await
            });
            assert_eq!(answer.await.with_context(|| format!("db-{number}"))?, "500500");
            figure::say(&format!("db-{number} answered psql in {:?}", asked.elapsed()));
        }
        // Each record is that of the relay which dialled.
        let sessions = stack.sessions_when(|sessions| sessions.len() >= 3).await?;
        let nodes: std::collections::BTreeSet<&str> =
            sessions.iter().filter_map(|session| session.get("node_name")?.as_str()).collect();
        assert_eq!(nodes.into_iter().collect::<Vec<_>>(), ["relay-1", "relay-2", "relay-3"]);
        // The private networks listen on loopback only, the client reaches neither them nor the second gateway, and nothing
        // is forwarded.
        for network in PRIVATE {
            let listening = site.network(network).run("cat", &["/proc/net/tcp"]).await?;
            let open = listening.lines().skip(1).filter(|line| line.split_whitespace().nth(3) == Some("0A"));
            assert!(open.into_iter().all(|line| line.contains(" 0100007F:")), "{listening}");
        }
        let far = stack.gateways.get(1).context("no second gateway")?.address();
        let reached = site.within(CLIENT, move || async move {
            let connecting = tokio::net::TcpStream::connect(far);
            Ok(matches!(tokio::time::timeout(Duration::from_secs(2), connecting).await, Ok(Ok(_))))
        });
        assert!(!reached.await?, "the client reaches the far gateway itself, so that nothing was passed on");
        drop(servers);
        stack.stop().await
    })
}

#[test]
fn a_silent_cut_behind_a_gateway_resets_what_ran_over_it_and_is_healed_when_the_cable_is_back() -> anyhow::Result<()> {
    need_namespace!();
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    site::run(4, async |site| {
        let (stack, servers, appear) = start(&site).await?;
        let address = *appear.first().context("no address")?;
        let (opened, open) = tokio::sync::oneshot::channel();
        let waiting = site.within(CLIENT, move || async move {
            // The first message of the protocol, and then patience.
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            let startup = startup();
            tokio::io::AsyncWriteExt::write_all(&mut stream, &startup).await?;
            tokio::io::AsyncReadExt::read_u8(&mut stream).await?;
            let _ = opened.send(());
            let end = client::end(&mut stream).await?;
            Ok((end, Instant::now()))
        });
        let cutting = async {
            open.await.context("the stream does not open")?;
            let cut = Instant::now();
            site.cut(0, PRIVATE[0]).await?;
            anyhow::Ok(cut)
        };
        let ((end, ended), cut) = tokio::try_join!(waiting, cutting)?;
        assert_eq!(end, End::Reset, "a cut stream looked complete");
        figure::say(&format!("a silent cut was noticed after {:?}", ended.duration_since(cut)));
        // The other network does not suffer.
        let other = *appear.get(1).context("no address")?;
        let answer = site.within(CLIENT, move || async move { Postgres::query(other, "select 2").await });
        assert_eq!(answer.await?, "2");
        site.mend(0, PRIVATE[0]).await?;
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            let answer = site.within(CLIENT, move || async move { Postgres::query(address, "select 1").await });
            match answer.await {
                Ok(answer) => break assert_eq!(answer, "1"),
                Err(error) => anyhow::ensure!(Instant::now() < deadline, "the relay is not back: {error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        figure::say(&format!("reached again {:?} after the cut", cut.elapsed()));
        drop(servers);
        stack.stop().await
    })
}
