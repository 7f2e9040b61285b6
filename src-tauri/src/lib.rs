//! The desktop app: a window and a tray on posternd's local API.
//!
//! All state is held here, in Rust; the page in the window lays it out and sends typed commands back. The app never
//! holds keys, opens a connection to another machine, or has privileges: it is a client of the local API like the CLI.
//!
//! [`view`] and `command` are what the page sees, `desk` is the state (sans-IO), `app` lets the parts know of each
//! other, [`service`] is posternd or a made-up one, [`tray`] and [`notify`] decide in pure functions what is shown.
#![forbid(unsafe_code)]

use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use postern_local_api::paths::Paths;

mod app;
mod autostart;
mod clipboard;
mod command;
mod desk;
pub mod desktop;
pub mod instance;
pub mod link;
pub mod notify;
pub mod options;
pub mod service;
pub mod settings;
pub mod tool;
pub mod tray;
pub mod view;
mod window;
pub mod words;

use app::App;
use desk::Desk;
use instance::{Instance, Wish};
use options::Options;
use service::{
    Service,
    mock::{Mock, scenario::Scenario},
    real::Real,
};
use settings::Store;
use words::Language;

/// Runs the app with the arguments of this process.
pub fn run() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let options = Options::parse();
    let paths = Paths::find(options.home.as_deref())?;
    let wish = Wish { link: options.link.clone(), hidden: options.hidden };
    // A made-up service is nobody's: several of those may run beside the real one.
    let first = match &options.mock {
        Some(_) => None,
        None => {
            match instance::claim(&paths.runtime, &wish).context("another postern-desktop runs and does not answer")? {
                Instance::First(first) => Some(first),
                Instance::Second => return Ok(()),
            }
        }
    };
    let (service, store): (Arc<dyn Service>, Store) = match &options.mock {
        Some(word) => {
            let scenario = Scenario::of(word)?;
            let folder = std::env::temp_dir().join(format!("postern-desktop-mock-{}", std::process::id()));
            (Arc::new(Mock::new(scenario, app::wall())), Store::new(folder.join("desktop.json")))
        }
        None => {
            (Arc::new(Real::new(paths.clone(), options.home.clone())), Store::new(paths.config.join("desktop.json")))
        }
    };
    let app = App::new(service, desk(&options, &paths, &store), store, options.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    tauri::async_runtime::set(runtime.handle().clone());
    let later = Arc::clone(&app);
    window::run(app, options.hidden, move |_| later.begin_wishes(first, wish))?;
    Ok(())
}

/// The state before anything was heard.
fn desk(options: &Options, paths: &Paths, store: &Store) -> Desk {
    let (mut stored, aside) = store.load();
    if options.mock.is_some() {
        service::mock::scenario::favour(&mut stored);
    }
    let desktop = view::Desktop {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        system: std::env::consts::OS.to_owned(),
        languages: Language::ALL.iter().map(|language| language.tag().to_owned()).collect(),
        system_language: Language::of_environment(&|name| std::env::var(name).ok()).tag().to_owned(),
        system_dark: None,
        tray: view::Tray::Starting,
        notifications: true,
        tools: tool::installed(&tool::in_path),
        settings_file: store.path().display().to_string(),
        socket: paths.socket().display().to_string(),
        mock: options.mock.clone(),
    };
    let mut desk = Desk::new(stored, desktop);
    if let Some(aside) = aside {
        let kept = aside.kept.map(|path| format!(" It is kept as {}.", path.display())).unwrap_or_default();
        desk.warn(format!("The settings could not be read, so the defaults apply: {}.{kept}", aside.reason));
    }
    desk
}
