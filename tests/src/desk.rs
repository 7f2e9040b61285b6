//! A desktop for one test: a screen that nobody looks at, a session bus of its own, a notification service and a host for
//! tray icons that write down what they are told, and a driver that types and clicks in the window of `postern-desktop`.
//!
//! Everything is on ports, displays and folders of this test alone, and gone with it. Elements are found by what a
//! screen reader would say, role and name: what cannot be found this way is a fault of the window.

pub mod figures;
mod notices;
pub mod pictures;
mod tray;
mod window;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;

pub use notices::{Notice, Notices};
pub use tray::{MenuItem, Tray};
pub use window::{Element, Window};

use crate::{
    command::find_program,
    process::Process,
    servers::{Folder, folder},
    session_bus::SessionBus,
};

/// Names the driver's program where it is neither in `PATH` nor among the kept tools.
pub const DRIVER_VARIABLE: &str = "POSTERN_TAURI_DRIVER";

/// How long a desktop may take to do what it must. Generous: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const POLL: Duration = Duration::from_millis(30);

const NEEDED: [&str; 3] = ["Xvfb", "dbus-daemon", "WebKitWebDriver"];

/// Leaves the test with an announcement where there can be no window.
#[macro_export]
macro_rules! need_desk {
    () => {
        if let Some(reason) = $crate::desk::missing() {
            $crate::skip::skip(&$crate::skip::test_name(), &reason);
            return Ok(());
        }
    };
}

/// What this machine lacks for a window.
#[must_use]
pub fn missing() -> Option<String> {
    if let Some(program) = NEEDED.into_iter().find(|program| find_program(program).is_none()) {
        return Some(format!("{program} is not installed (tests/debian-packages.txt lists what is needed)"));
    }
    if driver().is_none() {
        return Some("tauri-driver is not installed (cargo install --locked tauri-driver@2.1.0)".to_owned());
    }
    front_end_missing()
}

/// What is missing for the app to be more than an empty window.
#[must_use]
pub fn front_end_missing() -> Option<String> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/desktop/dist/assets");
    (!dist.is_dir()).then(|| "the front end is not built (npm ci && npm run build in ui/)".to_owned())
}

fn driver() -> Option<PathBuf> {
    let named = std::env::var_os(DRIVER_VARIABLE).map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let kept = cache.map(|cache| cache.join("postern-ci/tools/bin/tauri-driver")).filter(|path| path.is_file());
    named.or_else(|| find_program("tauri-driver")).or(kept)
}

/// The desktop. Dropping it ends everything on it.
pub struct Desk {
    notices: Notices,
    tray: Tray,
    display: String,
    _screen: Process,
    bus: SessionBus,
    folder: Folder,
}

impl Desk {
    /// With a host for tray icons and a notification service.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = folder()?;
        for name in ["home", "config", "data", "cache", "runtime"] {
            let path = folder.path().join(name);
            fs::create_dir(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        }
        let (screen, display) = start_screen(folder.path()).await?;
        let bus = SessionBus::start(folder.path()).await?;
        let notices = Notices::serve(bus.connection()).await?;
        let tray = Tray::serve(bus.connection()).await?;
        Ok(Self { notices, tray, display, _screen: screen, bus, folder })
    }

    #[must_use]
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    #[must_use]
    pub fn tray(&self) -> &Tray {
        &self.tray
    }

    /// Says what a desktop says when its screen is locked.
    pub async fn lock_screen(&self) -> anyhow::Result<()> {
        let (path, interface) = ("/org/gnome/ScreenSaver", "org.gnome.ScreenSaver");
        let bus = self.bus.connection();
        bus.emit_signal(None::<&str>, path, interface, "ActiveChanged", &(true,)).await?;
        Ok(())
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The variables of a session on this desktop.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        [
            ("DISPLAY", self.display.clone()),
            ("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", path("bus"))),
            ("HOME", path("home")),
            ("XDG_CONFIG_HOME", path("config")),
            ("XDG_DATA_HOME", path("data")),
            ("XDG_CACHE_HOME", path("cache")),
            ("XDG_RUNTIME_DIR", path("runtime")),
            ("XDG_SESSION_TYPE", "x11".to_owned()),
            ("GDK_BACKEND", "x11".to_owned()),
            ("LIBGL_ALWAYS_SOFTWARE", "1".to_owned()),
            ("NO_AT_BRIDGE", "1".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("RUST_LOG", "info".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Starts the app with `arguments` and attaches to its window.
    pub async fn open(&self, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Window> {
        Window::open(self, arguments, environment).await
    }

    /// A command on this desktop; the window's own variables (`POSTERN_HOME`, tokens) are not inherited.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for name in ["POSTERN_HOME", "POSTERN_SERVICE_TOKEN", "POSTERN_CONTROL", "POSTERN_CA", "WAYLAND_DISPLAY"] {
            command.env_remove(name);
        }
        command.envs(self.environment());
        command
    }
}

/// Xvfb takes the first display that is free and says which.
async fn start_screen(folder: &Path) -> anyhow::Result<(Process, String)> {
    let mut command = Command::new(find_program("Xvfb").context("Xvfb is not installed")?);
    command.args(["-displayfd", "1", "-screen", "0", "1280x900x24", "-nolisten", "tcp", "-noreset"]);
    let mut screen = Process::spawn("Xvfb", &mut command, folder)?;
    let display = until("a display", || {
        anyhow::ensure!(screen.is_running(), "Xvfb ended\n{}", screen.log_end());
        let said = screen.output();
        Ok(said.trim().parse::<u32>().ok().filter(|_| said.ends_with('\n')).map(|number| format!(":{number}")))
    })
    .await?;
    Ok((screen, display))
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        anyhow::ensure!(Instant::now() < deadline, "{what} did not come within {DEADLINE:?}");
        tokio::time::sleep(POLL).await;
    }
}
