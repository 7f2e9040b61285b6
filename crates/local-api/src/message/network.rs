//! Virtual Networking Mode on this machine.

use std::net::IpAddr;

use postern_proto::time::UnixMillis;
use serde::{Deserialize, Serialize};

/// Virtual Networking Mode on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum NetworkStatus {
    /// The user has not switched it on: resources are reached in loopback mode.
    #[default]
    Off,
    /// Switched on; it comes up when somebody is signed in.
    Waiting,
    /// postern-netd has been asked.
    Starting,
    Up(Box<NetworkUp>),
    /// It is switched on and cannot be had: resources are reached in loopback mode meanwhile.
    Unavailable {
        fault: NetworkFault,
        /// A sentence: what is wrong.
        reason: String,
        /// When it is tried again.
        retry_at: UnixMillis,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUp {
    /// The name of the network device.
    pub interface: String,
    /// Where the resources are.
    pub subnet: String,
    /// Set when `subnet` is not what the organisation wishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<NetworkMoved>,
    /// The IPv6 network beside it, where this machine has IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// This user's own address in it.
    pub address: IpAddr,
    /// The address that answers names.
    pub resolver: IpAddr,
    /// The zones whose names are asked there.
    pub zones: Vec<String>,
    pub names: NameService,
    pub since: UnixMillis,
    /// What keeps the latest changes, such as new zones, from being applied; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
    /// Names of resources that nobody answers, since none of `zones` covers them: there are too many zones, theirs would
    /// cover the control plane or a gateway, or could not be had. The addresses of these resources work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// The virtual network is elsewhere because something on this machine has its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkMoved {
    /// The organisation's subnet.
    pub from: String,
    /// What has it: sentences such as "100.64.0.0/10 is routed to tailscale0 (Tailscale)". Empty when it is free again:
    /// it is taken back when the network is next switched on.
    pub because: Vec<String>,
}

/// How the system asks for the names of the virtual network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum NameService {
    /// Through what the zones are registered: `systemd-resolved`, `resolv.conf`, …
    Registered { through: String },
    /// There is no zone to register.
    NoZones,
    /// Names are not asked for; resources are reached by address.
    Unavailable { reason: String },
}

/// Why there is no virtual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkFault {
    /// postern-netd is not installed or does not run.
    NoService,
    /// postern-netd does not make networks for this user.
    NotPermitted,
    /// The system gives no TUN device.
    NoDevice,
    /// No subnet is free on this machine.
    NoSubnet,
    /// The organisation's settings make no network.
    BadSettings,
    /// Something else; the reason says what.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkChoice {
    pub enabled: bool,
}
