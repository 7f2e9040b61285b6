//! The names of a virtual network in the system's resolver: split DNS.
//!
//! Only the zones of a link are asked at its resolver addresses; every other name goes where it went before.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tokio::sync::watch::Receiver;

use crate::interface::Zone;

#[cfg(not(target_os = "linux"))]
mod declared;
#[cfg(any(windows, test))]
pub(crate) mod nrpt;
pub mod resolv_conf;
#[cfg(target_os = "linux")]
mod resolved;
#[cfg(any(target_os = "macos", test))]
pub(crate) mod resolver_folder;
#[cfg(target_os = "linux")]
pub mod stub;
#[cfg(target_os = "linux")]
mod system;
#[cfg(target_os = "linux")]
mod takeover;
#[cfg(target_os = "linux")]
mod watch;

#[cfg(not(target_os = "linux"))]
pub use declared::{SystemDns, SystemDnsConfig};
#[cfg(target_os = "linux")]
pub use system::{SystemDns, SystemDnsConfig};

/// What one link wants to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkNames {
    /// The device's number and name.
    pub index: u32,
    pub name: String,
    /// Where to ask, IPv4 first; reachable as soon as the device's queues are read.
    pub resolvers: Vec<IpAddr>,
    /// What to ask there, each with everything below it. Checked already: no root, no public suffix.
    pub zones: Vec<Zone>,
}

/// Through what the zones are registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsBackend {
    /// systemd-resolved's D-Bus interface.
    Resolved,
    /// A stub on loopback, named in a marked and journalled resolv.conf.
    ResolvConf,
    /// macOS: files in /etc/resolver.
    ResolverFolder,
    /// Windows: the Name Resolution Policy Table.
    Nrpt,
}

/// Whether and how the zones of a link are registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DnsState {
    Registered {
        backend: DnsBackend,
    },
    /// There is no zone to register.
    NoZones,
    /// A sentence for the user: what stands in the way, and what to do.
    Unavailable {
        reason: String,
    },
}

/// What is registered and how, for `status` and `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsStatus {
    pub state: DnsState,
    pub links: Vec<LinkNames>,
    /// Sentences for people: what stands in the system's configuration now.
    pub detail: Vec<String>,
}

/// Why names cannot be registered, or not be taken back.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The resolver refused or did not answer: what it said.
    #[error("the system's resolver did not take the zones: {0}")]
    Resolver(String),
    #[error("cannot change the system's resolver configuration: {0}")]
    Io(#[from] std::io::Error),
    /// Another program keeps changing what was set.
    #[error("{0}")]
    Contested(String),
}

/// The system's resolver, as netd uses it. One value for the whole service; links are independent of each other.
///
/// A registration lasts until [`SplitDns::revert`]: whoever implements this applies it again by itself when the resolver
/// restarts.
pub trait SplitDns: Send + Sync + 'static {
    /// Makes the zones of the link what `names` says, whatever they were: idempotent, takes old zones back.
    fn register(&self, names: &LinkNames) -> impl Future<Output = Result<DnsState, DnsError>> + Send;

    /// Takes back all that was registered for the link, which may be gone already.
    fn revert(&self, index: u32) -> impl Future<Output = Result<(), DnsError>> + Send;

    /// How the zones of all links stand, and each change of it: a resolver may come and go after they were registered.
    fn follow(&self) -> Receiver<DnsState>;

    /// Takes back what an earlier run of this service left behind and did not undo, and nothing else. Called once, at
    /// start, with the single-instance lock held.
    fn restore(&self) -> impl Future<Output = Result<(), DnsError>> + Send;
}

/// What must hold for any text of a resolv.conf: for tests, and for the fuzz target.
#[doc(hidden)]
pub fn check_resolv_conf(text: &[u8]) {
    let stub = IpAddr::from([127, 0, 72, 53]);
    let before = resolv_conf::ResolvConf::parse(text);
    let written = before.with_stub(stub);
    let ours = resolv_conf::ResolvConf::parse(&written);
    assert!(ours.is_marked() && ours.asks(stub), "our file is known again");
    assert_eq!(ours.servers().len(), 1, "our file asks the stub alone");
    let cleared = ours.without_stub(stub, &before);
    let after = resolv_conf::ResolvConf::parse(&cleared);
    let servers = |file: &resolv_conf::ResolvConf<'_>| format!("{:?}", file.servers());
    let asked_already = before.asks(stub) || before.is_marked();
    assert!(asked_already || servers(&after) == servers(&before), "the servers of before are asked again");
    assert!(asked_already || !after.is_marked() && !after.asks(stub), "nothing of ours is left");
}
