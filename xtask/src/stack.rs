//! A whole Postern on loopback: control plane, one gateway, posternd with a signed-in administrator, and what they make
//! reachable. Everything is configured as a user would, through the `postern` command.
//!
//! It lives in one folder, which is also the `POSTERN_HOME` of its posternd. A second start on the same folder finds
//! the organisation, the password and the resources of the first, however that one ended.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    interrupt::{Interrupt, Interrupted},
    process::{Process, run},
};

mod admin;

pub(crate) use admin::Admin;

/// The role that reaches every resource made here.
const ROLE: &str = "demo";
/// The tag that resources made here carry, and that the role's rule asks for.
const TAG: &str = "made-by=xtask";
const GATEWAY: &str = "demo-gateway";
const RELAY: &str = "demo-relay";
const CLUSTER: &str = "demo-cluster";
/// How long until what was just configured has reached every part.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);

/// Our programs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The packages that hold them.
    pub(crate) const PACKAGES: [&'static str; 4] = ["postern-cli", "postern-control", "postern-daemon", "postern-node"];

    /// `folder`: where cargo put the release build.
    pub(crate) fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let found = Self { folder: folder.to_owned() };
        for program in [found.control(), found.node(), found.daemon(), found.cli()] {
            if !program.is_file() {
                bail!("{} is not built", program.display());
            }
        }
        Ok(found)
    }

    fn control(&self) -> PathBuf {
        self.folder.join("postern-control")
    }

    fn node(&self) -> PathBuf {
        self.folder.join("postern-node")
    }

    fn daemon(&self) -> PathBuf {
        self.folder.join("posternd")
    }

    pub(crate) fn cli(&self) -> PathBuf {
        self.folder.join("postern")
    }
}

/// A TCP service that shall be reachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// As the CLI spells it: `tcp`, `http`.
    pub(crate) kind: &'static str,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether it may lie on the gateway's own machine.
    pub(crate) allow_local: bool,
    pub(crate) bind: Bind,
}

/// Where a service appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bind {
    /// At a loopback address.
    Loopback,
    /// At a loopback address, and in the virtual network where that is switched on; pages at the usual port there.
    Both,
    /// At an address of the virtual network.
    Virtual,
}

/// Which postern-netd there is, for a virtual network.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Netd<'a> {
    /// None: no virtual network, whatever this machine has.
    None,
    /// The system service, if it runs. The virtual network is left to the user to switch on.
    OfThisMachine,
    /// At this socket; the virtual network is switched on.
    At(&'a Path),
}

/// A running Postern. Dropping it kills it; [`Stack::stop`] lets it end in order.
pub(crate) struct Stack {
    programs: Programs,
    home: PathBuf,
    interrupt: Interrupt,
    pub(crate) url: String,
    ca_file: String,
    pub(crate) admin: Admin,
    control: Process,
    daemon: Process,
    gateway: Process,
    /// Where the gateway listens, or the worker.
    pub(crate) door: SocketAddr,
    /// The relay or the worker that a service is behind.
    beyond: Option<Process>,
}

impl Stack {
    /// Starts everything, signs in, and enrols the gateway. `home` belongs to us alone.
    pub(crate) fn start(
        programs: &Programs,
        home: &Path,
        netd: Netd<'_>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        for folder in ["control", "gateway", "logs"] {
            make_private_folder(&home.join(folder))?;
        }
        let ground = Ground { programs, home, interrupt };
        let (mut control, ready) = ground.start_control()?;
        let mut plane = ControlPlane::read(&ready)?;
        let admin = match Admin::known(home, &ready)? {
            Some(admin) => admin,
            None => {
                // The password was lost between two steps of an earlier start. The control plane is stopped for the
                // reset, since the command works on its data folder.
                control.stop();
                let admin = Admin::reset(home, |email| ground.reset_admin(email))?;
                let (restarted, ready) = ground.start_control()?;
                (control, plane) = (restarted, ControlPlane::read(&ready)?);
                admin
            }
        };
        let mut daemon = Process::start_with("posternd", &home.join("logs"), |command| {
            command
                .arg(programs.daemon())
                .arg("--home")
                .arg(home)
                .args(["--key-storage", "file", "--control", &plane.url, "--status-listen", "127.0.0.1:0", "--ca"])
                .arg(&plane.ca_file);
            match netd {
                Netd::OfThisMachine => command,
                Netd::None => command.env("POSTERN_NETD_SOCKET", "/nonexistent/netd.sock"),
                Netd::At(socket) => command.env("POSTERN_NETD_SOCKET", socket),
            };
        })?;
        daemon.ready_line(interrupt)?;
        let admin = admin.sign_in(home, &plane, |args, input| ground.cli(args, input))?;
        let (gateway, door) = ground.start_gateway(&plane)?;
        if matches!(netd, Netd::At(_)) {
            ground.cli(&["network", "enable"], "")?;
        }
        Ok(Self {
            programs: programs.clone(),
            home: home.to_owned(),
            interrupt: interrupt.clone(),
            url: plane.url,
            ca_file: plane.ca_file,
            admin,
            control,
            daemon,
            gateway,
            door,
            beyond: None,
        })
    }

    /// Enrols and starts a relay, and has a service dialled by relays alone; returns when streams go over it.
    pub(crate) fn put_behind_relay(&mut self, service: &str) -> anyhow::Result<()> {
        let state = self.home.join("relay");
        make_private_folder(&state)?;
        let created = self.cli_json(&["admin", "gateways", "create", RELAY, "--kind", "relay", "--json"])?;
        let token = created.get("enrol_token").and_then(Value::as_str).context("the new relay has no token")?;
        let mut relay = Process::start_with("postern-relay", &self.home.join("logs"), |command| {
            command.arg(self.programs.node()).args(["relay", "--drain", "1", "--control", &self.url, "--ca"]);
            command.arg(&self.ca_file).arg("--state").arg(&state).env("POSTERN_ENROL_TOKEN", token);
        })?;
        relay.ready_line(&self.interrupt)?;
        self.beyond = Some(relay);
        self.cli(&["admin", "resources", "update", service, "--egress", "kind:relay"])?;
        self.retry(|| {
            let found = self.cli_json(&["resources", "--json"])?;
            let hops = items(&found).find(|item| item["name"] == service).and_then(|item| item.pointer("/route/hops"));
            let far = hops.and_then(Value::as_array).is_some_and(|hops| hops.len() == 2);
            if far { Ok(()) } else { bail!("{service} is not reached over the relay") }
        })
    }

    /// Makes a cluster of one worker and binds a service to it; returns when streams go over it.
    pub(crate) fn put_behind_worker(&mut self, service: &str) -> anyhow::Result<()> {
        let state = self.home.join("worker");
        make_private_folder(&state)?;
        self.cli(&["admin", "clusters", "create", CLUSTER, "--advertise", "127.0.0.1:1"])?;
        let pair = self.cli_json(&["admin", "cluster-keys", "create", CLUSTER, "--json"])?;
        let half = |name: &str| pair.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"));
        let (access, secret) = (half("access_key")?, half("secret_key")?);
        let mut worker = Process::start_with("postern-worker", &self.home.join("logs"), |command| {
            command.arg(self.programs.node()).args(["worker", "--drain", "1", "--control", &self.url, "--ca"]);
            command.arg(&self.ca_file).arg("--state").arg(&state).args(["--bind-address", "127.0.0.1:0"]);
            command.env("POSTERN_PROXY_CLUSTER_ACCESS_KEY", access).env("POSTERN_PROXY_CLUSTER_SECRET_KEY", secret);
        })?;
        let ready = worker.ready_line(&self.interrupt)?;
        self.beyond = Some(worker);
        let door = ready.get("listen").and_then(Value::as_str).context("the worker listens nowhere")?;
        self.door = door.parse()?;
        self.cli(&["admin", "clusters", "update", CLUSTER, "--advertise", door])?;
        self.cli(&["admin", "resources", "update", service, "--cluster", CLUSTER])?;
        self.retry(|| {
            let found = self.cli_json(&["resources", "--json"])?;
            let hop = items(&found).find(|item| item["name"] == service).and_then(|item| item.pointer("/route/hops/0"));
            let over = hop.is_some_and(|hop| hop["name"] == CLUSTER);
            if over { Ok(()) } else { bail!("{service} is not reached over the worker") }
        })
    }

    /// Makes services known and lets the administrator reach them.
    pub(crate) fn publish(&self, services: &[Service]) -> anyhow::Result<()> {
        let known = self.cli_json(&["admin", "resources", "list", "--json", "--limit", "0"])?;
        for service in services {
            let port = service.port.to_string();
            let target = ["--kind", service.kind, "--host", &service.host, "--port", &port, "--tag", TAG];
            let exists = items(&known).any(|item| item["name"] == service.name.as_str());
            let mut args = vec!["admin", "resources", if exists { "update" } else { "create" }, &service.name];
            args.extend(target);
            let bind_port = free_port()?.to_string();
            match exists {
                true => args.extend(["--allow-local", if service.allow_local { "true" } else { "false" }]),
                false => {
                    match service.bind {
                        Bind::Loopback => args.extend(["--bind-port", &bind_port]),
                        Bind::Both => args.extend(["--bind-mode", "both", "--loopback-port", &bind_port]),
                        Bind::Virtual => args.extend(["--bind-mode", "vnm"]),
                    }
                    if service.bind == Bind::Both && service.kind == "http" {
                        args.extend(["--bind-port", "80"]);
                    }
                    args.extend(service.allow_local.then_some("--allow-local"));
                }
            }
            self.cli(&args)?;
        }
        self.make_role()
    }

    fn make_role(&self) -> anyhow::Result<()> {
        let roles = self.cli_json(&["admin", "roles", "list", "--json", "--limit", "0"])?;
        if !items(&roles).any(|role| role["name"] == ROLE) {
            self.cli(&["admin", "roles", "create", ROLE])?;
        }
        let rules = self.cli_json(&["admin", "rules", "list", ROLE, "--json"])?;
        let query = format!("tags:{TAG}");
        if !items(&rules).any(|rule| rule["query"] == query.as_str()) {
            self.cli(&["admin", "rules", "create", ROLE, "--query", &query])?;
        }
        let members = self.cli_json(&["admin", "members", "list", ROLE, "--json"])?;
        if !members.to_string().contains(self.admin.email()) {
            self.cli(&["admin", "members", "add", ROLE, self.admin.email()])?;
        }
        Ok(())
    }

    /// Connects services and gives the addresses at which they appear, in the same order.
    pub(crate) fn connect(&self, names: &[&str]) -> anyhow::Result<Vec<SocketAddr>> {
        // A new grant takes a moment to arrive at posternd.
        self.retry(|| self.cli(&[&["connect"], names].concat()).map(drop))?;
        let mut moved = 0;
        loop {
            let found = self.cli_json(&["resources", "--json"])?;
            let busy: Vec<&str> =
                names.iter().copied().filter(|name| state_of(&found, name) == Some("port_in_use")).collect();
            if busy.is_empty() || moved > 3 {
                break;
            }
            // Somebody took a port that was free when it was chosen.
            moved += 1;
            for name in busy {
                let port = free_port()?.to_string();
                let loopback = text_of(&found, name, "/bind/mode") == Some("loopback");
                let option = if loopback { "--bind-port" } else { "--loopback-port" };
                self.cli(&["admin", "resources", "update", name, option, &port])?;
            }
            self.interrupt.sleep(Duration::from_millis(500))?;
        }
        self.cli(&[&["ready", "--wait", "30s"], names].concat())
            .context("not everything that was connected became ready")?;
        let found = self.cli_json(&["resources", "--json"])?;
        names.iter().map(|name| address_of(&found, name)).collect()
    }

    /// Whether the gateway reaches a service, as its health check says it; the error where it does not.
    pub(crate) fn check(&self, name: &str) -> anyhow::Result<Option<String>> {
        // The exit code says how the resource is, and so is no failure here; why it is so stands in what is shown then.
        let _ = self.cli(&["admin", "resources", "check", name]);
        let shown = self.cli_json(&["admin", "resources", "show", name, "--json"])?;
        let health = shown.get("health").unwrap_or(&shown);
        Ok(match health["state"].as_str() {
            Some("healthy") => None,
            state => Some(health["error"].as_str().or(state).unwrap_or("unknown").to_owned()),
        })
    }

    /// Where the virtual network answers names, and its first zone.
    pub(crate) fn name_server(&self) -> anyhow::Result<(SocketAddr, String)> {
        let status = self.cli_json(&["network", "status", "--json"])?;
        let text = |pointer: &str| status.pointer(pointer).and_then(Value::as_str);
        let (resolver, zone) =
            text("/resolver").zip(text("/zones/0")).with_context(|| format!("no names: {status}"))?;
        Ok((SocketAddr::new(resolver.parse()?, 53), zone.to_owned()))
    }

    /// Tries again until the deadline what fails only because news are still on their way.
    pub(crate) fn retry<T>(&self, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + SETTLE_DEADLINE;
        loop {
            match attempt() {
                Err(error) if Instant::now() < deadline && error.downcast_ref::<Interrupted>().is_none() => {
                    self.interrupt.sleep(Duration::from_millis(200))?;
                }
                done => return done,
            }
        }
    }

    pub(crate) fn cli_path(&self) -> PathBuf {
        self.programs.cli()
    }

    fn cli(&self, args: &[&str]) -> anyhow::Result<String> {
        Ground { programs: &self.programs, home: &self.home, interrupt: &self.interrupt }.cli(args, "")
    }

    fn cli_json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.cli(args)?;
        serde_json::from_str(&text).with_context(|| format!("`postern {}` printed no JSON: {text}", args.join(" ")))
    }

    /// The name and the last words of a part that has ended by itself.
    pub(crate) fn casualty(&mut self) -> Option<String> {
        [&mut self.daemon, &mut self.gateway, &mut self.control].into_iter().find_map(|process| {
            let status = process.ended()?;
            Some(format!("{} ended ({status})\n{}", process.name(), process.log_tail()))
        })
    }

    /// Ends everything in order: who uses before who is used.
    pub(crate) fn stop(self) {
        self.daemon.stop();
        if let Some(beyond) = self.beyond {
            beyond.stop();
        }
        self.gateway.stop();
        self.control.stop();
    }

    /// The processes, to be stopped one by one in this order.
    pub(crate) fn into_processes(self) -> Vec<Process> {
        [Some(self.daemon), self.beyond, Some(self.gateway), Some(self.control)].into_iter().flatten().collect()
    }
}

/// What the control plane says when it is ready.
pub(crate) struct ControlPlane {
    pub(crate) url: String,
    pub(crate) ca_file: String,
}

impl ControlPlane {
    fn read(ready: &Value) -> anyhow::Result<Self> {
        let text = |name: &str| {
            let value = ready.get(name).and_then(Value::as_str);
            value.map(str::to_owned).with_context(|| format!("postern-control's ready line has no {name}"))
        };
        Ok(Self { url: text("url")?, ca_file: text("ca_file")? })
    }
}

/// What the parts are started with.
struct Ground<'a> {
    programs: &'a Programs,
    home: &'a Path,
    interrupt: &'a Interrupt,
}

impl Ground<'_> {
    fn start_control(&self) -> anyhow::Result<(Process, Value)> {
        let listen = last_door(self.home).unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).to_string();
        let mut control = Process::start_with("postern-control", &self.home.join("logs"), |command| {
            command
                .arg(self.programs.control())
                .args(["serve", "--listen", &listen, "--org", "Demo", "--admin-email", admin::EMAIL, "--data"])
                .arg(self.home.join("control"));
        })?;
        let ready = control.ready_line(self.interrupt)?;
        remember_door(self.home, &ready)?;
        Ok((control, ready))
    }

    /// A new one-time password.
    fn reset_admin(&self, email: &str) -> anyhow::Result<String> {
        run("postern-control admin-reset", self.interrupt, "", |command| {
            command
                .arg(self.programs.control())
                .args(["admin-reset", "--email", email, "--data"])
                .arg(self.home.join("control"));
        })
    }

    fn cli(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let name = format!("postern {}", args.join(" "));
        run(&name, self.interrupt, input, |command| {
            command.arg(self.programs.cli()).args(args).env("POSTERN_HOME", self.home).env("NO_COLOR", "1");
        })
    }

    /// A gateway that was ready once knows who it is; before that it needs a new token, since the last one may have
    /// been used by a start that was cut short.
    fn start_gateway(&self, plane: &ControlPlane) -> anyhow::Result<(Process, SocketAddr)> {
        let state = self.home.join("gateway");
        let enrolled = self.home.join("gateway-enrolled");
        let mut token = None;
        if !enrolled.exists() {
            std::fs::remove_dir_all(&state).context("cannot empty the gateway's folder")?;
            make_private_folder(&state)?;
            token = Some(self.enrol_token()?);
        }
        let mut gateway = Process::start_with("postern-node", &self.home.join("logs"), |command| {
            command
                .arg(self.programs.node())
                .args(["gateway", "--listen", "127.0.0.1:0", "--drain", "1", "--control", &plane.url, "--ca"])
                .arg(&plane.ca_file)
                .arg("--state")
                .arg(&state);
            if let Some(token) = token {
                command.env("POSTERN_ENROL_TOKEN", token);
            }
        })?;
        let ready = gateway.ready_line(self.interrupt)?;
        let door = ready.get("listen").and_then(Value::as_str).context("the gateway does not say where it listens")?;
        std::fs::write(&enrolled, "").context("cannot write to the demo's folder")?;
        Ok((gateway, door.parse().context("not an address")?))
    }

    fn enrol_token(&self) -> anyhow::Result<String> {
        let known: Value = serde_json::from_str(&self.cli(&["admin", "gateways", "list", "--json"], "")?)?;
        let exists = items(&known).any(|gateway| gateway["name"] == GATEWAY);
        let command = if exists { "token" } else { "create" };
        let answer: Value = serde_json::from_str(&self.cli(&["admin", "gateways", command, GATEWAY, "--json"], "")?)?;
        let token = answer.get("enrol_token").or_else(|| answer.get("token")).and_then(Value::as_str);
        token.map(str::to_owned).context("the new gateway has no token")
    }
}

/// The entities of a list answer: `{"items":[…]}`, or just the list.
fn items(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.get("items").unwrap_or(answer).as_array().into_iter().flatten()
}

/// A text inside a resource's status: `pointer` as in RFC 6901.
fn text_of<'a>(resources: &'a Value, name: &str, pointer: &str) -> Option<&'a str> {
    items(resources).find(|item| item["name"] == name)?.pointer(pointer)?.as_str()
}

fn state_of<'a>(resources: &'a Value, name: &str) -> Option<&'a str> {
    text_of(resources, name, "/connection/connection_state")
}

fn address_of(resources: &Value, name: &str) -> anyhow::Result<SocketAddr> {
    let address = text_of(resources, name, "/connection/address");
    address.with_context(|| format!("{name} has no address"))?.parse().context("not an address")
}

/// A loopback port that is free now.
/// Names the file with the address at which the control plane listened last: a sign-in is made at an address, so that one
/// made earlier, by a person in the app too, holds as long as the address stays.
const DOOR: &str = "control.address";

/// Where the control plane listened last, if nobody else does now.
fn last_door(home: &Path) -> Option<SocketAddr> {
    let last: SocketAddr = std::fs::read_to_string(home.join(DOOR)).ok()?.trim().parse().ok()?;
    std::net::TcpListener::bind(last).ok().map(|_| last)
}

fn remember_door(home: &Path, ready: &Value) -> anyhow::Result<()> {
    let url = ready.get("url").and_then(Value::as_str).context("postern-control's ready line has no url")?;
    let address = url.trim_start_matches("https://").trim_end_matches('/');
    let path = home.join(DOOR);
    std::fs::write(&path, address).with_context(|| format!("cannot write {}", path.display()))
}

fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on loopback")?;
    Ok(listener.local_addr()?.port())
}

/// A folder that only this user may enter.
pub(crate) fn make_private_folder(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_plane_comes_back_where_it_was_unless_somebody_else_is_there() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(last_door(home.path()), None);
        let other = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = other.local_addr().unwrap();
        remember_door(home.path(), &serde_json::json!({ "url": format!("https://{address}") })).unwrap();
        assert_eq!(last_door(home.path()), None, "somebody else listens there");
        drop(other);
        assert_eq!(last_door(home.path()), Some(address));
    }
}
