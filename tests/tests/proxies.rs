//! Clients whose network lets them out through an HTTPS proxy only, with a user name and a password.

use anyhow::Context as _;
use postern_local_api::message::{Login, Trust};
use postern_proto::{api::Credential, resource::Kind};
use postern_tests::{
    client,
    cluster_bed::{CLIENT, ClusterBed, NETWORKS},
    need_namespace, need_program,
    servers::{ExampleBalancer, HttpsProxy, PROXY_PASSWORD, PROXY_USER},
    site::{self, DMZ, address},
    stack::{Builder, EMAIL, PASSWORD, Stack},
    target::{Behaviour, Target},
};
use serde_json::json;

/// A stack whose user leaves through the proxy.
fn through(proxy: &HttpsProxy, credentials: &str) -> Builder {
    let address = format!("http://{credentials}{}", proxy.address());
    Stack::builder().user_environment("POSTERN_HTTPS_PROXY", &address)
}

/// Everything that a user does goes through the proxy, which sees names and ports and no more.
async fn works_through(proxy: HttpsProxy) -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let file = proxy.credentials_file()?;
    let builder = through(&proxy, "")
        .user_environment("POSTERN_HTTPS_PROXY_CREDENTIALS_FILE", file.to_str().context("a path in UTF-8")?);
    let mut stack = builder.resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    for _ in 0..5 {
        assert_eq!(client::exchange(address, &[7; 100_000]).await?, [7; 100_000]);
    }
    // An uploader that the proxy would buffer, and an answer that comes late.
    let mut stream = client::open(address).await?;
    client::ask(&mut stream, &[1; 300_000]).await?;
    client::ask(&mut stream, b"again").await?;
    drop(stream);

    let doctor = stack.user().postern(&["doctor"]).await?;
    assert!(doctor.contains(&format!("HTTPS proxy {PROXY_USER}@{}", proxy.address())), "{doctor}");
    let gateway = stack.gateways.first().context("a gateway")?.address();
    stack.user_mut().stop().await?;
    let log = stack.user().log();
    assert!(!log.contains(PROXY_PASSWORD) && !doctor.contains(PROXY_PASSWORD), "the password is shown");
    // Squid writes of a connection when it has ended.
    let carried = proxy.carried()?;
    for expected in [format!("{gateway}"), format!("{}", stack.control.address().address)] {
        assert!(carried.contains(&expected), "nothing of {expected} in {carried}");
    }
    stack.stop().await?;
    proxy.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_through_squid_with_a_password() -> anyhow::Result<()> {
    need_program!(HttpsProxy::SQUID);
    works_through(HttpsProxy::squid().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_through_tinyproxy_with_a_password() -> anyhow::Result<()> {
    need_program!(HttpsProxy::TINYPROXY);
    works_through(HttpsProxy::tinyproxy().await?).await
}

/// What the user is told who cannot sign in.
async fn refusal(proxy: &HttpsProxy, credentials: &str) -> anyhow::Result<String> {
    let stack = through(proxy, credentials).without_user().start().await?;
    let user = stack.add_user("ada", None, &[]).await?;
    let credential = Credential::Password { email: EMAIL.to_owned(), password: PASSWORD.to_owned() };
    let login = Login { control: None, trust: Trust::Known, credential };
    let error = user.client().login(&login).await.err().context("it signed in past the proxy")?.to_string();
    let doctor = user.postern(&["doctor"]).await.unwrap_or_else(|error| format!("{error:#}"));
    assert!(doctor.contains("407"), "{doctor}");
    assert!(
        !user.log().contains("wrong-secret") && !error.contains("wrong-secret") && !doctor.contains("wrong-secret")
    );
    drop(user);
    stack.stop().await?;
    Ok(error)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_wants_a_password_says_so_to_the_user() -> anyhow::Result<()> {
    need_program!(HttpsProxy::SQUID);
    let proxy = HttpsProxy::squid().await?;
    let missing = refusal(&proxy, "").await?;
    assert!(missing.contains("wants a user name and password"), "{missing}");
    let wrong = refusal(&proxy, "ada:wrong-secret@").await?;
    assert!(wrong.contains("does not accept the user name and password"), "{wrong}");
    proxy.stop().await
}

/// The network of the proxy, which alone has cables to the client's network and to the DMZ.
const EDGE: usize = NETWORKS + 1;

/// A client whose network reaches nothing but a proxy that wants a password, and a cluster of two workers behind haproxy.
fn reaches_a_cluster_through<F>(start: impl FnOnce(std::net::IpAddr) -> F + Send + 'static) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<HttpsProxy>>,
{
    site::run(EDGE, async move |site| {
        site.join(CLIENT, EDGE).await?;
        site.part(CLIENT, 0).await?;
        let proxy = site.within(EDGE, move || start(address(EDGE, CLIENT))).await?;
        let file = proxy.credentials_file()?;
        let builder = through(&proxy, "")
            .user_environment("POSTERN_HTTPS_PROXY_CREDENTIALS_FILE", file.to_str().context("a path in UTF-8")?);
        let mut bed = ClusterBed::start(site, builder).await?;
        bed.start_workers(&[], true).await?;
        let balancer = ExampleBalancer::haproxy_tcp(DMZ, bed.behind()?).await?;
        bed.change(json!({"advertise": balancer.address().to_string()})).await?;
        let local = bed.stack.user().connect("db").await?;
        bed.carries(local).await?;
        bed.client_reaches_only(proxy.address()).await?;
        let past = balancer.address();
        let past =
            bed.site.within(CLIENT, move || async move { Ok(tokio::net::TcpStream::connect(past).await.is_ok()) });
        assert!(!past.await?, "there is a way past the proxy");
        // Workers know whose connections the balancer passes on: the proxy's.
        let edge = std::collections::BTreeSet::from([address(EDGE, 0)]);
        assert!(bed.recorded().await?.values().all(|clients| *clients == edge));

        // The password is another one now.
        bed.stack.user_mut().stop().await?;
        std::fs::write(&file, format!("{PROXY_USER}:wrong-secret\n"))?;
        bed.stack.user_mut().restart().await?;
        let words = "does not accept the user name and password";
        let away = |status: &postern_local_api::message::Status| {
            serde_json::to_string(status).is_ok_and(|status| status.contains(words))
        };
        bed.stack.user().status_when(away).await.context("the status does not say what is wrong")?;
        let local = bed.stack.user().listens("db").await?;
        let refused = bed.site.within(CLIENT, move || async move { client::exchange(local, b"hello").await });
        assert!(refused.await.is_err(), "a stream went past the proxy");
        let status = bed.stack.user().postern(&["status"]).await.unwrap_or_else(|error| format!("{error:#}"));
        let doctor = bed.stack.user().postern(&["doctor"]).await.unwrap_or_else(|error| format!("{error:#}"));
        for said in [&status, &doctor] {
            assert!(said.contains(words), "{said}");
            assert!(!said.contains("wrong-secret") && !said.contains(PROXY_PASSWORD), "the password is shown");
        }
        let log = bed.stack.user().log();
        assert!(!log.contains("wrong-secret") && !log.contains(PROXY_PASSWORD), "the password is in the log");
        let carried = proxy.carried()?;
        for expected in [balancer.address(), bed.stack.control.address().address] {
            assert!(carried.contains(&expected.to_string()), "nothing of {expected} in {carried}");
        }
        balancer.stop().await?;
        bed.stop().await?;
        proxy.stop().await
    })
}

#[test]
fn a_cluster_is_reached_through_squid_from_where_nothing_else_is() -> anyhow::Result<()> {
    need_namespace!();
    need_program!(HttpsProxy::SQUID);
    need_program!(ExampleBalancer::HAPROXY);
    reaches_a_cluster_through(HttpsProxy::squid_at)
}

#[test]
fn a_cluster_is_reached_through_tinyproxy_from_where_nothing_else_is() -> anyhow::Result<()> {
    need_namespace!();
    need_program!(HttpsProxy::TINYPROXY);
    need_program!(ExampleBalancer::HAPROXY);
    reaches_a_cluster_through(HttpsProxy::tinyproxy_at)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inner_worker_reaches_control_plane_and_bridge_through_a_proxy_and_its_resources_past_it()
-> anyhow::Result<()> {
    need_program!(HttpsProxy::TINYPROXY);
    let proxy = HttpsProxy::tinyproxy().await?;
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().gateways(0).resource("echo", Kind::Tcp, target.address()).start().await?;
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let cluster = stack.create_cluster("eu", nowhere).await?;
    let key = stack.create_key(cluster).await?;
    let mut bridge = stack.start_worker_with("bridge", &key, &[("POSTERN_BRIDGE", "local")]).await?;
    let edge = bridge.listens().to_string();
    stack.api().patch(&format!("/api/v1/clusters/{cluster}"), json!({"advertise": edge})).await?;
    let (address, file) = (format!("http://{}", proxy.address()), proxy.credentials_file()?);
    let file = file.to_str().context("a path in UTF-8")?;
    let environment = [
        ("POSTERN_BRIDGE", edge.as_str()),
        ("POSTERN_HTTPS_PROXY", &address),
        ("POSTERN_HTTPS_PROXY_CREDENTIALS_FILE", file),
    ];
    let mut inner = stack.start_worker_with("inner", &key, &environment).await?;
    let resource = stack.resource("echo").await?;
    stack.api().patch(&format!("/api/v1/resources/{resource}"), json!({"cluster": cluster})).await?;
    let local = stack.user().connect("echo").await?;
    let deadline = std::time::Instant::now() + client::DEADLINE;
    while !client::exchange(local, b"hello").await.is_ok_and(|answer| answer == b"hello") {
        anyhow::ensure!(std::time::Instant::now() < deadline, "no stream goes through");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let carried = proxy.carried()?;
    for expected in [bridge.listens(), stack.control.address().address] {
        assert!(carried.contains(&expected.to_string()), "nothing of {expected} in {carried}");
    }
    assert!(!carried.contains(&target.address().to_string()), "a resource was dialled through the proxy: {carried}");
    inner.stop().await?;
    assert!(!inner.log().contains(PROXY_PASSWORD), "the password is in the log");
    bridge.stop().await?;
    stack.stop().await?;
    proxy.stop().await
}
