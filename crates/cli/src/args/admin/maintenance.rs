//! `postern admin maintenance`.

use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};

use super::{super::parse_duration, DeleteArgs, ListArgs, Output, ShowArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// List windows; filter fields: name, require_idleness, open
    List(ListArgs),
    /// Show one
    Show(ShowArgs),
    /// Make a window
    Create(WindowCreate),
    /// Change a window; what waits for it follows
    Update(WindowUpdate),
    /// Delete windows; what waits for them waits for other ones
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
pub(crate) struct WindowCreate {
    /// Name
    pub(crate) name: String,
    /// When it opens, in UTC: minute, hour, day of month, month and day of week as in cron, for example '0 2 * * sun'
    #[arg(long, value_name = "CRON")]
    pub(crate) schedule: String,
    /// How long it stays open, for example 90m or 2h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// Begin something in it only at nodes that carry no stream
    #[arg(long)]
    pub(crate) require_idleness: bool,
    /// Only for nodes that match, for example 'role:gateway tags:site=fra'; else for all
    #[arg(long, value_name = "FILTER")]
    pub(crate) nodes: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct WindowUpdate {
    /// Name or id
    #[arg(value_name = "WINDOW")]
    pub(crate) reference: String,
    /// New name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// When it opens, in UTC, as in cron
    #[arg(long, value_name = "CRON")]
    pub(crate) schedule: Option<String>,
    /// How long it stays open
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Whether something begins in it only at nodes that carry no stream
    #[arg(long, value_name = "true|false", action = ArgAction::Set)]
    pub(crate) require_idleness: Option<bool>,
    /// Only for nodes that match; "" for all
    #[arg(long, value_name = "FILTER")]
    pub(crate) nodes: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}
