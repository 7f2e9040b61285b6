//! A picture of each screen in both themes, from the app's own made-up service.

use std::{fs, path::Path, time::Duration};

use anyhow::Context as _;
use fantoccini::key::Key;

use super::{Desk, Window};

/// What a normal window, a small one, and one beside an editor are.
const NORMAL: (u32, u32) = (1000, 700);
const SMALL: (u32, u32) = (720, 520);
const NARROW: (u32, u32) = (380, 700);

/// A screen: its name, the app's scenario, the size of the window, and the way there.
struct Screen {
    name: &'static str,
    scenario: &'static str,
    size: (u32, u32),
    way: Way,
}

/// How a screen is reached from the first one.
enum Way {
    None,
    /// Types into the search.
    Search(&'static str),
    /// Opens the details of a resource.
    Details(&'static str),
    /// Marks the first rows.
    Mark,
    Palette,
    /// Fills in the first step of the sign-in.
    Password,
    /// A part of the settings.
    Settings(&'static str),
    /// Runs the doctor, to its end or not.
    Doctor {
        whole: bool,
    },
    Export,
    /// Where to keep keys.
    Keys,
    Guide,
    /// The guide after asking and being refused.
    Refused,
    Quit,
}

const SCREENS: &[Screen] = &[
    Screen { name: "main", scenario: "40", size: NORMAL, way: Way::None },
    Screen { name: "main.720x520", scenario: "40", size: SMALL, way: Way::None },
    Screen { name: "main.380x700", scenario: "40", size: NARROW, way: Way::None },
    Screen { name: "many", scenario: "10000", size: NORMAL, way: Way::None },
    Screen { name: "search", scenario: "40", size: NORMAL, way: Way::Search("pay") },
    Screen { name: "no-match", scenario: "40", size: NORMAL, way: Way::Search("zzz") },
    Screen { name: "select", scenario: "40", size: NORMAL, way: Way::Mark },
    Screen { name: "detail", scenario: "busy", size: NORMAL, way: Way::Details("connected") },
    Screen { name: "detail.380x700", scenario: "busy", size: NARROW, way: Way::Details("connected") },
    Screen { name: "detail-unhealthy", scenario: "40", size: NORMAL, way: Way::Details("unhealthy") },
    Screen { name: "palette", scenario: "40", size: NORMAL, way: Way::Palette },
    Screen { name: "empty", scenario: "0", size: NORMAL, way: Way::None },
    Screen { name: "signin", scenario: "signed-out", size: NORMAL, way: Way::None },
    Screen { name: "signin-password", scenario: "signed-out", size: NORMAL, way: Way::Password },
    Screen { name: "locked", scenario: "locked", size: NORMAL, way: Way::None },
    Screen { name: "offline", scenario: "offline", size: NORMAL, way: Way::None },
    Screen { name: "service-gone", scenario: "service-gone", size: NORMAL, way: Way::None },
    Screen { name: "versions-differ", scenario: "versions-differ", size: NORMAL, way: Way::None },
    Screen { name: "errors", scenario: "errors", size: NORMAL, way: Way::None },
    Screen { name: "expiry", scenario: "expiring", size: NORMAL, way: Way::None },
    Screen { name: "keyring", scenario: "keyring-locked", size: NORMAL, way: Way::None },
    Screen { name: "keyring-choice", scenario: "keyring-locked", size: NORMAL, way: Way::Keys },
    Screen { name: "first-password", scenario: "first-password", size: NORMAL, way: Way::None },
    Screen { name: "update", scenario: "update", size: NORMAL, way: Way::None },
    Screen { name: "network", scenario: "network", size: NORMAL, way: Way::Guide },
    Screen { name: "network-refused", scenario: "network-refused", size: NORMAL, way: Way::Refused },
    Screen { name: "settings", scenario: "40", size: NORMAL, way: Way::Settings("General") },
    Screen { name: "settings-connections", scenario: "40", size: NORMAL, way: Way::Settings("Connections") },
    Screen { name: "settings-notifications", scenario: "40", size: NORMAL, way: Way::Settings("Notifications") },
    Screen { name: "settings-shortcuts", scenario: "40", size: NORMAL, way: Way::Settings("Shortcuts") },
    Screen { name: "settings-updates", scenario: "40", size: NORMAL, way: Way::Settings("Updates") },
    Screen { name: "settings-keys", scenario: "40", size: NORMAL, way: Way::Settings("Keys") },
    Screen { name: "about", scenario: "40", size: NORMAL, way: Way::Settings("About") },
    Screen { name: "doctor-running", scenario: "40", size: NORMAL, way: Way::Doctor { whole: false } },
    Screen { name: "doctor-results", scenario: "40", size: NORMAL, way: Way::Doctor { whole: true } },
    Screen { name: "export", scenario: "40", size: NORMAL, way: Way::Export },
    Screen { name: "quit", scenario: "40", size: NORMAL, way: Way::Quit },
];

/// Writes `<screen>.light.png` and `<screen>.dark.png` into `folder`. Screens that cannot be reached are named in the
/// error, after all others are taken.
pub async fn take(folder: &Path, only: Option<&str>) -> anyhow::Result<()> {
    let wanted: Vec<_> =
        SCREENS.iter().filter(|screen| only.is_none_or(|only| screen.name.starts_with(only))).collect();
    anyhow::ensure!(!wanted.is_empty(), "no screen begins with this name; there are {}", names().join(", "));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut failed = Vec::new();
    for screen in wanted {
        match take_one(screen, folder).await {
            Ok(()) => eprintln_line(screen.name),
            Err(error) => failed.push(format!("{}: {error:#}", screen.name)),
        }
    }
    anyhow::ensure!(failed.is_empty(), "screens that were not reached:\n{}", failed.join("\n"));
    Ok(())
}

fn names() -> Vec<&'static str> {
    SCREENS.iter().map(|screen| screen.name).collect()
}

async fn take_one(screen: &Screen, folder: &Path) -> anyhow::Result<()> {
    let desk = Desk::start().await?;
    let window = desk.open(&["--mock", screen.scenario], &[]).await?;
    window.resize(screen.size.0, screen.size.1).await?;
    window.reads("something to see", |text| text.trim().len() > 20 && !text.contains("Starting the service")).await?;
    screen.way.go(&desk, &window).await?;
    for theme in ["light", "dark"] {
        window.run(THEME, vec![theme.into()]).await?;
        // Colours fade, and a busy machine paints late.
        tokio::time::sleep(Duration::from_millis(300)).await;
        window.run(PAINT, vec![]).await?;
        while window.run("return window.posternPainted;", vec![]).await? != true {
            tokio::time::sleep(super::POLL).await;
        }
        let file = folder.join(format!("{}.{theme}.png", screen.name));
        fs::write(&file, window.picture().await?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    window.close().await
}

/// The caret would blink into every other picture.
const THEME: &str = "
    document.documentElement.dataset.theme = arguments[0];
    if (!document.getElementById('still')) {
        const still = document.createElement('meta');
        still.id = 'still';
        document.head.append(still);
        document.body.style.caretColor = 'transparent';
    }";

/// A picture shows what was painted last: two frames later that is what is there now.
const PAINT: &str = "
    window.posternPainted = false;
    const twice = () => requestAnimationFrame(() => setTimeout(() => { window.posternPainted = true; }, 150));
    requestAnimationFrame(twice);";

impl Way {
    async fn go(&self, desk: &Desk, window: &Window) -> anyhow::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Search(text) => window.fill("textbox", "Search", text).await,
            Self::Details(state) => window.click("row", &format!(", {state}")).await,
            Self::Mark => {
                window.find("textbox", "Search").await?.send_keys(&char::from(Key::Down).to_string()).await?;
                for _ in 0..3 {
                    window.press("x").await?;
                    window.press(&char::from(Key::Down).to_string()).await?;
                }
                Ok(())
            }
            Self::Palette => {
                window.find("grid", "Resources").await?;
                window.chord(char::from(Key::Control), 'k').await?;
                window.find("dialog", "").await.map(drop)
            }
            Self::Password => {
                window.fill("textbox", "Organisation address", "northwind.postern.example").await?;
                window.fill("textbox", "E-mail", "mara@northwind.example").await?;
                window.click("button", "Continue").await?;
                window.find("textbox", "Password").await.map(drop)
            }
            Self::Settings(part) => {
                window.click("button", "Settings").await?;
                window.find("heading", "").await?;
                if *part != "General" {
                    click_any(window, &["tab", "link", "button"], part).await?;
                }
                Ok(())
            }
            Self::Doctor { whole } => {
                window.click("button", "Diagnostics").await?;
                // It starts by itself.
                let (role, name) = if *whole { ("button", "Run again") } else { ("progressbar", "") };
                window.find(role, name).await.map(drop)
            }
            Self::Keys => {
                window.click("button", "Choose").await?;
                window.find("radio", "In memory").await.map(drop)
            }
            Self::Export => {
                window.click("button", "Diagnostics").await?;
                click_any(window, &["tab", "link", "button"], "Export").await?;
                window.find("button", "Save file").await.map(drop)
            }
            Self::Guide => {
                window.chord(char::from(Key::Control), 'k').await?;
                window.find("dialog", "").await?;
                window.press("Virtual").await?;
                tokio::time::sleep(Duration::from_millis(300)).await;
                window.press(&char::from(Key::Enter).to_string()).await?;
                window.find("heading", "Virtual Networking").await.map(drop)
            }
            Self::Refused => {
                Box::pin(Self::Guide.go(desk, window)).await?;
                window.click("button", "Authorise").await?;
                window.find("button", "Ask again").await.map(drop)
            }
            Self::Quit => {
                window.find("grid", "Resources").await?;
                desk.tray().click("Quit").await?;
                window.find("heading", "Quit").await.map(drop)
            }
        }
    }
}

/// The same thing may be drawn as one of several roles.
async fn click_any(window: &Window, roles: &[&str], name: &str) -> anyhow::Result<()> {
    for _ in 0..100 {
        for role in roles {
            if let Some(found) = window.all(role, name).await?.first() {
                return found.click().await.with_context(|| format!("cannot click {name:?}"));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("no {roles:?} is called {name:?}")
}

fn eprintln_line(name: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{name}");
}
