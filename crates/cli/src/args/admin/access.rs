//! Who may reach what: roles, rules, members, grants.

use clap::{Args, Subcommand};

use super::{DeleteArgs, End, ListArgs, NewTags, Output, ShowArgs, Sure, TagChanges};

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
    List(GrantList),
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
pub(crate) struct GrantList {
    /// Only those of this account, by e-mail address or id
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) account: Option<String>,
    /// Only those of this resource, by name or id
    #[arg(long, value_name = "RESOURCE")]
    pub(crate) resource: Option<String>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
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
