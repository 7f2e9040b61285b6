//! What is reached, and what carries connections to it.

use std::net::IpAddr;

use clap::{ArgAction, Args, Subcommand};
use postern_proto::{
    port::PortSet,
    resource::{BindMode, Kind, UnknownKind},
};

use super::{DeleteArgs, ListArgs, NewTags, Output, ShowArgs, TagChanges};

const BIND: &str = "Where it appears on users' machines; what is missing is assigned";

#[derive(Debug, Subcommand)]
pub(crate) enum ResourcesCommand {
    /// List resources; filter fields: name, kind, host, port, ports, tags, health and more
    List(ListArgs),
    /// Show one resource
    Show(ShowArgs),
    /// Make a resource
    Create(Box<ResourceCreate>),
    /// Change a resource
    Update(Box<ResourceUpdate>),
    /// Delete resources; their connections are cut
    Delete(DeleteArgs),
    /// Have the gateways check a resource now; the exit code says whether it is healthy
    Check(ShowArgs),
    /// Show how each node sees a resource, and when that changed within the last week
    Health(ShowArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ResourceCreate {
    /// Name; without quotes and angle brackets
    pub(crate) name: String,
    /// What speaks there
    #[arg(long, default_value = "tcp", value_parser = parse_kind)]
    pub(crate) kind: Kind,
    /// Host name or address, as the gateways reach it
    #[arg(long)]
    pub(crate) host: String,
    /// Its own port there; the usual one of the kind when missing
    #[arg(long)]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) tags: NewTags,
    #[command(flatten)]
    pub(crate) bind: Bind,
    /// Let gateways dial loopback, link-local and metadata addresses for it
    #[arg(long)]
    pub(crate) allow_local: bool,
    /// Refuse new connections when the control plane was not heard of for 15 s
    #[arg(long)]
    pub(crate) strict: bool,
    /// Which nodes dial it, as a filter over nodes: 'kind:relay tags:site=fra'
    #[arg(long, value_name = "FILTER")]
    pub(crate) egress: Option<String>,
    /// Name or id of the cluster over which alone it is reached
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct ResourceUpdate {
    /// Name or id
    #[arg(value_name = "RESOURCE")]
    pub(crate) reference: String,
    /// New name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What speaks there
    #[arg(long, value_parser = parse_kind)]
    pub(crate) kind: Option<Kind>,
    /// Host name or address, as the gateways reach it
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Its own port there
    #[arg(long)]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) tags: TagChanges,
    #[command(flatten)]
    pub(crate) bind: Bind,
    /// Whether gateways may dial loopback, link-local and metadata addresses for it
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub(crate) allow_local: Option<bool>,
    /// Whether new connections are refused when the control plane was not heard of for 15 s
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub(crate) strict: Option<bool>,
    /// Which nodes dial it, as a filter over nodes: 'kind:relay tags:site=fra'; "" for all
    #[arg(long, value_name = "FILTER")]
    pub(crate) egress: Option<String>,
    /// Name or id of the cluster over which alone it is reached; "" for gateways and relays
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What of it may be reached in the virtual network beside its own port on its own host.
#[derive(Args, Debug)]
pub(crate) struct Reach {
    /// Ports and ranges beside its own, for example 7000-7005,9000; replaces all, '' for none
    #[arg(long, value_name = "PORTS")]
    pub(crate) ports: Option<PortSet>,
    /// Which hosts under a wildcard name may be reached, for example '*.eu.kafka.internal'; replaces all, '' for every one
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(crate) hosts: Option<Vec<String>>,
}

/// Where the resource appears on users' machines; what is missing is assigned.
#[derive(Args, Debug)]
pub(crate) struct Bind {
    /// loopback, vnm or both
    #[arg(help_heading = BIND, id = "bind_mode", long = "bind-mode", value_name = "MODE", value_parser = parse_bind_mode)]
    pub(crate) mode: Option<BindMode>,
    /// Address of the loopback range or of the virtual subnet
    #[arg(help_heading = BIND, id = "bind_ip", long = "bind-ip", value_name = "IP")]
    pub(crate) ip: Option<IpAddr>,
    /// Port: 1024 to 64999 on loopback addresses, 1 to 65535 in the virtual network
    #[arg(help_heading = BIND, id = "bind_port", long = "bind-port", value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Name in the virtual network; may be its real host name, or a wildcard such as '*.kafka.internal' for several hosts
    #[arg(help_heading = BIND, long, value_name = "NAME")]
    pub(crate) dns_name: Option<String>,
    /// In the virtual network: its address of the loopback range besides
    #[arg(help_heading = BIND, long, value_name = "IP")]
    pub(crate) loopback_ip: Option<IpAddr>,
    /// In the virtual network: its port there, 1024 to 64999
    #[arg(help_heading = BIND, long, value_name = "PORT")]
    pub(crate) loopback_port: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GatewaysCommand {
    /// List gateways
    List(ListArgs),
    /// Show one gateway
    Show(ShowArgs),
    /// Make a gateway; prints the token that enrols it, this once
    Create(GatewayCreate),
    /// Change a gateway
    Update(GatewayUpdate),
    /// Delete gateways; what they carry is cut
    Delete(DeleteArgs),
    /// Make a new token to enrol a gateway with; it is shown this once
    Token(ShowArgs),
}

#[derive(Args, Debug)]
pub(crate) struct GatewayCreate {
    /// Name
    pub(crate) name: String,
    /// gateway, or relay: a node that listens nowhere and is reached through gateways
    #[arg(long, value_name = "KIND", value_parser = ["gateway", "relay"])]
    pub(crate) kind: Option<String>,
    /// Peering group: relays park links at gateways of the same one
    #[arg(long)]
    pub(crate) group: Option<String>,
    #[command(flatten)]
    pub(crate) tags: NewTags,
    /// Where clients dial it, as host:port; else what the gateway says itself
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct GatewayUpdate {
    /// Name or id
    #[arg(value_name = "GATEWAY")]
    pub(crate) reference: String,
    /// New name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Peering group; "" for the one without a name
    #[arg(long)]
    pub(crate) group: Option<String>,
    #[command(flatten)]
    pub(crate) tags: TagChanges,
    /// Where clients dial it, as host:port
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Show the settings
    Show(Output),
    /// Change the settings
    Update(NetworkUpdate),
}

#[derive(Args, Debug)]
pub(crate) struct NetworkUpdate {
    /// Loopback addresses that resources appear on, for example 127.0.0.0/16
    #[arg(long, value_name = "CIDR")]
    pub(crate) loopback_range: Option<String>,
    /// Whether addresses other than the first of the range are used
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub(crate) multi_loopback: Option<bool>,
    /// The organisation's virtual subnet, for example 100.72.0.0/16
    #[arg(long, value_name = "CIDR")]
    pub(crate) vnm_subnet: Option<String>,
    /// The zone of names in the virtual network, for example my-org; names within the old one move along
    #[arg(long, value_name = "ZONE")]
    pub(crate) dns_zone: Option<String>,
    /// Whether resources have IPv6 addresses too
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub(crate) vnm_ipv6: Option<bool>,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn parse_kind(word: &str) -> Result<Kind, String> {
    word.parse().map_err(|error: UnknownKind| error.to_string())
}

fn parse_bind_mode(word: &str) -> Result<BindMode, String> {
    match word {
        "loopback" => Ok(BindMode::Loopback),
        "vnm" => Ok(BindMode::Vnm),
        "both" => Ok(BindMode::Both),
        _ => Err("use loopback, vnm or both".to_owned()),
    }
}
