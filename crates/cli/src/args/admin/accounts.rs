//! Accounts and their tokens.

use clap::{ArgAction, Args, Subcommand, ValueEnum};

use super::{DeleteArgs, End, ListArgs, NewTags, Output, ShowArgs, Sure, TagChanges};

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
