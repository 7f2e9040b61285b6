//! A resource as one row of the list.

use serde::Serialize;

use super::Problem;

/// What speaks at a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Kind {
    Tcp,
    Http,
    Postgres,
    Mysql,
    Redis,
    Ssh,
}

/// The state words of the design, §5; the service decides them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum ResourceState {
    Connected,
    Connecting,
    Off,
    /// Connected, and the grant or the sign-in ends soon: see `ends_at`.
    Expiring,
    /// Connected, but slow or through a node in trouble: see `trouble`.
    Degraded,
    /// Switched on, but nothing can be carried: see `trouble`.
    Unhealthy,
    /// Somebody must allow it first.
    NeedsApproval,
    /// Switched on, but held back while locked.
    Locked,
}

/// One resource: small, because there may be 10,000. The rest comes by `open_details`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Row {
    pub id: String,
    pub name: String,
    pub kind: Kind,
    /// As the filter grammar spells them, in order: `prod`, `team=payments`.
    pub tags: Vec<String>,
    /// Where programs reach it, or would: `127.0.0.1:15432`, `100.72.0.9:5432`.
    pub address: String,
    /// The same by name, in the virtual network: `orders.northwind:5432`; show this one where it is there.
    pub dns_name: Option<String>,
    /// The port of `address`.
    pub port: u16,
    /// The node through which it is entered: `gw-fra-1`.
    pub entry: Option<String>,
    /// To and from that node.
    pub latency_micros: Option<u64>,
    pub state: ResourceState,
    /// What is wrong with it, whatever the state: `what` is the second line of the row.
    pub trouble: Option<Trouble>,
    /// The switch: what the user wishes. The state shows the fact.
    pub wanted: bool,
    /// Whether the switch may be moved.
    pub may_switch: bool,
    /// When access to it ends, for "Ends in 24 min".
    pub ends_at: Option<u64>,
    /// Place among the favourites, from 0; `null`: it is none.
    pub favourite: Option<u32>,
    /// Place among the recents, the last used is 0; `null`: not used of late.
    pub recent: Option<u32>,
    /// The user's own port, where there is one.
    pub port_override: Option<u16>,
    /// Streams carried now.
    pub streams: u32,
    /// Since the service started.
    pub bytes_up: u64,
    pub bytes_down: u64,
}

/// What is wrong with a resource, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Trouble {
    #[serde(flatten)]
    pub problem: Problem,
    /// When it was last seen.
    pub at: u64,
    /// When the service tries again by itself.
    pub retry_at: Option<u64>,
}
