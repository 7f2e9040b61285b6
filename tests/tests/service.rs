//! posternd over its life: crashes, restarts, ports that others hold, grants that come and go.

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_local_api::message::{Connection, ControlLink, Selection, SignIn};
use postern_proto::{api::Credential, resource::Kind};
use postern_tests::{
    client, figure,
    stack::Stack,
    target::{Behaviour, Target},
};
use serde_json::json;

/// The figure for grants, with room for a busy machine.
const LIVE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_connected_is_connected_again_after_a_crash() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let builder = Stack::builder().resource("one", Kind::Tcp, target.address());
    let mut stack = builder.resource("other", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("one").await?;
    assert_eq!(client::exchange(address, b"before").await?, b"before");
    stack.user_mut().kill().await?;
    stack.user_mut().restart().await?;
    assert!(matches!(stack.user().status().await?.sign_in, SignIn::SignedIn { .. }), "the sign-in was lost");
    assert_eq!(stack.user().listens("one").await?, address);
    assert_eq!(client::exchange(address, b"after").await?, b"after");
    let other = stack.user().knows("other").await?;
    assert_eq!(other.connection, Connection::Disconnected, "only what was connected is listened for");
    stack.user().disconnect("one").await?;
    assert!(client::exchange(address, b"no more").await.is_err());
    stack.user_mut().kill().await?;
    stack.user_mut().restart().await?;
    let one = stack.user().knows("one").await?;
    assert_eq!(one.connection, Connection::Disconnected, "what was disconnected stays so");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_names_who_has_it_and_is_taken_when_it_is_free() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let bind = stack.user().knows("echo").await?.resource.bind;
    let holder = TcpListener::bind(SocketAddr::new(bind.ip, bind.port))?;
    stack.user().client().connect(&Selection::All).await?;
    let blocked = |connection: &Connection| matches!(connection, Connection::PortInUse { holder: Some(_), .. });
    let status = stack.user().resource_when("echo", |status| blocked(&status.connection)).await?;
    let Connection::PortInUse { holder: Some(named), address, .. } = status.connection else {
        anyhow::bail!("{:?}", status.connection)
    };
    assert_eq!(named.pid, Some(std::process::id()), "{named:?}");
    assert_eq!(address.port(), bind.port);
    let program = named.program.context("the program is not named")?;
    let own = std::env::current_exe()?;
    let own = own.file_name().and_then(|name| name.to_str()).context("no name")?;
    assert!(own.starts_with(program.trim_end_matches("...")) || program.contains(own), "{program} is not {own}");
    drop(holder);
    let address = stack.user().listens("echo").await?;
    assert_eq!(client::exchange(address, b"free").await?, b"free");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_says_that_one_runs() -> anyhow::Result<()> {
    let stack = Stack::builder().gateways(0).start().await?;
    let (status, said) = stack.user().start_again().await?;
    assert!(!status.success());
    assert!(said.contains("already") && said.contains("run"), "{said}");
    assert!(said.contains(&stack.user().process_id().to_string()), "the running process is not named: {said}");
    stack.user().status().await.context("the first service must not suffer")?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_appears_and_disappears_within_two_seconds() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().start().await?;
    let resource = stack.create_resource("echo", Kind::Tcp, target.address()).await?;
    assert!(stack.user().status().await?.resources.is_empty());
    let granted = Instant::now();
    let grant = stack.grant(stack.account, resource, None).await?;
    stack.user().knows("echo").await?;
    let appeared = granted.elapsed();
    let address = stack.user().connect("echo").await?;
    let mut stream = client::open(address).await?;

    let taken = Instant::now();
    stack.api().delete(&format!("/api/v1/grants/{grant}")).await?;
    assert_eq!(client::end(&mut stream).await?, client::End::Reset);
    stack.user().status_when(|status| status.resources.is_empty()).await?;
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(taken.elapsed() < client::DEADLINE, "the listener stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let closed = taken.elapsed();
    figure::say(&format!("a grant appeared after {appeared:?}, its end closed the listener after {closed:?}"));
    assert!(appeared <= LIVE && closed <= LIVE, "{appeared:?} {closed:?}");

    // Whoever was connected before is connected again when the grant is back.
    stack.grant(stack.account, resource, None).await?;
    stack.user().knows("echo").await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_address_is_followed() -> anyhow::Result<()> {
    let [one, other] = [Target::start(Behaviour::Echo).await?, Target::start(Behaviour::Echo).await?];
    let stack = Stack::builder().resource("echo", Kind::Tcp, one.address()).start().await?;
    let before = stack.user().connect("echo").await?;
    let resource = stack.resource("echo").await?;
    let bind = json!({"mode": "loopback", "ip": stack.loopback, "port": 23_456});
    let change = json!({"port": other.address().port(), "bind": bind});
    stack.api().patch(&format!("/api/v1/resources/{resource}"), change).await?;
    let after = SocketAddr::from((stack.loopback, 23_456));
    let moved = |connection: &Connection| *connection == Connection::Listening { address: after };
    stack.user().resource_when("echo", |status| moved(&status.connection)).await?;
    let deadline = Instant::now() + client::DEADLINE;
    while other.bytes() == 0 {
        assert!(Instant::now() < deadline, "the resource's new port is not used");
        let _ = client::exchange(after, b"moved").await;
    }
    assert!(tokio::net::TcpStream::connect(before).await.is_err(), "the old address is still listened on");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_connects_everything_by_itself() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let account = json!({"email": "robot@example.org", "name": "robot", "kind": "service"});
    let account = stack.api().post("/api/v1/accounts", account).await?;
    let id = account["id"].as_str().context("no id")?;
    let token = stack.api().post(&format!("/api/v1/accounts/{id}/tokens"), json!({"name": "test"})).await?;
    let token = token["token"].as_str().context("no token")?.to_owned();
    stack.api().post(&format!("/api/v1/roles/{}/members", stack.role), json!({"account": id})).await?;

    let mut robot = stack.add_user("robot", None, &[]).await?;
    let credential = Credential::ServiceToken { token };
    let login = postern_local_api::message::Login { control: None, trust: Default::default(), credential };
    robot.client().login(&login).await?;
    // Two services of one machine want the same address: only one can have it.
    stack.user().knows("echo").await?;
    let address = robot.listens("echo").await?;
    assert_eq!(client::exchange(address, b"robot").await?, b"robot");
    let sessions = stack.sessions_when(|sessions| !sessions.is_empty()).await?;
    assert!(sessions[0].to_string().contains(id), "{sessions:?}");
    robot.stop().await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_control_plane_is_survived() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let mut stream = client::open(address).await?;
    stack.control.stop().await?;
    stack.user().status_when(|status| matches!(status.control, ControlLink::Away { .. })).await?;
    stack.control.restart().await?;
    stack.user().status_when(|status| matches!(status.control, ControlLink::Connected { .. })).await?;
    client::ask(&mut stream, b"still here").await?;
    // A gateway that is not back yet does not know what is made now.
    stack.nodes_are_connected().await?;
    let resource = stack.create_resource("late", Kind::Tcp, target.address()).await?;
    stack.add_rule(stack.role, &[resource]).await?;
    stack.user().knows("late").await.context("what is granted after the restart")?;
    let late = stack.user().connect("late").await?;
    assert_eq!(client::exchange(late, b"late").await?, b"late");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn locking_holds_everything_back_and_unlocking_gives_it_again() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let mut stream = client::open(address).await?;
    stack.user().client().lock().await?;
    assert_eq!(client::end(&mut stream).await?, client::End::Reset);
    assert!(client::exchange(address, b"locked").await.map_or(true, |answer| answer.is_empty()));
    let wrong = postern_local_api::message::Unlock { password: "not the password".to_owned() };
    assert!(stack.user().client().unlock(&wrong).await.is_err());
    let right = postern_local_api::message::Unlock { password: postern_tests::stack::PASSWORD.to_owned() };
    stack.user().client().unlock(&right).await?;
    let address = stack.user().listens("echo").await?;
    assert_eq!(client::exchange(address, b"open").await?, b"open");

    stack.user().client().logout().await?;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "listened on while signed out");
    assert!(stack.user().status().await?.resources.is_empty());
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_file_descriptors_are_raised_by_the_service_itself() -> anyhow::Result<()> {
    let stack = Stack::builder().gateways(0).start().await?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", stack.user().process_id()))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no such limit")?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (soft, hard) = (fields[3], fields[4]);
    assert_eq!(soft, hard, "the soft limit stays below the hard one");
    stack.stop().await
}

/// Shut down in good order, it leaves no socket and no listener.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_service_leaves_nothing_listening() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let socket = stack.user().client().socket().to_owned();
    assert!(socket.exists());
    stack.user_mut().stop().await?;
    assert!(!socket.exists(), "{} is left", socket.display());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    stack.stop().await
}
