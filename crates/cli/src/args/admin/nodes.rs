//! Looking after nodes.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{super::parse_duration, ListArgs, Output, ShowArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum NodesCommand {
    /// List gateways and relays; filter fields: name, role, group, tags, state, version
    List(ListArgs),
    /// Show one node
    Show(ShowArgs),
    /// Take a node out of service: it leaves the routes at once, and what runs has until a deadline, which users are told
    Drain(NodeDrain),
}

#[derive(Args, Debug)]
pub(crate) struct NodeDrain {
    /// Name or id
    #[arg(value_name = "NODE")]
    pub(crate) reference: String,
    /// How long running connections have to end, for example 300, 300s or 10m; 0 cuts them at once
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "cancel")]
    pub(crate) deadline: Option<Duration>,
    /// Wait for a maintenance window that is for the node, and begin then
    #[arg(long, conflicts_with = "cancel")]
    pub(crate) in_window: bool,
    /// Put it back into service, or take back that it is to be drained
    #[arg(long)]
    pub(crate) cancel: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}
