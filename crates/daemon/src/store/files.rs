//! The values that are kept, one file each.

use std::{collections::BTreeMap, fmt};

use postern_local_api::message::KeyPlace;
use postern_netstack::dns::HostRecord;
use postern_proto::{
    api::{AccountInfo, IssuedLease},
    id::{AccountId, DeviceId, LoginId, OrgId, ResourceId},
    replica::Replica,
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Folder, Stored};
use crate::port_choice::PortChoices;

/// Which control plane, and how it proves itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// `https://host:port`.
    pub control: String,
    /// The pinned CA (PEM). `None`: the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

impl Stored for Config {
    const FILE: &'static str = "config.json";
    const FOLDER: Folder = Folder::Config;
}

/// The device's private key. It is made at the first sign-in and destroyed at sign-out.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct DeviceKey {
    /// PKCS#8 in PEM, P-256.
    pub pem: String,
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(…)")
    }
}

impl Stored for DeviceKey {
    const FILE: &'static str = "device-key.json";
}

/// The device's certificate: proof of who this device is, for as long as it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The leaf in PEM.
    pub certificate: String,
    pub not_before: UnixMillis,
    pub not_after: UnixMillis,
}

impl Stored for Identity {
    const FILE: &'static str = "certificate.json";
}

/// Who is signed in, and the token of that sign-in (worth nothing without the device key).
#[derive(Clone, Serialize, Deserialize)]
pub struct SignInRecord {
    /// The control plane that issued it. It is never sent to another one.
    pub control: String,
    pub login: LoginId,
    pub token: String,
    /// By this machine's clock.
    pub signed_in_at: UnixMillis,
    pub expires_at: UnixMillis,
    pub account: AccountInfo,
    pub org: OrgId,
    pub org_name: String,
    /// The organisation's CA (PEM): what vouches for gateways.
    pub ca: String,
    pub device: DeviceId,
    #[serde(default)]
    pub must_change_password: bool,
}

impl fmt::Debug for SignInRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignInRecord")
            .field("control", &self.control)
            .field("account", &self.account.id)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl Stored for SignInRecord {
    const FILE: &'static str = "login.json";
}

impl Drop for SignInRecord {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

/// The last synced state, so that the list shows while offline and ports stay where they were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LastReplica(pub Replica);

impl Stored for LastReplica {
    const FILE: &'static str = "replica.json";
}

/// Leases that are still good when the control plane is away at the next start.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct CachedLeases {
    pub leases: Vec<IssuedLease>,
}

impl Stored for CachedLeases {
    const FILE: &'static str = "leases.json";
}

/// What the user chose per resource; absent means the account's default. It outlives the sign-in, so that the same
/// account finds its connections again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    pub account: AccountId,
    pub connected: BTreeMap<ResourceId, bool>,
}

impl Stored for Choices {
    const FILE: &'static str = "connections.json";
}

/// The ports that the user chose. They outlive the sign-in, like [`Choices`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenPorts {
    pub account: AccountId,
    pub ports: PortChoices,
}

impl Stored for ChosenPorts {
    const FILE: &'static str = "ports.json";
}

/// When each resource was last used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastUsed {
    pub account: AccountId,
    pub at: BTreeMap<ResourceId, UnixMillis>,
}

impl Stored for LastUsed {
    const FILE: &'static str = "last-used.json";
}

/// Where the device key and the sign-in are kept. It outlives sign-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStorageChosen {
    pub place: KeyPlace,
    #[serde(default)]
    pub keyring: KeyringItem,
}

/// What our item in the keyring is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyringItem {
    /// There is none.
    #[default]
    None,
    /// The secrets of the sign-in.
    Secrets,
    /// What could not be taken away when it should have been. It counts as nothing.
    Leftover,
}

impl Stored for KeyStorageChosen {
    const FILE: &'static str = "key-storage.json";
}

/// Whether the service is locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub locked: bool,
}

impl Stored for Lock {
    const FILE: &'static str = "lock.json";
}

/// Whether this user has switched the virtual network on. It outlives sign-outs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSwitch {
    pub enabled: bool,
}

impl Stored for NetworkSwitch {
    const FILE: &'static str = "network.json";
}

/// The addresses that hosts under wildcard aliases have in the virtual network. It outlives sign-outs: an address that a program may
/// remember never means another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WildcardHosts {
    pub org: OrgId,
    pub hosts: Vec<HostRecord>,
}

impl Stored for WildcardHosts {
    const FILE: &'static str = "virtual-hosts.json";
}
