//! The command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{
        OsStringValueParser, TypedValueParser as _,
        styling::{AnsiColor, Styles},
    },
};
use clap_complete::Shell;

use crate::exit;

pub(crate) mod admin;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default().dimmed());

/// Click-to-connect access to private infrastructure.
///
/// Signs you in, lists what you may reach, and makes it appear on this machine: `postern connect orders-db`, then point
/// your usual program at the address. The work is done by posternd, a background service that runs as you; this
/// program talks to it and to nobody else.
#[derive(Debug, Parser)]
#[command(name = "postern", version, styles = STYLES, max_term_width = 100, after_long_help = exit::HELP)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// The folder that holds everything of one service, as given to posternd
    #[arg(
        long,
        global = true,
        env = "POSTERN_HOME",
        hide_env_values = true,
        value_name = "DIR",
        value_parser = OsStringValueParser::new().map(PathBuf::from),
        help_heading = "Global options"
    )]
    pub(crate) home: Option<PathBuf>,
    /// When to use colours; NO_COLOR is honoured too
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    pub(crate) color: When,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sign in
    #[command(after_help = LOGIN_EXAMPLES)]
    Login(LoginArgs),
    /// Sign out; everything is disconnected
    Logout,
    /// Close everything until `unlock`, and stay signed in
    Lock,
    /// Open what `lock` closed
    Unlock(UnlockArgs),
    /// Change your password
    Password(PasswordArgs),
    /// Show who is signed in, how the service is and what is connected
    Status(StatusArgs),
    /// Say by the exit code whether resources can be used now
    #[command(after_help = READY_EXAMPLES)]
    Ready(ReadyArgs),
    /// List what you may reach
    Resources(ResourcesArgs),
    /// Make resources appear on this machine
    #[command(after_help = CONNECT_EXAMPLES)]
    Connect(SelectArgs),
    /// Take resources away from this machine; their connections are cut
    Disconnect(SelectArgs),
    /// Print the command that uses a resource, to be pasted or run
    #[command(name = "command", after_help = COMMAND_EXAMPLES)]
    Use(CommandArgs),
    /// Choose another port for the address that a resource has
    #[command(name = "override", after_help = OVERRIDE_EXAMPLES)]
    Override(OverrideArgs),
    /// Have resources at names and addresses of their own, without connecting them one by one
    #[command(subcommand, arg_required_else_help = true, after_help = NETWORK_EXAMPLES)]
    Network(NetworkCommand),
    /// Names of the virtual network
    #[command(subcommand, arg_required_else_help = true)]
    Dns(DnsCommand),
    /// List the connections that are open now
    Sessions(JsonArgs),
    /// Check everything and say what to do about what is wrong
    Doctor(JsonArgs),
    /// Choose where the device key and the sign-in are kept
    #[command(after_help = KEY_STORAGE_EXAMPLES)]
    KeyStorage(KeyStorageArgs),
    /// Print what the service wrote down, fit to be handed on
    #[command(after_help = LOGS_EXAMPLES)]
    Logs(LogsArgs),
    /// Run, install or remove the background service
    #[command(subcommand, arg_required_else_help = true)]
    Service(ServiceCommand),
    /// Administer the organisation
    #[command(subcommand, arg_required_else_help = true, after_help = ADMIN_EXAMPLES)]
    Admin(admin::AdminCommand),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print the man page, or write all of them
    Man(ManArgs),
    /// Show the versions of this program and of the service
    Version(JsonArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DnsCommand {
    /// Show how a name is answered: by the resolver of the virtual network, and by the system
    #[command(after_help = QUERY_EXAMPLES)]
    Query(QueryArgs),
}

#[derive(Args, Debug)]
pub(crate) struct QueryArgs {
    /// The whole name; with a dot at its end the system tries no search domains
    pub(crate) name: String,
    /// The type of records, for example A, AAAA, PTR or HTTPS
    #[arg(long = "type", short = 't', value_name = "TYPE", default_value = "A")]
    pub(crate) kind: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Show whether the virtual network is up, where it is and how its names are asked for
    Status(JsonArgs),
    /// Switch the virtual network on, now and after every restart
    Enable(JsonArgs),
    /// Switch the virtual network off; its connections are cut
    Disable(JsonArgs),
}

#[derive(Args, Debug)]
pub(crate) struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Examples stand at the end of the help of commands that are met first.
const LOGIN_EXAMPLES: &str = "\
Examples:
  postern login --control https://postern.example.com
  postern login --control https://10.0.0.5:8443 --ca-fingerprint 5f70…
  POSTERN_SERVICE_TOKEN=… postern login";
const CONNECT_EXAMPLES: &str = "\
Examples:
  postern connect orders-db
  postern connect --filter 'tags:env=prod kind:postgres'
  postern connect --all";
const COMMAND_EXAMPLES: &str = "\
Examples:
  postern command orders-db
  $(postern command orders-db) -U ana orders";
const OVERRIDE_EXAMPLES: &str = "\
Examples:
  postern override orders-db 5433
  postern override orders-db --clear";
const KEY_STORAGE_EXAMPLES: &str = "\
Examples:
  postern key-storage memory
  postern key-storage file";
const LOGS_EXAMPLES: &str = "\
Examples:
  postern logs --redact strict
  postern logs --output postern.log";
const NETWORK_EXAMPLES: &str = "\
Examples:
  postern network enable && psql -h orders-db.my-org
  postern network status --json";
const READY_EXAMPLES: &str = "\
Examples:
  postern ready -q || postern login
  postern ready -q --wait 30s orders-db && psql -h 127.0.0.1 -p 15432";
const QUERY_EXAMPLES: &str = "\
Examples:
  postern dns query db.my-org
  postern dns query db.my-org --type AAAA
  postern dns query 9.1.72.100.in-addr.arpa --type PTR";
const ADMIN_EXAMPLES: &str = "\
Examples:
  postern admin resources create orders-db --kind postgres --host 10.0.0.7 --tag env=prod
  postern admin roles create dba
  postern admin rules create dba --query 'tags:env=prod kind:postgres'
  postern admin members add dba ana@example.com
  postern admin grants create bo@example.com orders-db --for 8h --reason 'incident 7'";

#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// Your e-mail address; asked for when missing
    #[arg(long, value_name = "EMAIL", conflicts_with = "service_token")]
    pub(crate) email: Option<String>,
    /// Read the password from standard input instead of asking
    #[arg(long, requires = "email", conflicts_with = "service_token")]
    pub(crate) password_stdin: bool,
    /// Sign in as a service account: asks for the token, or reads it from standard input with `--service-token=-`.
    /// POSTERN_SERVICE_TOKEN is used when it is set and no e-mail address is given
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "", value_name = "-")]
    #[arg(value_parser = parse_token_source)]
    pub(crate) service_token: Option<TokenSource>,
    /// The control plane, for example https://postern.example.com; needed the first time. Several replicas of one have
    /// commas between
    #[arg(long, env = "POSTERN_CONTROL", hide_env_values = true, value_name = "URL")]
    pub(crate) control: Option<String>,
    /// The organisation's CA certificate (PEM), to know the control plane by
    #[arg(long, env = "POSTERN_CA", hide_env_values = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The SHA-256 of that certificate in hex, as `postern-control` prints it
    #[arg(long, env = "POSTERN_CA_FINGERPRINT", hide_env_values = true, value_name = "HEX", value_parser = parse_fingerprint)]
    pub(crate) ca_fingerprint: Option<String>,
}

/// Where `--service-token` takes the token from. Never from the argument itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// The environment, else a question.
    Any,
    Stdin,
}

#[derive(Args, Debug)]
pub(crate) struct UnlockArgs {
    /// Read the password from standard input instead of asking; for a service account its token
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PasswordArgs {
    /// Read the current and the new password from standard input, one line each
    #[arg(long)]
    pub(crate) stdin: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Print JSON; with --watch one line for each change
    #[arg(long)]
    pub(crate) json: bool,
    /// Stay and show each change, until Ctrl-C
    #[arg(long, short)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ReadyArgs {
    /// Resources that must be connected, by name or id
    #[arg(value_name = "RESOURCE")]
    pub(crate) resources: Vec<String>,
    /// Print nothing
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Wait this long for it, for example 30s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct ResourcesArgs {
    /// Only what matches, for example 'name:pay* tags:env=prod kind:postgres'
    #[arg(long, short, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CommandArgs {
    /// Its name or id
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: String,
}

#[derive(Args, Debug)]
pub(crate) struct OverrideArgs {
    /// Its name or id
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: String,
    /// From 1024 to 64999 in loopback mode, from 1 to 65535 in the virtual network
    #[arg(
        value_name = "PORT",
        value_parser = parse_port,
        allow_negative_numbers = true,
        required_unless_present = "clear",
        conflicts_with = "clear"
    )]
    pub(crate) port: Option<i64>,
    /// Take the assigned port again
    #[arg(long)]
    pub(crate) clear: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeyStorageArgs {
    /// Where
    pub(crate) place: Place,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Place {
    /// Nowhere but in the service's memory: a restart ends the sign-in
    Memory,
    /// In files that only you may read
    File,
    /// In the keyring of your session (the default where there is one)
    Keyring,
}

#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// How much of whom and what the lines still tell
    #[arg(long, value_name = "LEVEL", default_value = "pseudonyms")]
    pub(crate) redact: RedactionLevel,
    /// Write into this new file, which only you may read
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print JSON
    #[arg(long, conflicts_with = "output")]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RedactionLevel {
    /// As they were written; secrets never are
    Names,
    /// With stand-ins for names, addresses and ids, the same ones throughout
    Pseudonyms,
    /// Only times, places in the program, counts and codes
    Strict,
}

#[derive(Args, Debug)]
pub(crate) struct SelectArgs {
    #[command(flatten)]
    pub(crate) select: Select,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Select {
    /// Names or ids
    #[arg(value_name = "RESOURCE")]
    pub(crate) names: Vec<String>,
    /// What matches, for example 'tags:env=prod kind:postgres'
    #[arg(long, short, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Everything that you may reach
    #[arg(long, short)]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Run posternd in the foreground, in place of this program
    Run(ServiceArgs),
    /// Start posternd with your session, as a systemd user unit
    Install(ServiceArgs),
    /// Undo `install`
    Uninstall,
    /// Ask the running posternd to stop
    Stop,
    /// Remove the socket and the lock that a service left behind when it died
    Cleanup,
}

#[derive(Args, Debug)]
pub(crate) struct ServiceArgs {
    /// Options for posternd, for example `-- --control https://postern.example.com`
    #[arg(last = true, value_name = "OPTION")]
    pub(crate) options: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

fn parse_token_source(text: &str) -> Result<TokenSource, String> {
    match text {
        "" => Ok(TokenSource::Any),
        "-" => Ok(TokenSource::Stdin),
        _ => Err("a token on the command line can be read by everybody on this machine; \
                  pipe it to --service-token=- or set POSTERN_SERVICE_TOKEN"
            .to_owned()),
    }
}

fn parse_fingerprint(text: &str) -> Result<String, String> {
    let hex: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect::<String>().to_ascii_lowercase();
    if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(hex)
    } else {
        Err("a SHA-256 fingerprint has 64 hexadecimal digits".to_owned())
    }
}

/// Any number: whether it is a port depends on where the resource is.
fn parse_port(text: &str) -> Result<i64, String> {
    let rule = "a port is a number: from 1024 to 64999 in loopback mode, from 1 to 65535 in the virtual network; \
                --clear instead of it takes the assigned one again";
    text.parse().map_err(|_| rule.to_owned())
}

/// `90s`, `15m`, `8h`, `7d`, `2w`; a bare number counts seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let factor: u64 = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86400,
        "w" => 7 * 86400,
        _ => return Err(format!("{unit:?} is no unit of time; use s, m, h, d or w")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| "write a time as 90s, 15m, 8h, 7d or 2w".to_owned())?;
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(|| "that is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_secret_on_the_command_line_is_refused_without_being_repeated() {
        let error = Cli::try_parse_from(["postern", "login", "--service-token=ptk_secret"]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::ValueValidation);
    }

    #[test]
    fn a_fingerprint_is_taken_in_the_usual_spellings() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(parse_fingerprint(&plain).unwrap(), plain);
        assert_eq!(parse_fingerprint(&colons).unwrap(), plain);
        assert!(parse_fingerprint("abc").is_err());
        assert!(parse_fingerprint(&"zz".repeat(32)).is_err());
    }

    #[test]
    fn durations_are_read_with_their_units() {
        let seconds = |text| parse_duration(text).map(|span| span.as_secs());
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("2w"), Ok(1_209_600));
        for bad in ["", "h", "1y", "-1s", "1.5h", "99999999999999999w"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
