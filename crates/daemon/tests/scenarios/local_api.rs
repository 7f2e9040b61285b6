//! The local API as its client sees it.

use postern_local_api::{
    message::{ControlCall, Event, SignIn, StatusApi, VERSION, Verdict},
    mirror::apply,
};

use crate::{
    control::EMAIL,
    daemon::{Daemon, NAME, World, free_port, problem, resource},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_follows_events_sees_what_the_service_sees() {
    let world = World::start().await;
    let mut events = world.daemon.client.events().await.unwrap();
    let mut copy = None;
    let first = events.next().await.unwrap();
    assert!(matches!(first.event, Event::Snapshot { .. }));
    apply(&mut copy, first.event);
    world.control.grant("later", free_port());
    world.daemon.disconnect(NAME).await;
    world.daemon.client.lock().await.unwrap();
    let wanted = world
        .daemon
        .until("locked with both", |status| {
            status.resources.len() == 2 && matches!(status.sign_in, SignIn::Locked { .. })
        })
        .await;
    let follow = async {
        while copy.as_ref().is_none_or(|copy| {
            copy.resources.len() != 2 || copy.sign_in != wanted.sign_in || copy.resources != wanted.resources
        }) {
            apply(&mut copy, events.next().await.unwrap().event);
        }
    };
    tokio::time::timeout(crate::daemon::PATIENCE, follow).await.expect("the copy never fits");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_the_control_plane_are_made_with_the_login_and_the_certificate() {
    let world = World::start().await;
    let call = |method: &str, path: &str| ControlCall { method: method.to_owned(), path: path.to_owned(), body: None };
    let answer = world.daemon.client.control(&call("GET", "/api/v1/accounts?limit=5")).await.unwrap();
    assert_eq!(answer.body["items"][0]["email"], EMAIL);
    assert!(world.control.state().requests.contains(&("GET /api/v1/accounts?limit=5".to_owned(), true)));
    for path in ["/api/v1/../accounts", "/other", "/api/v1/leases"] {
        assert_eq!(problem(world.daemon.client.control(&call("GET", path)).await).code, "call_not_allowed");
    }
    assert!(!world.control.state().requests.iter().any(|(line, _)| line.contains("..")));
    world.daemon.client.logout().await.unwrap();
    assert_eq!(problem(world.daemon.client.control(&call("GET", "/api/v1/accounts")).await).code, "signed_out");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_everything_well_and_names_what_is_not() {
    let mut world = World::start().await;
    world.open().await;
    let report = world.daemon.client.doctor().await.unwrap();
    for check in &report.checks {
        assert!(matches!(check.verdict, Verdict::Ok | Verdict::Skipped), "{check:#?}");
    }
    let ids: Vec<_> = report.checks.iter().map(|check| check.id.as_str()).collect();
    for id in [
        "version",
        "control",
        "sync",
        "clock",
        "certificate",
        "gateway:gw-1",
        "isolation",
        "resource:echo",
        "files",
        "key",
    ] {
        assert!(ids.contains(&id), "{id} is missing in {ids:?}");
    }
    world.gateway.kill();
    world.control.stop();
    let report = world.daemon.client.doctor().await.unwrap();
    for id in ["control", "gateway:gw-1"] {
        let check = report.checks.iter().find(|check| check.id == id).unwrap();
        assert!(check.verdict == Verdict::Failed && check.advice.is_some(), "{check:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_make_no_sense_are_refused_in_words() {
    let world = World::start().await;
    let socket = world.daemon.client.socket().to_owned();
    for (path, body) in [("connect", "{"), ("connect", "{\"select\":\"most\"}"), ("login", "[]"), ("nowhere", "{}")] {
        let answer = raw(
            &socket,
            &format!(
                "POST /v1/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        );
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("application/problem+json"), "{answer}");
    }
    let wrong_method = raw(&socket, "GET /v1/connect HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(wrong_method.contains("no_such_call"), "{wrong_method}");
    assert_eq!(world.daemon.client.hello().await.unwrap().version, VERSION);
}

fn raw(socket: &std::path::Path, request: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_for_scripts_needs_the_token_of_its_file() {
    let home = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(home.path(), &["--status-listen", "127.0.0.1:0"]);
    let status = daemon.until("served", |status| matches!(status.status_api, StatusApi::Listening { .. })).await;
    let StatusApi::Listening { address, token_file } = status.status_api else { panic!() };
    let token = std::fs::read_to_string(&token_file).unwrap();
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&token_file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let ask = |token: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = format!("GET /v1/status HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n");
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ask(&token).starts_with("HTTP/1.1 200"));
    assert!(ask("wrong").starts_with("HTTP/1.1 401"));
    daemon.end(rustix::process::Signal::TERM);
    assert!(!std::path::Path::new(&token_file).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_squatter_on_the_status_port_is_told_of_and_no_token_lies_about() {
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = squatter.local_addr().unwrap().to_string();
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &["--status-listen", &address]);
    let status = daemon.until("told", |status| matches!(status.status_api, StatusApi::Failed { .. })).await;
    let StatusApi::Failed { error } = &status.status_api else { panic!() };
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    assert!(status.warnings.iter().any(|warning| warning.contains("status for scripts")));
    assert!(!home.path().join("run/status-token").exists());
    drop(squatter);
    daemon.until("served", |status| matches!(status.status_api, StatusApi::Listening { .. })).await;
    assert!(resource(&daemon.status().await, postern_proto::id::ResourceId::from_ulid(1.into())).is_none());
}
