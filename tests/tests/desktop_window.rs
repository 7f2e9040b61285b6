//! The window, clicked through on a screen that nobody sees: the real app, posternd, control plane, gateway and
//! PostgreSQL. What the window says, the shell's programs must then do.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use fantoccini::key::Key;
use postern_proto::resource::Kind;
use postern_tests::{
    command::{Output, PATIENCE, run},
    desk::{Desk, Window},
    figure, need_desk, need_program,
    servers::Postgres,
    stack::{EMAIL, PASSWORD, Stack},
    target::{Behaviour, Target},
};
use tokio::net::TcpStream;

/// Nothing that is taken away may be longer there. What it takes in fact is printed.
const LIMIT: Duration = Duration::from_secs(5);

/// For some seconds after a sign-in the app takes what comes and goes for no news.
const QUIET: Duration = Duration::from_secs(7);

/// A window of the first user of `stack`.
async fn open(desk: &Desk, stack: &Stack) -> anyhow::Result<Window> {
    let home = stack.user().home().display().to_string();
    desk.open(&[], &[("POSTERN_HOME", &home)]).await
}

/// Waits until the row of a resource says this.
async fn row_says(window: &Window, name: &str, state: &str) -> anyhow::Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let mut said = None;
        if let Some(row) = window.all("row", name).await?.first() {
            said = row.attr("aria-label").await.ok().flatten();
        }
        if said.as_ref().is_some_and(|said| said.to_lowercase().contains(&state.to_lowercase())) {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "{name} should be {state:?}, but its row says {said:?}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Runs a command line as the user's shell would.
async fn shell(line: &str) -> anyhow::Result<Output> {
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", line]).env("PGUSER", "postgres").env("PGDATABASE", "postgres").env("PGCONNECT_TIMEOUT", "10");
    command.env("PGSSLMODE", "disable").env("PSQLRC", "/dev/null").env_remove("PGHOST").env_remove("PGPORT");
    run(&mut command, PATIENCE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_finds_a_database_uses_it_and_loses_it_within_seconds() -> anyhow::Result<()> {
    need_desk!();
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    let server = Postgres::start().await?;
    let page = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder()
        .resource("orders-primary", Kind::Postgres, server.address())
        .resource("handbook", Kind::Tcp, page.address())
        .start()
        .await?;
    stack.user().postern(&["logout"]).await?;
    let desk = Desk::start().await?;
    let window = open(&desk, &stack).await?;

    sign_in(&window, &stack).await?;
    window.find("row", "orders-primary").await?;
    let signed_in = tokio::time::Instant::now();
    window.find("row", "handbook").await?;

    window.fill("textbox", "Search", "orders").await.context("search")?;
    window.gone("row", "handbook").await?;
    window.click("switch", "orders-primary").await?;
    row_says(&window, "orders-primary", "connected").await?;
    window.click("button", "Clear search").await?;
    window.find("row", "handbook").await?;

    let line = copied_command(&window, "orders-primary").await?;
    ensure!(line == stack.user().postern(&["command", "orders-primary"]).await?.trim(), "the shell is told otherwise");
    let answer = shell(&format!("{line} --no-align --tuples-only --command 'select 6 * 7'")).await?.success()?;
    ensure!(answer.trim() == "42", "psql says {answer:?}");

    bytes_grow(&window, &line).await?;

    tokio::time::sleep_until(signed_in + QUIET).await;
    let asked = stack.revoke_all().await?;
    window.gone("row", "orders-primary").await?;
    let gone = asked.elapsed();
    let notice =
        desk.notices().when(|notice| notice.summary.contains("Access") || notice.body.contains("orders-primary"));
    let notice = notice.await?;
    let told = notice.at.saturating_duration_since(asked);
    figure::say(&format!("revoked: the row was gone after {gone:?}, the notification came after {told:?}"));
    ensure!(gone < LIMIT && told < LIMIT, "a revoked resource stayed too long: {gone:?}, {told:?}");
    shell(&format!("{line} --command 'select 1'")).await?.failure()?;

    window.close().await?;
    stack.stop().await?;
    server.stop().await
}

async fn sign_in(window: &Window, stack: &Stack) -> anyhow::Result<()> {
    let address = format!("https://{}", stack.control.address().address);
    window.fill("textbox", "Organisation address", &address).await?;
    window.fill("textbox", "E-mail", EMAIL).await?;
    window.click("button", "Continue").await?;
    // First a wrong one: it is said, and nothing typed is lost.
    window.fill("textbox", "Password", "no, this is wrong").await?;
    window.click("button", "Sign in").await?;
    window.find("alert", "").await?;
    window.fill("textbox", "Password", PASSWORD).await?;
    window.click("button", "Sign in").await
}

/// The command of a resource, by the keyboard: its row in focus, Shift C.
async fn copied_command(window: &Window, name: &str) -> anyhow::Result<String> {
    let search = window.find("textbox", "Search").await?;
    search.click().await?;
    search.send_keys(name).await?;
    window.gone("row", "handbook").await?;
    search.send_keys(&char::from(Key::Down).to_string()).await?;
    window.chord(char::from(Key::Shift), 'C').await?;
    window.pasted(|text| text.starts_with("psql ")).await
}

async fn bytes_grow(window: &Window, line: &str) -> anyhow::Result<()> {
    let received = async || {
        let script = "const row = [...document.querySelectorAll('aside section')].map((s) => s.innerText).join('\\n'); return row;";
        let text = window.run(script, vec![]).await?;
        anyhow::Ok(text.as_str().unwrap_or_default().to_owned())
    };
    window.find("row", "orders-primary").await?.click().await?;
    window.find("complementary", "Details of orders-primary").await?;
    window.reads("the traffic is shown", |text| text.to_uppercase().contains("TRAFFIC")).await?;
    let before = received().await?;
    shell(&format!("{line} --quiet --output /dev/null --command \"select repeat('x', 5000000)\"")).await?.success()?;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let now = received().await?;
        if now.contains("MB") && now != before {
            break;
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "5 MB went through, and the window says\n{now}\nbefore\n{before}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    window.click("button", "Close details").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_follows_what_others_do_and_what_breaks() -> anyhow::Result<()> {
    need_desk!();
    let echo = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().resource("echo", Kind::Tcp, echo.address()).start().await?;
    let desk = Desk::start().await?;
    let window = open(&desk, &stack).await?;
    row_says(&window, "echo", "off").await?;

    // The shell connects, the window shows it.
    stack.user().postern(&["connect", "echo"]).await?;
    row_says(&window, "echo", "connected").await?;
    let address = stack.user().listens("echo").await?;
    works(address).await?;

    // The window locks: the address refuses, and unlocking brings it back.
    window.click("button", "Lock").await?;
    window.find("heading", "Locked").await?;
    ensure!(works(address).await.is_err(), "a locked resource still works");
    window.fill("textbox", "Password", "wrong").await?;
    window.click("button", "Unlock").await?;
    window.find("alert", "").await?;
    window.fill("textbox", "Password", PASSWORD).await?;
    window.click("button", "Unlock").await?;
    row_says(&window, "echo", "connected").await.context("unlocked")?;
    works(address).await?;

    // The gateway goes, and comes back.
    let gateway = stack.gateways.first_mut().context("no gateway")?;
    gateway.kill().await?;
    let killed = std::time::Instant::now();
    row_says(&window, "echo", "unhealthy").await.context("a killed gateway")?;
    figure::say(&format!("a killed gateway was shown after {:?}", killed.elapsed()));
    let gateway = stack.gateways.first_mut().context("no gateway")?;
    gateway.restart().await?;
    row_says(&window, "echo", "connected").await.context("the gateway is back")?;
    works(stack.user().listens("echo").await?).await?;

    // The control plane goes: that is said, what is open goes on, and a click tries it before its time.
    stack.control.kill().await?;
    window.find("button", "Try now").await?;
    works(stack.user().listens("echo").await?).await?;
    window.click("button", "Try now").await?;
    stack.control.restart().await?;
    if let Some(button) = window.all("button", "Try now").await?.first() {
        // It may be back by itself meanwhile.
        let _ = button.click().await;
    }
    window.gone("button", "Try now").await?;

    // posternd is killed: the window says so, starts it again by itself, and follows the new one.
    stack.user_mut().kill().await?;
    let away =
        |text: &str| ["Service away", "service is away", "service is not running"].iter().any(|w| text.contains(w));
    window.reads("the service is away", away).await?;
    let client = stack.user().client();
    let killed = std::time::Instant::now();
    while client.hello().await.is_err() {
        ensure!(killed.elapsed() < Duration::from_secs(60), "the killed service was not started again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    figure::say(&format!("the window started the killed service again after {:?}", killed.elapsed()));
    row_says(&window, "echo", "connected").await.context("the service was started again")?;
    works(stack.user().listens("echo").await?).await?;

    // One that is stopped in good order stays stopped until somebody starts it.
    client.shutdown().await?;
    window.reads("the service is away", away).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    ensure!(client.hello().await.is_err(), "a service that was stopped came back by itself");
    window.click("button", "Start it").await?;
    row_says(&window, "echo", "connected").await.context("somebody started the service")?;

    window.close().await?;
    client.shutdown().await?;
    stack.stop().await
}

/// Something comes back through the resource.
async fn works(address: SocketAddr) -> anyhow::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"ping").await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        ensure!(&answer == b"ping", "another answer: {answer:?}");
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), exchange).await.context("no answer")?
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_resources_are_searched_and_walked_by_keyboard() -> anyhow::Result<()> {
    need_desk!();
    let desk = Desk::start().await?;
    let window = desk.open(&["--mock", "10000"], &[]).await?;
    window.find("grid", "Resources").await?;
    let grid = window.find("grid", "Resources").await?;
    ensure!(grid.attr("aria-rowcount").await?.as_deref() == Some("10000"));
    let drawn = window.all("row", "").await?.len();
    ensure!(drawn < 200, "{drawn} rows are drawn at once");

    let search = window.find("textbox", "Search").await?;
    search.click().await?;
    search.send_keys(&char::from(Key::Down).to_string()).await?;
    window.press(&char::from(Key::End).to_string()).await?;
    active_row(&window, "10000").await.context("End")?;
    window.press(&char::from(Key::Home).to_string()).await?;
    active_row(&window, "1").await.context("Home")?;
    window.close().await
}

/// Waits until the row of this number has the focus: it is drawn only once the list has moved there.
async fn active_row(window: &Window, number: &str) -> anyhow::Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let script = "return document.activeElement.getAttribute('aria-rowindex');";
        let row = window.run(script, vec![]).await?;
        if row.as_str() == Some(number) {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "leads to row {row}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
