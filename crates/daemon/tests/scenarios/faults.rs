//! What breaks, and what must go on.

use std::time::{Duration, Instant};

use postern_local_api::message::{ControlLink, GatewayState};
use postern_proto::{head::Route, problem::Problem};
use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;

use crate::daemon::{
    Daemon, NAME, PATIENCE, World, expect_refusal, expect_reset, free_port, is_listening, ping, resource,
};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_control_plane_streams_go_on_and_new_ones_use_kept_leases() {
    let mut world = World::start().await;
    let mut before = world.open().await;
    world.control.stop();
    world.daemon.until("away", |status| matches!(status.control, ControlLink::Away { .. })).await;
    ping(&mut before).await.unwrap();
    world.open().await;
    // Even over a restart of the service: the list shows, ports stay, leases are kept.
    for signal in [Signal::TERM, Signal::KILL] {
        world.daemon.restart(signal);
        let status = world.daemon.until("listening", |status| is_listening(status, world.id)).await;
        assert_eq!(resource(&status, world.id).unwrap().resource.name, NAME);
        world.open().await;
    }
    world.control.restart().await;
    world.daemon.until("back", |status| matches!(status.control, ControlLink::Connected { .. })).await;
    let later = world.control.grant("later", free_port());
    world.daemon.until("followed", |status| resource(status, later).is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_while_the_control_plane_was_away_is_lost_when_it_is_back() {
    let mut world = World::start().await;
    let mut stream = world.open().await;
    world.control.stop();
    world.daemon.until("away", |status| matches!(status.control, ControlLink::Away { .. })).await;
    world.control.take_back(world.id);
    world.control.restart().await;
    expect_reset(&mut stream).await;
    let status = world.daemon.until("gone", |status| status.resources.is_empty()).await;
    assert!(matches!(status.control, ControlLink::Connected { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_gateway_dies_its_streams_break_and_new_ones_go_through_another() {
    let mut world = World::start().await;
    let second = world.second_gateway();
    world.daemon.until("both known", |status| status.gateways.len() == 2).await;
    let mut streams = Vec::new();
    // A stream through the first gateway, wherever the others went.
    while world.gateway.opened() == 0 || streams.len() < 10 {
        streams.push(world.open().await);
        assert!(streams.len() < 200, "nothing goes through the first gateway");
        if world.gateway.opened() == 0 && streams.len() > 10 {
            break;
        }
    }
    let (mut dying, living) = (world.gateway.opened(), second.opened());
    let began = Instant::now();
    if dying == 0 {
        // All of them went to the second one; then that is the one to die.
        let mut second = second;
        second.kill();
        dying = living;
    } else {
        world.gateway.kill();
    }
    let mut broken = 0;
    for stream in &mut streams {
        let mut byte = [0];
        match tokio::time::timeout(Duration::from_secs(2), stream.read(&mut byte)).await {
            Ok(Err(error)) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                broken += 1;
            }
            Ok(Ok(n)) => panic!("an end of {n} bytes looks complete"),
            // On a busy machine it may not have been told yet: who is not reset answers.
            Err(_) => match ping(stream).await {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                    broken += 1;
                }
            },
        }
    }
    println!("{broken} streams broke within {:?}", began.elapsed());
    assert_eq!(broken, dying);
    let begun = Instant::now();
    world.open().await;
    println!("a new stream after {:?}", begun.elapsed());
    world
        .daemon
        .until("told", |status| {
            status.gateways.iter().any(|gateway| matches!(gateway.state, GatewayState::Unreachable { .. }))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_while_nothing_runs_over_it_is_found_out() {
    let mut world = World::start().await;
    world
        .daemon
        .until("idle", |status| {
            status.gateways.iter().any(|gateway| gateway.state == GatewayState::Reachable && gateway.spares > 0)
        })
        .await;
    world.gateway.kill();
    world
        .daemon
        .until("told", |status| {
            status.gateways.iter().any(|gateway| matches!(gateway.state, GatewayState::Unreachable { .. }))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_a_gateway_does_not_take_is_renewed_once() {
    let world = World::start().await;
    world.open().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let leases = world.control.state().leases;
    world.gateway.refuse_next(Problem::new(401, "lease_expired", "The lease has ended"), None);
    world.open().await;
    assert_eq!(world.control.state().leases, leases + 1);
    // Refused again: the user is told, and nothing goes round in circles.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..2 {
        world.gateway.refuse_next(Problem::new(401, "lease_expired", "The lease has ended"), None);
    }
    expect_refusal(world.port).await;
    let status = world.daemon.until("told", |status| resource(status, world.id).unwrap().last_error.is_some()).await;
    assert!(resource(&status, world.id).unwrap().last_error.as_ref().unwrap().contains("The lease has ended"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_gateway_and_a_wrong_one_hand_the_stream_on() {
    let world = World::start().await;
    let second = world.second_gateway();
    world.daemon.until("both known", |status| status.gateways.len() == 2).await;
    for gateway in [&world.gateway, &second] {
        let other = if gateway.node == second.node { &world.gateway } else { &second };
        let route = Route::new(other.node, other.address.to_string()).unwrap();
        gateway.refuse_next(Problem::new(421, "wrong_node", "Another node carries this resource"), Some(route));
        let before = (world.gateway.opened(), second.opened());
        world.open().await;
        let after = (world.gateway.opened(), second.opened());
        assert_eq!(after.0 + after.1, before.0 + before.1 + 1);
        gateway.desk.refusals.lock().unwrap().clear();
    }
    world.gateway.refuse_next(Problem::new(503, "draining", "The gateway takes no new streams"), None);
    for _ in 0..3 {
        world.open().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_gateway_the_user_is_told_and_it_works_again_when_one_is_back() {
    let mut world = World::start().await;
    world.gateway.kill();
    expect_refusal(world.port).await;
    let status = world.daemon.until("told", |status| resource(status, world.id).unwrap().last_error.is_some()).await;
    let error = resource(&status, world.id).unwrap().last_error.clone().unwrap();
    assert!(error.contains("reach"), "{error}");
    let _second = world.second_gateway();
    world.daemon.until("known", |status| status.gateways.len() == 2).await;
    world.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_without_a_lease_says_so_and_works_when_there_is_one() {
    let world = World::start().await;
    let port = free_port();
    let id = postern_proto::id::ResourceId::from_ulid(crate::org::next_ulid());
    world.control.state().denied.insert(id);
    world.gateway.route(id, world.echo.address);
    world.control.put(crate::control::resource(id, "denied", port));
    world.daemon.until("listed", |status| resource(status, id).is_some()).await;
    world.daemon.connect("denied").await;
    expect_refusal(port).await;
    let status = world.daemon.until("told", |status| resource(status, id).unwrap().last_error.is_some()).await;
    assert!(resource(&status, id).unwrap().last_error.as_ref().unwrap().contains("no lease"));
    world.control.state().denied.clear();
    let mut again = crate::control::resource(id, "denied", port);
    again.revision = 2;
    world.control.put(again);
    world.daemon.until("changed", |status| resource(status, id).unwrap().resource.revision == 2).await;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    ping(&mut stream).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_files_it_waits_and_goes_on() {
    let world = World::start_with_few_files(64).await;
    world.open().await;
    // More than fit: those that wait in the backlog are connected as far as their programs can see.
    let mut streams = Vec::new();
    for _ in 0..100 {
        // Some are reset at once: there was a file for them, but none for their way to the gateway.
        streams.extend(tokio::net::TcpStream::connect(("127.0.0.1", world.port)).await);
    }
    let begun = Instant::now();
    while !world.daemon.log_holds("cannot accept connections now") {
        assert!(begun.elapsed() < PATIENCE, "it was never out of files");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(streams);
    // Those that waited are looked at and let go; then there is room again.
    let works = async || ping(&mut tokio::net::TcpStream::connect(("127.0.0.1", world.port)).await?).await;
    while works().await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "it did not recover");
    }
    let status = world.daemon.status().await;
    assert!(status.warnings.iter().any(|warning| warning.contains("files may be open")), "{:?}", status.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_says_that_one_is_running_and_disturbs_nothing() {
    let world = World::start().await;
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_posternd"))
        .args(["--home", world.home.path().to_str().unwrap(), "--status-listen", "off"])
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("already running") && said.contains(&world.daemon.pid().to_string()), "{said}");
    assert!(second.stdout.is_empty());
    world.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_it_ends_well_and_leaves_no_socket_and_no_listener() {
    let mut world = World::start().await;
    let mut stream = world.open().await;
    assert!(world.daemon.end(Signal::TERM));
    expect_reset(&mut stream).await;
    assert!(!world.daemon.client.socket().exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", world.port)).is_err());
    let daemon = Daemon::start(world.home.path(), &[]);
    daemon.client.shutdown().await.unwrap();
    while daemon.client.hello().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
