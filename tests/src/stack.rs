//! A whole Postern for one test: control plane, gateways, users with posternd, resources.
//!
//! ```text
//! let target = Target::start(Behaviour::Echo).await?;
//! let stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
//! let address = stack.user().connect("echo").await?;
//! …
//! stack.stop().await
//! ```
//!
//! Each stack has loopback addresses of its own, so that tests run side by side although every control plane assigns
//! the same ports.

mod control;
mod gateway;
mod relay;
mod user;
mod worker;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::{
    id::{AccountId, NodeId, ResourceId, RoleId},
    resource::Kind,
};
use serde_json::{Value, json};

pub use control::ControlPlane;
pub use gateway::{Gateway, How};
pub use relay::Relay;
pub use user::User;
pub use worker::{ClusterKey, Worker};

use crate::{
    api::{Api, ControlAddress},
    balancer::{Balancer, Entrance},
    binaries::{Binaries, binaries},
    command::PATIENCE,
    device::Device,
    ports::own_loopback,
    servers::{Folder, folder},
};

/// What everybody's account is protected with.
pub const PASSWORD: &str = "correct horse battery staple";
/// The first user's account.
pub const EMAIL: &str = "ada@example.org";

/// What to start.
#[derive(Clone)]
pub struct Builder {
    gateways: usize,
    resources: Vec<(String, Kind, SocketAddr)>,
    owner: Option<u32>,
    allowed: Vec<u32>,
    log: String,
    gateway_options: Vec<String>,
    user: bool,
    user_environment: Vec<(String, String)>,
    user_launcher: Vec<String>,
    gateway_hosts: String,
    database: Option<String>,
    behind: Option<Entrance>,
    host: IpAddr,
}

/// What a test starts its programs with.
pub(crate) struct Setting {
    pub(crate) binaries: Binaries,
    pub(crate) folder: Folder,
    /// `RUST_LOG`.
    pub(crate) log: String,
    pub(crate) user_environment: Vec<(String, String)>,
    /// A program and its arguments that become posternd.
    pub(crate) user_launcher: Vec<String>,
    /// A file in place of `/etc/hosts` for gateways.
    pub(crate) gateway_hosts: Option<std::path::PathBuf>,
    /// PostgreSQL for control planes.
    pub(crate) database: Option<String>,
    /// The balancer before control planes.
    pub(crate) behind: Option<Entrance>,
    /// Where control plane and gateways listen.
    pub(crate) host: IpAddr,
}

/// A running Postern.
pub struct Stack {
    pub control: ControlPlane,
    pub gateways: Vec<Gateway>,
    pub relays: Vec<Relay>,
    user: Option<User>,
    /// The administrator, on a device of the test.
    pub admin: Device,
    pub account: AccountId,
    /// A role that the first user is a member of and that reaches every resource of the builder.
    pub role: RoleId,
    pub loopback: Ipv4Addr,
    setting: Setting,
}

impl Stack {
    /// One gateway and a signed-in user, nothing to reach.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            gateways: 1,
            resources: Vec::new(),
            owner: None,
            allowed: Vec::new(),
            log: "info".to_owned(),
            gateway_options: Vec::new(),
            user: true,
            // Never the keyring of whoever runs the tests.
            user_environment: vec![("POSTERN_KEY_STORAGE".to_owned(), "file".to_owned())],
            user_launcher: Vec::new(),
            gateway_hosts: String::new(),
            database: None,
            behind: None,
            host: Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Starts one more control plane on the same database, which the balancer knows of from now on.
    pub async fn start_replica(&self, name: &str) -> anyhow::Result<ControlPlane> {
        ControlPlane::start(&self.setting, name).await
    }

    /// The REST API of one control plane as the administrator, past the balancer.
    pub fn admin_at(&self, control: &ControlPlane) -> anyhow::Result<Api> {
        let address = ControlAddress { address: control.listens(), ca: control.address().ca.clone() };
        Api::new(&address, Some(&self.admin.identity), Some(&self.admin.token))
    }

    /// The REST API as the administrator.
    #[must_use]
    pub fn api(&self) -> &Api {
        self.admin.api()
    }

    /// The first user's posternd.
    #[must_use]
    pub fn user(&self) -> &User {
        // The builder makes one unless the test said that it needs none.
        self.user.as_ref().unwrap_or_else(|| unreachable!("this stack was built without a user"))
    }

    pub fn user_mut(&mut self) -> &mut User {
        self.user.as_mut().unwrap_or_else(|| unreachable!("this stack was built without a user"))
    }

    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.setting.folder.path()
    }

    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.setting.binaries
    }

    /// Makes an account with [`PASSWORD`].
    pub async fn create_account(&self, email: &str) -> anyhow::Result<AccountId> {
        self.create_account_that_is(email, false).await
    }

    /// The same, and may administer or not.
    pub async fn create_account_that_is(&self, email: &str, admin: bool) -> anyhow::Result<AccountId> {
        let name = email.split('@').next().unwrap_or(email);
        let body = json!({"email": email, "name": name, "kind": "user", "admin": admin, "password": PASSWORD});
        id(&self.api().post("/api/v1/accounts", body).await?)
    }

    /// Makes a resource behind gateways of this machine.
    pub async fn create_resource(&self, name: &str, kind: Kind, at: SocketAddr) -> anyhow::Result<ResourceId> {
        let body = json!({
            "name": name, "kind": kind, "host": at.ip().to_string(), "port": at.port(), "allow_local": true,
        });
        id(&self.api().post("/api/v1/resources", body).await?)
    }

    /// Lets the role reach these resources; the id of the rule.
    pub async fn add_rule(&self, role: RoleId, resources: &[ResourceId]) -> anyhow::Result<String> {
        let rule = self.api().post(&format!("/api/v1/roles/{role}/rules"), json!({"resources": resources})).await?;
        Ok(rule.get("id").and_then(Value::as_str).context("a rule has an id")?.to_owned())
    }

    /// Grants one resource to one account, for ever or for a while; the id of the grant.
    pub async fn grant(
        &self,
        account: AccountId,
        resource: ResourceId,
        lasts: Option<Duration>,
    ) -> anyhow::Result<String> {
        let ends_at = lasts.map(|lasts| crate::clock::now().plus(lasts));
        let body = json!({"account": account, "resource": resource, "ends_at": ends_at, "reason": "test"});
        let grant = self.api().post("/api/v1/grants", body).await?;
        Ok(grant.get("id").and_then(Value::as_str).context("a grant has an id")?.to_owned())
    }

    /// The id of a resource by its name.
    pub async fn resource(&self, name: &str) -> anyhow::Result<ResourceId> {
        let all = self.api().list("/api/v1/resources").await?;
        let found = all.iter().find(|resource| resource.get("name").and_then(Value::as_str) == Some(name));
        id(found.with_context(|| format!("no resource {name}"))?)
    }

    /// Starts posternd for one more user of this machine; signed out.
    pub async fn add_user(&self, name: &str, owner: Option<u32>, allowed: &[u32]) -> anyhow::Result<User> {
        User::start(&self.setting, name, self.control.address(), owner, allowed).await
    }

    /// Enrols and starts one more gateway.
    pub async fn add_gateway(&self, name: &str, options: &[String]) -> anyhow::Result<Gateway> {
        self.add_gateway_with(name, &How { options: options.to_owned(), ..How::default() }).await
    }

    /// The same in whatever way.
    pub async fn add_gateway_with(&self, name: &str, how: &How) -> anyhow::Result<Gateway> {
        let created = self.api().post("/api/v1/gateways", json!({"name": name, "group": how.group})).await?;
        let token = created.get("enrol_token").and_then(Value::as_str).context("a new gateway has a token")?;
        Gateway::start(&self.setting, name, self.control.address(), token, how).await
    }

    /// Enrols and starts a relay of this peering group, and waits until it has parked links at `gateways` of them.
    pub async fn add_relay(&mut self, name: &str, group: &str, gateways: usize) -> anyhow::Result<()> {
        self.add_relay_with(name, gateways, &How { group: group.to_owned(), ..How::default() }).await
    }

    /// The same in whatever way.
    pub async fn add_relay_with(&mut self, name: &str, gateways: usize, how: &How) -> anyhow::Result<()> {
        let body = json!({"name": name, "kind": "relay", "group": how.group});
        let created = self.api().post("/api/v1/gateways", body).await?;
        let token = created.get("enrol_token").and_then(Value::as_str).context("a new relay has a token")?;
        let relay = Relay::start(&self.setting, name, self.control.address(), token, how).await?;
        self.relays.push(relay);
        let parked = |log: &str| log.matches("links are parked").count() >= gateways;
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.relays.last().is_some_and(|relay| parked(&relay.log())) {
            anyhow::ensure!(Instant::now() < deadline, "relay {name} parks no links");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Lets only nodes that this filter names dial a resource.
    pub async fn set_egress(&self, resource: ResourceId, filter: &str) -> anyhow::Result<()> {
        self.api().patch(&format!("/api/v1/resources/{resource}"), json!({"egress": filter})).await.map(drop)
    }

    /// The gateway that carries the user's streams to this resource now.
    pub async fn carrier_of(&mut self, name: &str) -> anyhow::Result<&mut Gateway> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let node = loop {
            let sessions = self.user().client().sessions().await?;
            let carried = sessions.iter().find(|session| session.resource_name == name);
            if let Some(node) = carried.and_then(|session| session.gateway) {
                break node;
            }
            anyhow::ensure!(Instant::now() < deadline, "no stream to {name} is carried");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        self.gateways
            .iter_mut()
            .find(|gateway| node == gateway.id().into())
            .with_context(|| format!("no gateway {node}"))
    }

    /// Takes the first user's access to everything away. Returns the moment before the control plane was asked.
    pub async fn revoke_all(&self) -> anyhow::Result<Instant> {
        let members = self.api().list(&format!("/api/v1/roles/{}/members", self.role)).await?;
        let account = self.account.to_string();
        let named = |member: &&Value| ["account", "id"].iter().any(|f| member.get(f) == Some(&json!(account)));
        anyhow::ensure!(members.iter().any(|member| named(&member)), "{account} is no member: {members:?}");
        let asked = Instant::now();
        self.api().delete(&format!("/api/v1/roles/{}/members/{account}", self.role)).await?;
        Ok(asked)
    }

    /// Session records as the control plane has them, oldest first, once `enough` holds or time is up.
    pub async fn sessions_when(&self, enough: impl Fn(&[Value]) -> bool) -> anyhow::Result<Vec<Value>> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let sessions = self.api().list("/api/v1/sessions").await?;
            if enough(&sessions) || Instant::now() > deadline {
                return Ok(sessions);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether a control plane answers and has every gateway, relay and worker.
    pub async fn has_all_nodes(&self) -> bool {
        let connected = |node: &Value| node.get("state").and_then(Value::as_str) == Some("connected");
        let nodes = self.api().list("/api/v1/gateways").await;
        nodes.is_ok_and(|nodes| !nodes.is_empty() && nodes.iter().all(connected))
    }

    /// Waits until it has.
    pub async fn nodes_are_connected(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.has_all_nodes().await {
            anyhow::ensure!(Instant::now() < deadline, "the control plane does not have every node");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until a node is in this state (`up`, `draining`, `drained`, `away`).
    pub async fn node_is(&self, node: NodeId, state: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = self.api().get(&format!("/api/v1/nodes/{node}")).await?;
            if view.get("state").and_then(Value::as_str) == Some(state) {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "it is not {state}: {view}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops everything in good order and checks that nothing panicked. A test that ends without this gets the logs.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(user) = &mut self.user {
            user.stop().await?;
        }
        for relay in &mut self.relays {
            relay.stop().await?;
        }
        for gateway in &mut self.gateways {
            gateway.stop().await?;
        }
        self.control.stop().await
    }
}

impl Builder {
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// A resource that the first user may reach.
    #[must_use]
    pub fn resource(mut self, name: &str, kind: Kind, at: SocketAddr) -> Self {
        self.resources.push((name.to_owned(), kind, at));
        self
    }

    /// The uid that posternd runs as. Needs root.
    #[must_use]
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }

    /// A further uid that may use the listeners (`--allow-uid`).
    #[must_use]
    pub fn allow(mut self, uid: u32) -> Self {
        self.allowed.push(uid);
        self
    }

    /// `RUST_LOG` of all programs.
    #[must_use]
    pub fn log(mut self, filter: &str) -> Self {
        filter.clone_into(&mut self.log);
        self
    }

    /// A further argument for every gateway.
    #[must_use]
    pub fn gateway_option(mut self, option: &str) -> Self {
        self.gateway_options.push(option.to_owned());
        self
    }

    /// A variable for every posternd.
    #[must_use]
    pub fn user_environment(mut self, name: &str, value: &str) -> Self {
        self.user_environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A program and its arguments that become every posternd, which is given as its last arguments.
    #[must_use]
    pub fn user_launcher(mut self, words: &[&str]) -> Self {
        self.user_launcher = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// A name that gateways resolve to this address, and nobody else does. Needs root.
    #[must_use]
    pub fn gateway_host(mut self, name: &str, at: IpAddr) -> Self {
        self.gateway_hosts += &format!("{at} {name}\n");
        self
    }

    /// Control planes on this PostgreSQL database.
    #[must_use]
    pub fn database(mut self, url: &str) -> Self {
        self.database = Some(url.to_owned());
        self
    }

    /// Everybody calls the control planes through this balancer.
    #[must_use]
    pub fn behind(mut self, balancer: &Balancer) -> Self {
        self.behind = Some(balancer.entrance());
        self
    }

    /// Where control plane and gateways listen; loopback when this is not called.
    #[must_use]
    pub fn host(mut self, host: IpAddr) -> Self {
        self.host = host;
        self
    }

    /// No posternd: the test signs devices in itself.
    #[must_use]
    pub fn without_user(mut self) -> Self {
        self.user = false;
        self
    }

    /// Starts everything. The user is signed in and told of every resource, but connected to none.
    pub async fn start(self) -> anyhow::Result<Stack> {
        let folder = folder()?;
        let gateway_hosts = (!self.gateway_hosts.is_empty()).then(|| folder.path().join("gateway-hosts"));
        if let Some(file) = &gateway_hosts {
            std::fs::write(file, format!("127.0.0.1 localhost\n{}", self.gateway_hosts))?;
        }
        let setting = Setting {
            binaries: binaries()?,
            folder,
            log: self.log,
            user_environment: self.user_environment,
            user_launcher: self.user_launcher,
            gateway_hosts,
            database: self.database,
            behind: self.behind,
            host: self.host,
        };
        let mut control = ControlPlane::start(&setting, "control").await.context("the control plane")?;
        let admin = control.take_admin().await.context("the first administrator")?;
        let loopback = own_loopback();
        let network = json!({"loopback_range": format!("{loopback}/32"), "multi_loopback": false});
        change_network(admin.api(), &network).await?;
        let role = id(&admin.api().post("/api/v1/roles", json!({"name": "everything"})).await?)?;
        let mut stack = Stack {
            control,
            gateways: Vec::new(),
            relays: Vec::new(),
            user: None,
            account: admin.account,
            admin,
            role,
            loopback,
            setting,
        };
        stack.account = stack.create_account(EMAIL).await?;
        let member = json!({"account": stack.account});
        stack.api().post(&format!("/api/v1/roles/{role}/members"), member).await?;
        let mut resources = Vec::new();
        for (name, kind, at) in &self.resources {
            resources.push(stack.create_resource(name, *kind, *at).await?);
        }
        if !resources.is_empty() {
            stack.add_rule(role, &resources).await?;
        }
        for number in 1..=self.gateways {
            let gateway = stack.add_gateway(&format!("gateway-{number}"), &self.gateway_options).await;
            stack.gateways.push(gateway.with_context(|| format!("gateway {number}"))?);
        }
        if self.user {
            let user = stack.add_user("ada", self.owner, &self.allowed).await.context("posternd")?;
            user.login(EMAIL, PASSWORD).await?;
            for (name, ..) in &self.resources {
                user.knows(name).await?;
            }
            user.has_gateways(self.gateways).await?;
            stack.user = Some(user);
        }
        Ok(stack)
    }
}

async fn change_network(api: &Api, change: &Value) -> anyhow::Result<()> {
    let mut network = api.get("/api/v1/network").await?;
    let fields = network.as_object_mut().context("network settings are an object")?;
    fields.extend(change.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
    api.put("/api/v1/network", network).await.map(drop)
}

/// The `id` of an entity.
pub fn id<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(entity: &Value) -> anyhow::Result<T> {
    let id = entity.get("id").and_then(Value::as_str).with_context(|| format!("no id in {entity}"))?;
    Ok(id.parse()?)
}

/// Stops a program that must then end with success and must not have panicked before. Nothing happens to one that
/// the test has killed.
async fn stop_in_order(process: &mut crate::process::Process) -> anyhow::Result<()> {
    if process.is_settled() {
        return Ok(());
    }
    anyhow::ensure!(process.is_running(), "{} ended before it was stopped\n{}", process.name(), process.log_end());
    let status = process.stop().await?;
    anyhow::ensure!(status.success(), "{} ended with {status}\n{}", process.name(), process.log_end());
    let log = process.log();
    anyhow::ensure!(!log.contains("panicked at"), "{} panicked\n{log}", process.name());
    Ok(())
}
