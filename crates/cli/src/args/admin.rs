//! The command line of `postern admin`.

use clap::{Args, Subcommand};
use postern_proto::time::UnixMillis;

use super::parse_duration;
use crate::text;

mod access;
mod accounts;
mod clusters;
mod infrastructure;
mod maintenance;
mod nodes;

pub(crate) use self::{access::*, accounts::*, clusters::*, infrastructure::*, maintenance::*, nodes::*};

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Users and service accounts
    #[command(subcommand, arg_required_else_help = true, visible_alias = "account")]
    Accounts(AccountsCommand),
    /// Tokens of service accounts
    #[command(subcommand, arg_required_else_help = true, visible_alias = "token")]
    Tokens(TokensCommand),
    /// Roles: what a group of accounts may reach
    #[command(subcommand, arg_required_else_help = true, visible_alias = "role")]
    Roles(RolesCommand),
    /// Rules of roles: which resources they open
    #[command(subcommand, arg_required_else_help = true, visible_alias = "rule")]
    Rules(RulesCommand),
    /// Members of roles
    #[command(subcommand, arg_required_else_help = true, visible_alias = "member")]
    Members(MembersCommand),
    /// Direct grants of one resource to one account
    #[command(subcommand, arg_required_else_help = true, visible_alias = "grant")]
    Grants(GrantsCommand),
    /// Resources: what can be reached
    #[command(subcommand, arg_required_else_help = true, visible_alias = "resource")]
    Resources(ResourcesCommand),
    /// Gateways: what carries connections to resources
    #[command(subcommand, arg_required_else_help = true, visible_alias = "gateway")]
    Gateways(GatewaysCommand),
    /// Gateways and relays as those see them who run them: how they are, and taking them out of service
    #[command(subcommand, arg_required_else_help = true, visible_alias = "node")]
    Nodes(NodesCommand),
    /// Maintenance windows: when nodes may be taken out of service by themselves
    #[command(subcommand, arg_required_else_help = true, visible_alias = "window")]
    Maintenance(MaintenanceCommand),
    /// Proxy clusters: workers behind one address
    #[command(subcommand, arg_required_else_help = true, visible_alias = "cluster")]
    Clusters(ClustersCommand),
    /// Key pairs with which workers of proxy clusters enrol
    #[command(subcommand, arg_required_else_help = true, visible_alias = "cluster-key")]
    ClusterKeys(ClusterKeysCommand),
    /// Where resources appear on users' machines
    #[command(subcommand, arg_required_else_help = true)]
    Network(NetworkCommand),
    /// Machines that accounts signed in from
    #[command(subcommand, arg_required_else_help = true, visible_alias = "device")]
    Devices(DevicesCommand),
    /// Who reached what: the record of all connections
    #[command(subcommand, arg_required_else_help = true, visible_alias = "session")]
    Sessions(RecordsCommand),
    /// Who changed what: the record of administration
    #[command(subcommand, arg_required_else_help = true, visible_alias = "activity")]
    Activities(RecordsCommand),
    /// The integrity of the records
    #[command(subcommand, arg_required_else_help = true)]
    Audit(AuditCommand),
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Only what matches, for example 'name:pay* tags:env=prod'
    #[arg(long, short, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// At most this many; 0 for all
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1000)]
    pub(crate) limit: usize,
    /// Print the answer of the API as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Name or id
    #[arg(value_name = "NAME")]
    pub(crate) reference: String,
    /// Print the answer of the API as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    pub(crate) references: Vec<String>,
    #[command(flatten)]
    pub(crate) sure: Sure,
}

#[derive(Args, Debug)]
pub(crate) struct Sure {
    /// Do not ask; needed where there is no terminal to ask on
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Output {
    /// Print the answer of the API as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Tags of something new.
#[derive(Args, Debug)]
pub(crate) struct NewTags {
    /// A tag, as key=value or key; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    pub(crate) tags: Vec<(String, String)>,
}

/// Changes of the tags of something that is there.
#[derive(Args, Debug)]
pub(crate) struct TagChanges {
    /// Set a tag, as key=value or key; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    pub(crate) set: Vec<(String, String)>,
    /// Remove a tag; may be given several times
    #[arg(long = "untag", value_name = "KEY")]
    pub(crate) remove: Vec<String>,
}

impl TagChanges {
    pub(crate) const fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

/// When something ends.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct End {
    /// End after this time, for example 8h or 30d
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) span: Option<std::time::Duration>,
    /// End at this instant, for example 2026-12-24 or 2026-12-24T18:00Z (UTC)
    #[arg(long, value_name = "DATE", value_parser = parse_instant)]
    pub(crate) until: Option<UnixMillis>,
}

impl End {
    pub(crate) fn at(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.until.or_else(|| self.span.map(|span| now.plus(span)))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevicesCommand {
    /// List devices
    List(ListArgs),
    /// Show one device
    Show(ShowArgs),
    /// Shut devices out; their connections are cut
    #[command(visible_alias = "revoke")]
    Delete(DeleteArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecordsCommand {
    /// List the latest records
    List(RecordListArgs),
    /// Show one record
    Show(ShowArgs),
    /// Print all records as JSON lines, newest first
    Export(ExportArgs),
}

#[derive(Args, Debug)]
pub(crate) struct RecordListArgs {
    /// Only what matches
    #[arg(long, short, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// At most this many; 0 for all
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
    /// Print the answer of the API as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Only what matches
    #[arg(long, short, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no record was changed, removed or moved
    Verify(Output),
}

fn parse_tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    match key.trim() {
        "" => Err("a tag is key=value or key".to_owned()),
        key => Ok((key.to_owned(), value.trim().to_owned())),
    }
}

fn parse_instant(text: &str) -> Result<UnixMillis, String> {
    text::parse_instant(text)
        .ok_or_else(|| "write an instant as 2026-12-24, 2026-12-24T18:00Z or in RFC 3339".to_owned())
}
