//! `cargo xtask demo`: a whole Postern on this machine, with something to reach, for as long as the command runs.

use std::{
    fs::{self, File},
    io::{IsTerminal, Read, Seek, Write},
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::{
    consent::Consent,
    interrupt::{Interrupt, Interrupted},
    packages::{self, Installed},
    release,
    stack::{self, Bind, Netd, Programs, Service, Stack},
    workspace::{Workspace, find_program},
};

mod sample;
mod window;

use sample::Samples;
use window::Window;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
    /// Open no window; print one JSON line when everything is ready
    #[arg(long)]
    headless: bool,
    /// Begin with an empty folder
    #[arg(long)]
    fresh: bool,
    /// Add a TCP service of your own; may be given several times
    #[arg(long, value_name = "NAME=HOST:PORT")]
    expose: Vec<Exposed>,
    /// Folder of the demo [default: postern-demo in the user's state folder]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Start the programs in this folder instead of building them
    #[arg(long, value_name = "DIR", hide = true)]
    programs: Option<PathBuf>,
}

/// `NAME=HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exposed {
    name: String,
    host: String,
    port: u16,
}

impl FromStr for Exposed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "give NAME=HOST:PORT, for example orders-db=127.0.0.1:5432";
        let (name, address) = text.split_once('=').ok_or(wanted)?;
        let (host, port) = address.rsplit_once(':').ok_or(wanted)?;
        let port = port.parse().map_err(|_| format!("{port:?} is no port; {wanted}"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() || host.is_empty() || port == 0 {
            return Err(wanted.to_owned());
        }
        Ok(Self { name: name.to_owned(), host: host.to_owned(), port })
    }
}

impl Exposed {
    fn service(&self) -> Service {
        let resolved = (self.host.as_str(), self.port).to_socket_addrs();
        let allow_local = resolved.is_ok_and(|mut all| all.any(|address| address.ip().is_loopback()));
        Service {
            name: self.name.clone(),
            kind: kind_of(self.port),
            host: self.host.clone(),
            port: self.port,
            allow_local,
            bind: Bind::Both,
        }
    }
}

/// What usually listens on a port: with it the command that is offered fits (`psql` instead of `nc`).
const fn kind_of(port: u16) -> &'static str {
    match port {
        22 | 2222 => "ssh",
        80 | 3000 | 8000 | 8080 => "http",
        3306 => "mysql",
        5432 => "postgres",
        6379 => "redis",
        _ => "tcp",
    }
}

/// The line that `--headless` prints.
#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    control: &'a str,
    admin: AdminLine<'a>,
    home: &'a Path,
    cli: PathBuf,
    resources: Vec<ResourceLine<'a>>,
}

#[derive(Serialize)]
struct AdminLine<'a> {
    email: &'a str,
    password: &'a str,
}

#[derive(Serialize)]
struct ResourceLine<'a> {
    name: &'a str,
    address: SocketAddr,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let programs = match &args.programs {
        Some(folder) => folder.clone(),
        None => {
            install_compiler(Consent::from_environment(args.yes))?;
            release::build(&Workspace::find()?, &Programs::PACKAGES, &[])?
        }
    };
    let programs = Programs::in_folder(&programs)?;
    let window = Window::prepare(args.headless, args.programs.as_deref(), Consent::from_environment(args.yes));
    let home = Home::open(args.home.as_deref(), args.fresh)?;
    let interrupt = Interrupt::on_signals()?;
    let steps = Steps::new();
    match start(args, &programs, &home, &interrupt, &steps) {
        Ok((mut stack, resources)) => {
            steps.done();
            let app = window.open(&home.path);
            announce(args, &stack, &home, &resources, &window)?;
            let ended = wait(&mut stack, &interrupt);
            if let Some(app) = app {
                app.stop();
            }
            stack.stop();
            ended?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if error.is::<Interrupted>() => {
            steps.done();
            anstream::eprintln!("interrupted; everything that was started is stopped");
            Ok(ExitCode::from(130))
        }
        Err(error) => {
            steps.done();
            Err(error.context(format!("the demo did not start; its logs are in {}", home.path.join("logs").display())))
        }
    }
}

/// The compiler is all that a build needs beside Rust.
fn install_compiler(consent: Consent) -> anyhow::Result<()> {
    if find_program("cc").is_some() {
        return Ok(());
    }
    match packages::install(&["gcc".to_owned(), "libc6-dev".to_owned()], consent)? {
        Installed::Declined { line } => bail!("there is no C compiler; install one with:\n{line}"),
        Installed::AlreadyThere | Installed::Now(_) => Ok(()),
    }
}

fn start(
    args: &Args,
    programs: &Programs,
    home: &Home,
    interrupt: &Interrupt,
    steps: &Steps,
) -> anyhow::Result<(Stack, Vec<(String, SocketAddr)>)> {
    let samples = Samples::start()?;
    steps.say("starting the control plane, a gateway and posternd");
    let stack = Stack::start(programs, &home.path, Netd::OfThisMachine, interrupt)?;
    steps.say("making the resources known");
    let exposed: Vec<Service> = args.expose.iter().map(Exposed::service).collect();
    let services = [samples.services(), exposed.clone()].concat();
    stack.publish(&services)?;
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    let addresses = stack.connect(&names)?;
    steps.say("reaching them through Postern");
    let resources: Vec<(String, SocketAddr)> =
        services.iter().map(|service| service.name.clone()).zip(addresses).collect();
    for (name, address) in &resources {
        if let Some(check) = Samples::check(name) {
            stack.retry(|| check(*address)).with_context(|| format!("{name} does not answer through Postern"))?;
        }
    }
    for service in exposed {
        if let Some(error) = stack.check(&service.name)? {
            steps.warn(&format!("{} does not answer: {error}", service.name));
        }
    }
    Ok((stack, resources))
}

/// Until a signal, or until a part of the demo ends by itself.
fn wait(stack: &mut Stack, interrupt: &Interrupt) -> anyhow::Result<()> {
    while interrupt.sleep(Duration::from_millis(200)).is_ok() {
        if let Some(casualty) = stack.casualty() {
            bail!("the demo is broken, everything is stopped: {casualty}");
        }
    }
    Ok(())
}

fn announce(
    args: &Args,
    stack: &Stack,
    home: &Home,
    resources: &[(String, SocketAddr)],
    window: &Window,
) -> anyhow::Result<()> {
    if args.headless {
        let line = Ready {
            ready: true,
            control: &stack.url,
            admin: AdminLine { email: stack.admin.email(), password: stack.admin.password() },
            home: &home.path,
            cli: stack.cli_path(),
            resources: resources.iter().map(|(name, address)| ResourceLine { name, address: *address }).collect(),
        };
        anstream::println!("{}", serde_json::to_string(&line)?);
    } else {
        anstream::print!("{}", welcome(stack, home, resources, window));
    }
    std::io::stdout().flush().context("cannot write to stdout")
}

fn welcome(stack: &Stack, home: &Home, resources: &[(String, SocketAddr)], window: &Window) -> String {
    let mut text = format!(
        "\nPostern is ready.\n\n  control plane  {}\n  administrator  {}, password {}\n  folder         {}\n\n",
        stack.url,
        stack.admin.email(),
        stack.admin.password(),
        home.path.display(),
    );
    for (name, address) in resources {
        text += &format!("  {name:<14} {address}\n");
    }
    let address =
        |wanted: &str| resources.iter().find(|(name, _)| name == wanted).map(|(_, address)| address.to_string());
    let page = address(sample::PAGE).unwrap_or_default();
    let cli = stack.cli_path().display().to_string();
    text += &format!(
        "\nEach address is carried over mutual TLS by the gateway. Try, in another terminal:\n\n  \
         export POSTERN_HOME={home}\n  \
         alias postern={cli}\n  \
         curl http://{page}/\n  \
         postern resources\n  \
         postern disconnect {name}   # and curl again: nothing listens any more\n  \
         postern admin sessions list         # who reached what\n  \
         postern admin --help\n\n\
         Where the system service postern-netd runs (docs/virtual-network.md), names work, too:\n\n  \
         postern network enable\n  \
         curl http://{name}.demo/\n\n\
         {window}\n\
         Ctrl-C ends the demo; the next one finds everything as it was (--fresh begins anew).\n",
        home = home.path.display(),
        name = sample::PAGE,
        window = window.describe(),
    );
    text
}

/// The demo's folder, locked for as long as this lives.
struct Home {
    path: PathBuf,
    _lock: File,
}

/// Tells our folders from others, and keeps a second demo out.
const LOCK: &str = "demo.lock";

impl Home {
    fn open(chosen: Option<&Path>, fresh: bool) -> anyhow::Result<Self> {
        let path = match chosen {
            Some(path) => std::path::absolute(path).context("cannot tell the current folder")?,
            None => default_home()?,
        };
        let is_ours = path.join(LOCK).is_file();
        let is_empty = fs::read_dir(&path).map_or(true, |mut entries| entries.next().is_none());
        if !is_ours && !is_empty {
            bail!("{} holds something else than a demo; choose another folder with --home", path.display());
        }
        stack::make_private_folder(&path)?;
        let lock = lock(&path)?;
        if fresh {
            empty(&path)?;
        }
        Ok(Self { path, _lock: lock })
    }
}

fn default_home() -> anyhow::Result<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
    Ok(state.context("neither XDG_STATE_HOME nor HOME is set; name a folder with --home")?.join("postern-demo"))
}

fn lock(home: &Path) -> anyhow::Result<File> {
    let path = home.join(LOCK);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_err() {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        bail!(
            "a demo runs in {} already (process {}); end it, or choose another folder with --home",
            home.display(),
            holder.trim(),
        );
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

/// Removes everything but the lock.
fn empty(home: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(home).with_context(|| format!("cannot read {}", home.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == LOCK) {
            continue;
        }
        let removed =
            if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// What is being done: a spinner on a terminal, lines elsewhere.
struct Steps {
    spinner: Option<ProgressBar>,
}

impl Steps {
    fn new() -> Self {
        let spinner = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(spinner) = &spinner {
            spinner.enable_steady_tick(Duration::from_millis(120));
        }
        Self { spinner }
    }

    fn say(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(text.to_owned()),
            None => anstream::eprintln!("{text}"),
        }
    }

    fn warn(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| anstream::eprintln!("warning: {text}")),
            None => anstream::eprintln!("warning: {text}"),
        }
    }

    fn done(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_the_users_own_is_read_from_its_spelling() {
        let parsed: Exposed = "orders=db.example:5432".parse().unwrap();
        assert_eq!(parsed, Exposed { name: "orders".to_owned(), host: "db.example".to_owned(), port: 5432 });
        let parsed: Exposed = "six=[::1]:80".parse().unwrap();
        assert_eq!(parsed.host, "::1");
        assert!(parsed.service().allow_local);
        assert_eq!(parsed.service().kind, "http");
        assert_eq!("db=127.0.0.1:5432".parse::<Exposed>().unwrap().service().kind, "postgres");
        assert_eq!("other=127.0.0.1:5433".parse::<Exposed>().unwrap().service().kind, "tcp");
        for wrong in ["orders", "orders=db", "=db:1", "orders=:1", "orders=db:0", "orders=db:x"] {
            assert!(wrong.parse::<Exposed>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("thesis.txt");
        fs::write(&precious, "mine").unwrap();
        assert!(Home::open(Some(folder.path()), true).is_err());
        assert_eq!(fs::read_to_string(precious).unwrap(), "mine");
    }

    #[test]
    fn a_second_demo_in_the_same_folder_is_told_who_runs_there() {
        let folder = tempfile::tempdir().unwrap();
        let first = Home::open(Some(folder.path()), false).unwrap();
        let error = Home::open(Some(folder.path()), true).err().unwrap().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        fs::write(folder.path().join("old"), "").unwrap();
        Home::open(Some(folder.path()), true).unwrap();
        assert!(!folder.path().join("old").exists());
    }
}
