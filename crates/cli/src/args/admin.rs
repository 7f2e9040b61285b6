//! The command line of `postern admin`.

use std::net::IpAddr;

use clap::{ArgAction, Args, Subcommand, ValueEnum};
use postern_proto::{
    resource::{BindMode, Kind},
    time::UnixMillis,
};

use super::parse_duration;
use crate::text;

const BIND: &str = "Where it appears on users' machines; what is missing is assigned";

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

#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// List accounts; filter fields: email, name, kind, admin, suspended, tags
    List(ListArgs),
    /// Show one account
    Show(ShowArgs),
    /// Make an account
    Create(AccountCreate),
    /// Change an account
    Update(AccountUpdate),
    /// Delete accounts; their connections are cut
    Delete(DeleteArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AccountKind {
    /// A person, who signs in with a password
    User,
    /// A program, which signs in with a token
    Service,
}

#[derive(Args, Debug)]
pub(crate) struct AccountCreate {
    /// E-mail address; a service account may go without
    #[arg(required_unless_present = "kind")]
    pub(crate) email: Option<String>,
    /// Name to show
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A user when missing
    #[arg(long)]
    pub(crate) kind: Option<AccountKind>,
    /// May administer the organisation
    #[arg(long)]
    pub(crate) admin: bool,
    #[command(flatten)]
    pub(crate) tags: NewTags,
    /// Read the first password from standard input; without it, a terminal asks
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Do not ask for another password at the first sign-in
    #[arg(long)]
    pub(crate) keep_password: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct AccountUpdate {
    /// E-mail address or id
    #[arg(value_name = "ACCOUNT")]
    pub(crate) reference: String,
    /// New e-mail address
    #[arg(long)]
    pub(crate) email: Option<String>,
    /// New name to show
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Whether it may administer the organisation
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub(crate) admin: Option<bool>,
    /// Whether it is shut out; its connections are cut
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub(crate) suspended: Option<bool>,
    #[command(flatten)]
    pub(crate) tags: TagChanges,
    /// Read a new password for the account from standard input; all its logins end
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Do not ask for another password at the next sign-in
    #[arg(long, requires = "password_stdin")]
    pub(crate) keep_password: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// List the tokens of a service account
    List(OfAccount),
    /// Make a token; it is shown this once
    Create(TokenCreate),
    /// Delete tokens
    Delete(TokenDelete),
}

#[derive(Args, Debug)]
pub(crate) struct OfAccount {
    /// E-mail address or id
    pub(crate) account: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct TokenCreate {
    /// E-mail address or id
    pub(crate) account: String,
    /// What the token is for
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) end: End,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct TokenDelete {
    /// E-mail address or id
    pub(crate) account: String,
    /// Names or ids of tokens
    #[arg(value_name = "TOKEN", required = true)]
    pub(crate) tokens: Vec<String>,
    #[command(flatten)]
    pub(crate) sure: Sure,
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
pub(crate) enum RolesCommand {
    /// List roles; filter fields: name, tags
    List(ListArgs),
    /// Show a role with its rules and members
    Show(ShowArgs),
    /// Make a role
    Create(RoleCreate),
    /// Change a role
    Update(RoleUpdate),
    /// Delete roles; what only they opened is cut
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
pub(crate) struct RoleCreate {
    /// Name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) tags: NewTags,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct RoleUpdate {
    /// Name or id
    #[arg(value_name = "ROLE")]
    pub(crate) reference: String,
    /// New name
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) tags: TagChanges,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct OfRole {
    /// Name or id
    pub(crate) role: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// List the rules of a role
    List(OfRole),
    /// Show one rule
    Show(RuleShow),
    /// Add a rule to a role
    Create(RuleCreate),
    /// Change what a rule opens
    Update(RuleUpdate),
    /// Delete rules of a role; what only they opened is cut
    Delete(RuleDelete),
}

#[derive(Args, Debug)]
pub(crate) struct RuleShow {
    /// Name or id
    pub(crate) role: String,
    /// Id
    pub(crate) rule: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What a rule opens.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Opens {
    /// These resources, by name or id; may be given several times
    #[arg(long = "resource", value_name = "RESOURCE")]
    pub(crate) resources: Vec<String>,
    /// Every resource that matches, now and later, for example 'tags:env=prod kind:tcp'
    #[arg(long, value_name = "FILTER")]
    pub(crate) query: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RuleCreate {
    /// Name or id
    pub(crate) role: String,
    #[command(flatten)]
    pub(crate) opens: Opens,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct RuleUpdate {
    /// Name or id
    pub(crate) role: String,
    /// Id
    pub(crate) rule: String,
    #[command(flatten)]
    pub(crate) opens: Opens,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct RuleDelete {
    /// Name or id
    pub(crate) role: String,
    /// Ids
    #[arg(value_name = "RULE", required = true)]
    pub(crate) rules: Vec<String>,
    #[command(flatten)]
    pub(crate) sure: Sure,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// List the members of a role
    List(OfRole),
    /// Put accounts into a role
    #[command(visible_alias = "create")]
    Add(MemberChange),
    /// Take accounts out of a role; what only it opened is cut
    #[command(visible_alias = "delete")]
    Remove(MemberChange),
}

#[derive(Args, Debug)]
pub(crate) struct MemberChange {
    /// Name or id
    pub(crate) role: String,
    /// E-mail addresses or ids
    #[arg(value_name = "ACCOUNT", required = true)]
    pub(crate) accounts: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GrantsCommand {
    /// List direct grants
    List(ListArgs),
    /// Show one grant
    Show(ShowArgs),
    /// Let an account reach a resource
    Create(GrantCreate),
    /// Change the end or the reason of a grant
    Update(GrantUpdate),
    /// Take grants back; their connections are cut
    #[command(visible_alias = "revoke")]
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
pub(crate) struct GrantCreate {
    /// E-mail address or id
    pub(crate) account: String,
    /// Name or id
    pub(crate) resource: String,
    #[command(flatten)]
    pub(crate) end: End,
    /// Why; it stands in the records
    #[arg(long)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct GrantUpdate {
    /// Id
    #[arg(value_name = "GRANT")]
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) end: End,
    /// Let it have no end
    #[arg(long, conflicts_with_all = ["span", "until"])]
    pub(crate) forever: bool,
    /// New reason
    #[arg(long)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ResourcesCommand {
    /// List resources; filter fields: name, kind, host, port, tags, health and more
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
    /// Port there; the usual one of the kind when missing
    #[arg(long)]
    pub(crate) port: Option<u16>,
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
    /// Port there
    #[arg(long)]
    pub(crate) port: Option<u16>,
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
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Where the resource appears on users' machines; what is missing is assigned.
#[derive(Args, Debug)]
pub(crate) struct Bind {
    /// loopback or vnm
    #[arg(help_heading = BIND, id = "bind_mode", long = "bind-mode", value_name = "MODE", value_parser = parse_bind_mode)]
    pub(crate) mode: Option<BindMode>,
    /// Address of the loopback range or of the virtual subnet
    #[arg(help_heading = BIND, id = "bind_ip", long = "bind-ip", value_name = "IP")]
    pub(crate) ip: Option<IpAddr>,
    /// Port: 1024 to 64999 on loopback addresses, 1 to 65535 in the virtual network
    #[arg(help_heading = BIND, id = "bind_port", long = "bind-port", value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Name in the virtual network
    #[arg(help_heading = BIND, long, value_name = "NAME")]
    pub(crate) dns_name: Option<String>,
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
    #[command(flatten)]
    pub(crate) output: Output,
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

fn parse_kind(word: &str) -> Result<Kind, String> {
    word.parse().map_err(|error: postern_proto::resource::UnknownKind| error.to_string())
}

fn parse_bind_mode(word: &str) -> Result<BindMode, String> {
    match word {
        "loopback" => Ok(BindMode::Loopback),
        "vnm" => Ok(BindMode::Vnm),
        _ => Err("use loopback or vnm".to_owned()),
    }
}

fn parse_instant(text: &str) -> Result<UnixMillis, String> {
    text::parse_instant(text)
        .ok_or_else(|| "write an instant as 2026-12-24, 2026-12-24T18:00Z or in RFC 3339".to_owned())
}
