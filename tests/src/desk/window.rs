//! The window of `postern-desktop`, by WebDriver.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fantoccini::{
    Client, ClientBuilder,
    actions::{InputSource, KeyAction, KeyActions},
    elements::ElementRef,
    key::Key,
    wd::Capabilities,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{DEADLINE, Desk, POLL, driver};
use crate::{binaries::desktop, command::find_program, ports::free_port, process::Process};

pub use fantoccini::elements::Element;

/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const FIND: &str = include_str!("find.js");

/// An open window. [`Window::close`] ends the app in good order.
pub struct Window {
    client: Client,
    driver: Process,
}

impl Window {
    pub(super) async fn open(desk: &Desk, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let program = desktop()?;
        let mut last = None;
        // Somebody else may take a port first.
        for _ in 0..3 {
            let (driver, port) = start_driver(desk, environment).await?;
            match attach(port, &program, arguments).await {
                Ok(client) => return Ok(Self { client, driver }),
                Err(error) => last = Some(error.context(driver.log_end())),
            }
            end(&driver);
        }
        Err(last.context("no attempt was made")?).context("the window does not open")
    }

    /// For what is not said here.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What the app and its driver logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.driver.log()
    }

    /// All elements of this role whose name holds `name`, that are shown now.
    pub async fn all(&self, role: &str, name: &str) -> anyhow::Result<Vec<Element>> {
        self.search(role, name, false).await
    }

    /// The element of this role whose name holds `name`, waited for.
    pub async fn find(&self, role: &str, name: &str) -> anyhow::Result<Element> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            // A page that is being loaded has no elements yet.
            let found = self.search(role, name, false).await.unwrap_or_default().into_iter().next();
            if let Some(element) = found {
                return Ok(element);
            }
            if Instant::now() > deadline {
                anyhow::bail!("no {role} {name:?} in the window, which says:\n{}", self.text().await?);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until no element of this role and name is shown.
    pub async fn gone(&self, role: &str, name: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !self.search(role, name, false).await?.is_empty() {
            if Instant::now() > deadline {
                anyhow::bail!("the {role} {name:?} stays in the window, which says:\n{}", self.text().await?);
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Clicks an element, once it is there and can be clicked.
    pub async fn click(&self, role: &str, name: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let clicked = self.find(role, name).await?.click().await;
            match clicked {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("cannot click the {role} {name:?}"));
                }
                // Drawn anew in between, or still moving.
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Puts `text` in place of what a field holds.
    pub async fn fill(&self, role: &str, name: &str, text: &str) -> anyhow::Result<()> {
        let field = self.find(role, name).await?;
        field.clear().await.with_context(|| format!("cannot clear {name:?}"))?;
        field.send_keys(text).await.with_context(|| format!("cannot type into {name:?}"))
    }

    /// Types with the focus where it is. Special keys are [`fantoccini::key::Key`].
    pub async fn press(&self, keys: &str) -> anyhow::Result<()> {
        let mut actions = KeyActions::new("keyboard".to_owned());
        for key in keys.chars() {
            actions = actions.then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key });
        }
        self.client.perform_actions(actions).await.context("cannot press keys")
    }

    /// Holds `modifier` while `key` is pressed.
    pub async fn chord(&self, modifier: char, key: char) -> anyhow::Result<()> {
        let actions = KeyActions::new("keyboard".to_owned())
            .then(KeyAction::Down { value: modifier })
            .then(KeyAction::Down { value: key })
            .then(KeyAction::Up { value: key })
            .then(KeyAction::Up { value: modifier });
        self.client.perform_actions(actions).await.context("cannot press keys")
    }

    /// What is on the clipboard once `holds` says yes, pasted into the search, which is emptied again. A click that copies
    /// is over before the clipboard has what was copied.
    pub async fn pasted(&self, holds: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let deadline = Instant::now() + DEADLINE;
        let search = self.find("textbox", "Search").await?;
        loop {
            search.click().await?;
            self.chord(char::from(Key::Control), 'a').await?;
            self.chord(char::from(Key::Control), 'v').await?;
            let text = search.prop("value").await?.unwrap_or_default();
            if holds(&text) {
                self.click("button", "Clear search").await?;
                return Ok(text);
            }
            anyhow::ensure!(Instant::now() < deadline, "the clipboard holds {text:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// All that can be read in the window.
    pub async fn text(&self) -> anyhow::Result<String> {
        let text = self.run("return document.body ? document.body.innerText : '';", vec![]).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the window shows this text; how long that took.
    pub async fn sees(&self, text: &str) -> anyhow::Result<Duration> {
        self.text_when(text, true).await
    }

    /// Waits until the window no longer shows this text.
    pub async fn no_longer_sees(&self, text: &str) -> anyhow::Result<Duration> {
        self.text_when(text, false).await
    }

    /// Waits until `holds` says yes of the window's text.
    pub async fn reads(&self, what: &str, holds: impl Fn(&str) -> bool) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            let text = self.text().await.unwrap_or_default();
            if holds(&text) {
                return Ok(start.elapsed());
            }
            anyhow::ensure!(start.elapsed() < DEADLINE, "{what}: the window says:\n{text}");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn text_when(&self, text: &str, there: bool) -> anyhow::Result<Duration> {
        let what = format!("{text:?} {} be there", if there { "should" } else { "should not" });
        self.reads(&what, |shown| shown.contains(text) == there).await
    }

    /// Runs JavaScript in the window.
    pub async fn run(&self, script: &str, arguments: Vec<Value>) -> anyhow::Result<Value> {
        self.client.execute(script, arguments).await.context("the window does not answer")
    }

    /// A picture of the window's content as PNG.
    pub async fn picture(&self) -> anyhow::Result<Vec<u8>> {
        self.client.screenshot().await.context("no picture")
    }

    pub async fn resize(&self, width: u32, height: u32) -> anyhow::Result<()> {
        self.client.set_window_size(width, height).await.context("cannot resize the window")
    }

    /// Ends the app and its driver.
    pub async fn close(mut self) -> anyhow::Result<()> {
        // The app may have ended itself.
        let _ = tokio::time::timeout(Duration::from_secs(20), self.client.clone().close()).await;
        let log = self.driver.log();
        self.driver.stop().await?;
        anyhow::ensure!(!log.contains("panicked at"), "the app panicked\n{log}");
        Ok(())
    }

    async fn search(&self, role: &str, name: &str, exact: bool) -> anyhow::Result<Vec<Element>> {
        let found = loop {
            match self.run(FIND, vec![json!(role), json!(name), json!(exact)]).await {
                // What was found left the page before the driver had a handle of it: look again. That ends, since each
                // time an element has gone.
                Err(error) if format!("{error:#}").contains("Stale element") => tokio::time::sleep(POLL).await,
                found => break found?,
            }
        };
        let references = found.as_array().into_iter().flatten().filter_map(|found| found.get(ELEMENT)?.as_str());
        Ok(references
            .map(|id| Element::from_element_id(self.client.clone(), ElementRef::from(id.to_owned())))
            .collect())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        end(&self.driver);
    }
}

/// Killed, it would leave its own children behind.
fn end(driver: &Process) {
    if let Ok(id) = i32::try_from(driver.id())
        && let Some(pid) = rustix::process::Pid::from_raw(id)
        && !driver.is_settled()
    {
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        std::thread::sleep(Duration::from_millis(200));
    }
}

async fn start_driver(desk: &Desk, environment: &[(&str, &str)]) -> anyhow::Result<(Process, u16)> {
    let (port, native) = (free_port()?, free_port()?);
    let mut command = desk.command(&driver().context("tauri-driver is not installed")?);
    command.args(["--port", &port.to_string(), "--native-port", &native.to_string(), "--native-driver"]);
    command.arg(find_program("WebKitWebDriver").context("WebKitWebDriver is not installed")?);
    command.envs(environment.iter().copied());
    let mut driver = Process::spawn("tauri-driver", &mut command, desk.folder())?;
    super::until("the driver", || {
        anyhow::ensure!(driver.is_running(), "tauri-driver ended\n{}", driver.log_end());
        let listens = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        Ok((listens(port) && listens(native)).then_some(()))
    })
    .await?;
    Ok((driver, port))
}

async fn attach(port: u16, program: &Path, arguments: &[&str]) -> anyhow::Result<Client> {
    let mut capabilities = Capabilities::new();
    capabilities.insert("browserName".to_owned(), json!("wry"));
    capabilities.insert("tauri:options".to_owned(), json!({"application": program, "args": arguments}));
    let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
    let url = format!("http://127.0.0.1:{port}");
    let client = builder.capabilities(capabilities).connect(&url);
    tokio::time::timeout(DEADLINE, client).await.context("no session")?.context("no session")
}
