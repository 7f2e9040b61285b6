//! Seeing, connecting, using and losing resources.

use postern_local_api::message::{Connection, ResourceState, Selection};
use postern_proto::{lease::RevokedSubject, problem::Problem};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::daemon::{NAME, World, expect_refusal, expect_reset, free_port, is_listening, ping, problem, resource};

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_resource_carries_bytes_both_ways_and_is_accounted_for() {
    let world = World::start().await;
    let mut stream = world.dial().await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut received = Vec::new();
    let (mut reading, mut writing) = stream.split();
    let write = async {
        writing.write_all(&sent).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(write, reading.read_to_end(&mut received));
    read.unwrap();
    assert!(received == sent);
    let bytes = sent.len() as u64;
    let status = world
        .daemon
        .until("accounted for", |status| {
            resource(status, world.id).is_some_and(|it| it.bytes_up == bytes && it.bytes_down == bytes)
        })
        .await;
    let echo = resource(&status, world.id).unwrap();
    assert_eq!((echo.streams, &echo.last_error), (0, &None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_session_is_listed_with_its_gateway_and_goes_when_it_ends() {
    let world = World::start().await;
    let stream = world.open().await;
    let sessions = world.daemon.client.sessions().await.unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].resource_name, NAME);
    assert_eq!(sessions[0].peer, stream.local_addr().unwrap());
    assert_eq!(sessions[0].gateway, Some(world.gateway.node.into()));
    drop(stream);
    world.daemon.until("no stream", |status| resource(status, world.id).unwrap().streams == 0).await;
    assert!(world.daemon.client.sessions().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_connected_is_not_listened_on() {
    let world = World::start().await;
    let port = free_port();
    let other = world.control.grant("other", port);
    let status = world.daemon.until("listed", |status| resource(status, other).is_some()).await;
    assert_eq!(resource(&status, other).unwrap().connection, Connection::Disconnected);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_are_connected_by_filter_and_all_are_disconnected_at_once() {
    let world = World::start().await;
    let others = [world.control.grant("pay-1", free_port()), world.control.grant("pay-2", free_port())];
    world.daemon.until("listed", |status| status.resources.len() == 3).await;
    let filter = |text: &str| Selection::Filter { filter: text.to_owned() };
    let report = world.daemon.client.connect(&filter("pay* tags:env=test")).await.unwrap();
    assert_eq!((report.changed, report.resources.len()), (2, 2));
    let again = world.daemon.client.connect(&Selection::All).await.unwrap();
    assert_eq!((again.changed, again.resources.len()), (0, 3));
    let report = world.daemon.client.disconnect(&Selection::All).await.unwrap();
    assert_eq!(report.changed, 3);
    let status = world.daemon.status().await;
    assert!(others.iter().all(|id| !is_listening(&status, *id)));
    assert_eq!(problem(world.daemon.client.connect(&filter("nothing*")).await).code, "nothing_matches");
    assert_eq!(problem(world.daemon.client.connect(&filter("x:y")).await).status, 422);
    let name = Selection::Name { name: "nowhere".to_owned() };
    assert_eq!(problem(world.daemon.client.connect(&name).await).code, "no_such_resource");
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnecting_cuts_the_streams_of_that_resource() {
    let world = World::start().await;
    let mut stream = world.open().await;
    world.daemon.disconnect(NAME).await;
    expect_reset(&mut stream).await;
    assert!(std::net::TcpStream::connect(("127.0.0.1", world.port)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_grant_closes_the_listener_and_cuts_its_streams() {
    let world = World::start().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(world.open().await);
    }
    let begun = std::time::Instant::now();
    world.control.take_back(world.id);
    for stream in &mut streams {
        expect_reset(stream).await;
    }
    println!("all cut after {:?}", begun.elapsed());
    let status = world.daemon.until("gone", |status| status.resources.is_empty()).await;
    assert!(status.resources.is_empty());
    assert!(std::net::TcpStream::connect(("127.0.0.1", world.port)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regained_grant_listens_again_at_the_same_port() {
    let world = World::start().await;
    world.control.take_back(world.id);
    world.daemon.until("gone", |status| status.resources.is_empty()).await;
    world.control.put(crate::control::resource(world.id, NAME, world.port));
    world.daemon.until("back", |status| is_listening(status, world.id)).await;
    world.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_cuts_idle_and_busy_streams_and_new_ones_need_a_new_lease() {
    let world = World::start().await;
    let mut idle = world.open().await;
    let mut busy = world.open().await;
    let leases = world.control.state().leases;
    world.control.state().grant = "rol_2".to_owned();
    world.control.revoke(RevokedSubject::Grant { grant: "rol_1".to_owned() });
    expect_reset(&mut idle).await;
    let broken = async { while ping(&mut busy).await.is_ok() {} };
    tokio::time::timeout(crate::daemon::PATIENCE, broken).await.expect("not cut");
    world.open().await;
    assert!(world.control.state().leases > leases);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_of_somebody_else_disturbs_nobody() {
    let world = World::start().await;
    let mut stream = world.open().await;
    world.control.revoke(RevokedSubject::Account { account: world.control.state().service_account });
    world.control.revoke(RevokedSubject::Grant { grant: "rol_9".to_owned() });
    let other = world.control.grant("later", free_port());
    world.daemon.until("heard of", |status| resource(status, other).is_some()).await;
    ping(&mut stream).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_remembered_over_an_orderly_and_a_sudden_end() {
    let mut world = World::start().await;
    for signal in [Signal::TERM, Signal::KILL] {
        world.daemon.restart(signal);
        let status = world.daemon.until("listening", |status| is_listening(status, world.id)).await;
        let Connection::Listening { address } = resource(&status, world.id).unwrap().connection else { panic!() };
        assert_eq!(address.port(), world.port);
        world.open().await;
    }
    world.daemon.disconnect(NAME).await;
    world.daemon.restart(Signal::KILL);
    world
        .daemon
        .until("connected", |status| {
            matches!(&status.control, postern_local_api::message::ControlLink::Connected { .. })
        })
        .await;
    assert!(!is_listening(&world.daemon.status().await, world.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_names_the_holder_and_is_taken_when_it_is_free() {
    let world = World::start().await;
    let port = free_port();
    let holder = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let id = world.control.grant("late", port);
    world.daemon.until("listed", |status| resource(status, id).is_some()).await;
    let report = world.daemon.connect("late").await;
    let Connection::PortInUse { address, holder: named, .. } = &report.resources[0].connection else {
        panic!("{report:#?}")
    };
    assert_eq!(address.port(), port);
    let named = named.clone().expect("the holder is named");
    assert_eq!(named.pid, Some(std::process::id()));
    assert!(named.program.is_some());
    drop(holder);
    world.daemon.until("taken", |status| is_listening(status, id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_says_reaches_the_status_until_a_stream_works() {
    let world = World::start().await;
    world.gateway.refuse_next(Problem::new(502, "target_refused", "The resource refused the connection"), None);
    expect_refusal(world.port).await;
    let status = world.daemon.until("told", |status| resource(status, world.id).unwrap().last_error.is_some()).await;
    let error = resource(&status, world.id).unwrap().last_error.clone().unwrap();
    assert!(error.contains("The resource refused the connection"), "{error}");
    let refused = resource(&status, world.id).unwrap();
    assert_eq!(refused.state, ResourceState::Unhealthy);
    assert_eq!(refused.trouble.as_ref().unwrap().code, "target_refused");
    assert!(status.health.iter().any(|item| item.code == "target_refused" && item.resource == Some(world.id)));
    let _stream = world.open().await;
    let status =
        world.daemon.until("forgotten", |status| resource(status, world.id).unwrap().last_error.is_none()).await;
    let works = resource(&status, world.id).unwrap();
    assert_eq!((works.state, &works.trouble), (ResourceState::Connected, &None));
    assert!(works.last_used.is_some() && works.lease_ends.is_some());
    assert_eq!(works.command.as_deref(), Some(format!("nc 127.0.0.1 {}", world.port).as_str()));
    assert_eq!(works.route.as_ref().unwrap().hops.len(), 1);
    assert!(!status.health.iter().any(|item| item.resource == Some(world.id)), "{:?}", status.health);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_resource_listens_at_its_new_port_and_keeps_its_streams() {
    let world = World::start().await;
    let mut stream = world.open().await;
    let port = free_port();
    world.control.put(crate::control::resource(world.id, NAME, port));
    world
        .daemon
        .until("moved", |status| {
            matches!(resource(status, world.id).unwrap().connection,
                Connection::Listening { address } if address.port() == port)
        })
        .await;
    ping(&mut stream).await.unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", world.port)).is_err());
}
