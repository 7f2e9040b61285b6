//! Clients whose network lets them out through an HTTPS proxy only, with a user name and a password.

use anyhow::Context as _;
use postern_local_api::message::{Login, Trust};
use postern_proto::{api::Credential, resource::Kind};
use postern_tests::{
    client, need_program,
    servers::{HttpsProxy, PROXY_PASSWORD, PROXY_USER},
    stack::{Builder, EMAIL, PASSWORD, Stack},
    target::{Behaviour, Target},
};

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
