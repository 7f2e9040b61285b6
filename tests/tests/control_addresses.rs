//! Two control planes on one PostgreSQL database without a balancer before them: gateways and services are told of both,
//! and go to the other when theirs is killed.

use std::time::{Duration, Instant};

use postern_local_api::message::{ControlLink, Login, Trust};
use postern_proto::{api::Credential, resource::Kind};
use postern_tests::{
    client, need_program,
    servers::Postgres,
    stack::{EMAIL, PASSWORD, Stack, User},
    target::{Behaviour, Target},
};
use serde_json::Value;

/// How long everybody may take to be back. Generous: the machine may be busy.
const BACK_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_both_control_planes_goes_to_the_one_that_is_left() -> anyhow::Result<()> {
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    let database = Postgres::start().await?;
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder()
        .database(&format!("postgres://postgres@{}/postgres", database.address()))
        .gateways(0)
        .resource("echo", Kind::Tcp, target.address())
        .without_user()
        .start()
        .await?;
    let mut second = stack.start_replica("control-2").await?;
    let other = ["--control".to_owned(), second.url()];
    let mut gateway = stack.add_gateway("gw-both", &other).await?;
    let mut user = stack.add_user("both", None, &[]).await?;
    let both = format!("{},{}", stack.control.url(), second.url());
    let pem = std::fs::read_to_string(stack.control.ca_file())?;
    let credential = Credential::Password { email: EMAIL.to_owned(), password: PASSWORD.to_owned() };
    user.client().login(&Login { control: Some(both.clone()), trust: Trust::Ca { pem }, credential }).await?;
    user.knows("echo").await?;
    let address = user.connect("echo").await?;
    let mut held = client::open(address).await?;
    client::ask(&mut held, b"with both").await?;

    // Each of them in its turn, so that everybody has to move at least once, whichever it began with.
    stack.control.kill().await?;
    connected_to(&user, &second.url()).await?;
    seen_at(&stack.admin_at(&second)?, &gateway.id().to_string()).await?;
    client::ask(&mut held, b"without the first").await?;
    stack.control.restart().await?;
    second.kill().await?;
    connected_to(&user, &stack.control.url()).await?;
    seen_at(&stack.admin_at(&stack.control)?, &gateway.id().to_string()).await?;
    client::ask(&mut held, b"without the second").await?;
    assert_eq!(client::exchange(address, b"a new one").await?, b"a new one");

    // What is shown is the one that is used, and the doctor names it among all.
    let report = user.postern(&["doctor", "--json"]).await?;
    assert!(report.contains(&format!("{}, one of {both} (", stack.control.url())), "{report}");
    // Signing in works over any, too.
    user.postern(&["logout"]).await?;
    user.login_with_cli(EMAIL, PASSWORD).await?;
    connected_to(&user, &stack.control.url()).await?;
    user.stop().await?;
    gateway.stop().await?;
    second.restart().await?;
    second.stop().await?;
    stack.stop().await?;
    database.stop().await
}

async fn connected_to(user: &User, wanted: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + BACK_WITHIN;
    loop {
        let link = user.status().await?.control;
        if matches!(&link, ControlLink::Connected { url, .. } if url == wanted) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "not connected to {wanted}: {link:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether this control plane sees the node as connected.
async fn seen_at(api: &postern_tests::api::Api, node: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + BACK_WITHIN;
    loop {
        let view: anyhow::Result<Value> = api.get(&format!("/api/v1/nodes/{node}")).await;
        if view.as_ref().is_ok_and(|view| view["state"] == "up") {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "the gateway is not seen: {view:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
