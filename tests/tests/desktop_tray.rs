//! The tray, over D-Bus as a panel does it: every item is clicked by its label, and the window shows what came of it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_proto::resource::Kind;
use postern_tests::{
    desk::{Desk, MenuItem, Window},
    need_desk,
    stack::{PASSWORD, Stack},
    target::{Behaviour, Target},
};

fn labels(menu: &MenuItem) -> Vec<String> {
    menu.all().into_iter().map(|item| item.label.clone()).filter(|label| !label.is_empty()).collect()
}

fn has(menu: &MenuItem, label: &str) -> bool {
    labels(menu).iter().any(|found| found.starts_with(label))
}

async fn open(desk: &Desk, stack: &Stack) -> anyhow::Result<Window> {
    let home = stack.user().home().display().to_string();
    desk.open(&[], &[("POSTERN_HOME", &home)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_item_of_the_tray_does_what_it_says() -> anyhow::Result<()> {
    need_desk!();
    let echo = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().resource("echo", Kind::Tcp, echo.address()).start().await?;
    stack.user().connect("echo").await?;
    let desk = Desk::start().await?;
    let window = open(&desk, &stack).await?;
    window.find("row", "echo").await?;

    // The state in words first, then what was used last.
    let menu = desk.tray().menu_when(|menu| has(menu, "1 of 1 connected") && has(menu, "echo")).await?;
    let toggle = menu.items.iter().find(|item| item.label.starts_with("echo")).context("no item of the resource")?;
    ensure!(toggle.checked == Some(true), "{menu:#?}");

    desk.tray().click("echo ·").await?;
    stack.user().resource_when("echo", |status| !status.wanted).await?;
    // The toolkit takes the tick away by itself: only a menu that was made anew has no port behind the name, and connects.
    let is_off = |menu: &MenuItem| menu.items.iter().any(|item| item.label == "echo" && item.checked == Some(false));
    desk.tray().menu_when(is_off).await?;
    desk.tray().click("echo").await?;
    stack.user().listens("echo").await?;

    // The copy of the address is in a menu below.
    let menu = desk.tray().menu_when(|menu| has(menu, "Copy address")).await?;
    let copies = menu.items.iter().find(|item| item.label.starts_with("Copy address")).context("no copies")?;
    ensure!(copies.items.iter().any(|item| item.label == "echo"), "{copies:#?}");
    desk.tray().click_below(&["Copy address"], "echo").await?;
    let address = stack.user().listens("echo").await?.to_string();
    window.pasted(|text| text == address).await.with_context(|| format!("not {address}"))?;

    desk.tray().click("Settings").await?;
    window.sees("How Postern looks and behaves").await?;
    // Opening shows the window where it is.
    desk.tray().click("Open").await?;
    window.press(&char::from(fantoccini::key::Key::Escape).to_string()).await?;
    window.find("row", "echo").await?;

    desk.tray().click("Disconnect all").await?;
    stack.user().resource_when("echo", |status| !status.wanted).await?;
    desk.tray().menu_when(|menu| !has(menu, "Disconnect all")).await?;

    // With a favourite that is off there is one more item, and it goes when there is nothing left to connect.
    ensure!(!has(&desk.tray().menu().await?, "Connect favourites"));
    window.find("row", "echo").await?.click().await?;
    window.press("f").await?;
    desk.tray().click("Connect favourites").await?;
    stack.user().listens("echo").await?;
    desk.tray().menu_when(|menu| has(menu, "Disconnect all") && !has(menu, "Connect favourites")).await?;
    desk.tray().click("Disconnect all").await?;
    stack.user().resource_when("echo", |status| !status.wanted).await?;

    desk.tray().click("Lock").await?;
    window.find("heading", "Locked").await?;
    desk.tray().menu_when(|menu| has(menu, "Unlock") && !labels(menu).contains(&"Lock".to_owned())).await?;
    desk.tray().click("Unlock").await?;
    window.fill("textbox", "Password", PASSWORD).await?;
    window.click("button", "Unlock").await?;
    window.find("row", "echo").await?;

    // Locked with the screen, once that is wanted.
    desk.lock_screen().await?;
    desk.tray().click("Settings").await?;
    window.click("switch", "Lock with the screen").await?;
    window.press(&char::from(fantoccini::key::Key::Escape).to_string()).await?;
    window.find("row", "echo").await?;
    desk.lock_screen().await?;
    window.find("heading", "Locked").await?;
    window.fill("textbox", "Password", PASSWORD).await?;
    window.click("button", "Unlock").await?;
    window.find("row", "echo").await?;

    // Nothing is connected: quitting asks nothing, and the app ends. The service goes on.
    desk.tray().menu_when(|menu| labels(menu).contains(&"Lock".to_owned()) && has(menu, "Quit")).await?;
    desk.tray().click("Quit").await?;
    let mut closed = false;
    for _ in 0..200 {
        closed = window.text().await.is_err();
        if closed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(closed, "the window is still there after Quit");
    stack.user().client().hello().await.context("the service went with the window")?;
    window.close().await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_and_what_ends_are_items_that_lead_there() -> anyhow::Result<()> {
    need_desk!();
    // What is wrong is the second line, and shows the resource that it is about.
    let desk = Desk::start().await?;
    let window = desk.open(&["--mock", "40"], &[]).await?;
    window.find("grid", "Resources").await?;
    let wrong = |menu: &MenuItem| menu.items.iter().position(|item| item.label.starts_with("billing-replica: "));
    let menu = desk.tray().menu_when(|menu| wrong(menu).is_some()).await?;
    ensure!(wrong(&menu) == Some(1), "what is wrong is not the second line: {menu:#?}");
    desk.tray().click("billing-replica: ").await?;
    window.find("complementary", "Details of billing-replica").await?;
    // A resource that no click can switch is no tick, and leads to its details too.
    window.find("row", "analytics-warehouse").await?.click().await?;
    window.press("f").await?;
    let locked = |menu: &MenuItem| {
        menu.items.iter().any(|item| item.label.starts_with("analytics-warehouse · ") && item.checked.is_none())
    };
    desk.tray().menu_when(locked).await?;
    window.click("button", "Close details").await?;
    desk.tray().click("analytics-warehouse · ").await?;
    window.find("complementary", "Details of analytics-warehouse").await?;
    window.close().await?;

    let desk = Desk::start().await?;
    let window = desk.open(&["--mock", "expiring"], &[]).await?;
    window.find("grid", "Resources").await?;
    let menu = desk.tray().menu_when(|menu| has(menu, "Sign-in ends in")).await?;
    ensure!(menu.items.first().is_some_and(|item| !item.enabled), "the state can be clicked: {menu:#?}");
    desk.tray().click("Renew sign-in").await?;
    window.find("heading", "Renew sign-in").await?;
    window.close().await
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_out_the_tray_offers_to_sign_in_and_quitting_while_connected_asks() -> anyhow::Result<()> {
    need_desk!();
    let desk = Desk::start().await?;
    let window = desk.open(&["--mock", "signed-out"], &[]).await?;
    window.find("heading", "Sign in").await?;
    desk.tray().menu_when(|menu| has(menu, "Sign in")).await?;
    desk.tray().click("Settings").await?;
    window.sees("How Postern looks and behaves").await?;
    desk.tray().click("Sign in").await?;
    window.find("textbox", "Organisation address").await?;
    window.close().await?;

    let desk = Desk::start().await?;
    let window = desk.open(&["--mock", "40"], &[]).await?;
    window.find("grid", "Resources").await?;
    desk.tray().click("Quit").await?;
    window.find("heading", "Quit Postern?").await?;
    window.click("button", "Cancel").await?;
    window.gone("heading", "Quit Postern?").await?;
    window.close().await
}
