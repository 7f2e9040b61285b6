//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    Args, CommandFactory as _, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{sql::DatabaseUrl, store::Place};

/// The control plane of Postern: accounts, roles, resources, gateways, the certificate authority and the audit.
#[derive(Debug, Parser)]
#[command(name = "postern-control", version)]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Command,
}

impl CommandLine {
    /// Reads the arguments of this process, and ends it when they are none of ours.
    #[must_use]
    pub fn of_process() -> Self {
        Self::try_parse().unwrap_or_else(|error| without_passwords(error).exit())
    }
}

/// What is wrong with arguments is told with their values, but a URL of a database may hold a password.
fn without_passwords(error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return error };
    if error.kind() != ErrorKind::ValueValidation
        || !["--database", "--from", "--to"].iter().any(|of| argument.starts_with(of))
    {
        return error;
    }
    CommandLine::command().error(ErrorKind::ValueValidation, format!("{argument}: {}", crate::sql::BadDatabaseUrl))
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane; the first start makes the organisation, its CA and an administrator
    Serve(Serve),
    /// Print a one-time token that enrols a gateway; makes the gateway when there is none of that name
    GatewayToken(GatewayToken),
    /// Make a one-time token that enrols a relay, and the relay if there is none of that name
    RelayToken(RelayToken),
    /// Give an administrator a new one-time password, and let it act again
    AdminReset(AdminReset),
    /// Copy everything between databases
    Db {
        #[command(subcommand)]
        command: Db,
    },
    /// Save everything, as it is at this moment, in a file; the control plane may run meanwhile
    Backup(Backup),
    /// Bring everything back from such a file into an empty data folder or database
    Restore(Backup),
    /// Make a key file for control planes that share a database
    NewKey(NewKey),
    /// Print the OpenAPI document
    Openapi,
}

#[derive(Debug, Args)]
pub struct Data {
    /// Folder of the database and the keys; with --database, of nothing that is secret
    #[arg(long, value_name = "DIR", env = "POSTERN_CONTROL_DATA")]
    pub data: PathBuf,
    #[command(flatten)]
    pub shared: Shared,
}

/// A database that several control planes may share.
#[derive(Debug, Default, Args)]
pub struct Shared {
    /// PostgreSQL database instead of a file in the data folder, as postgres://USER@HOST:PORT/NAME. A password is better
    /// given by the environment (this variable, or PGPASSWORD) than here, where others can read it
    #[arg(long, value_name = "URL", env = "POSTERN_DATABASE_URL", hide_env_values = true)]
    pub database: Option<DatabaseUrl>,
    /// File with the key under which the control planes' keys are sealed in that database; `postern-control new-key`
    /// makes one. With several lines, the first seals and all open
    #[arg(long, value_name = "FILE", env = "POSTERN_CONTROL_KEY_FILE")]
    pub key_file: Option<PathBuf>,
}

impl Data {
    /// Only a folder.
    #[must_use]
    pub fn folder(data: PathBuf) -> Self {
        Self { data, shared: Shared::default() }
    }

    /// Where the database is.
    #[must_use]
    pub fn place(&self) -> Place {
        match &self.shared.database {
            Some(url) => Place::Postgres(url.clone()),
            None => Place::Folder(self.data.clone()),
        }
    }
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub data: Data,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8443", env = "POSTERN_CONTROL_LISTEN")]
    pub listen: SocketAddr,
    /// DNS name or address that clients and gateways use; for the certificate (may be repeated)
    #[arg(long = "name", value_name = "NAME", env = "POSTERN_CONTROL_NAME", value_delimiter = ',')]
    pub names: Vec<String>,
    /// Certificate chain to serve with, PEM; one of the organisation's CA when left out
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "POSTERN_CONTROL_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Key of that certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "POSTERN_CONTROL_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// E-mail address of the first administrator (first start only)
    #[arg(long, value_name = "EMAIL", default_value = "admin@postern.internal", env = "POSTERN_CONTROL_ADMIN_EMAIL")]
    pub admin_email: String,
    /// Name of the organisation (first start only)
    #[arg(long, value_name = "NAME", default_value = "My organisation", env = "POSTERN_CONTROL_ORG")]
    pub org: String,
    #[command(flatten)]
    pub absence: Absence,
    #[command(flatten)]
    pub monitor: Monitoring,
}

/// What becomes of workers that stay away.
#[derive(Clone, Copy, Debug, Args)]
pub struct Absence {
    /// Remove workers that enrolled with a key pair of their cluster and were away for so long while others of it were
    /// there; 0: never. One that comes back later enrols anew with its key pair
    #[arg(long, value_name = "HOURS", default_value_t = 24, env = "POSTERN_CONTROL_FORGET_WORKERS")]
    pub forget_workers: u32,
}

impl Default for Absence {
    fn default() -> Self {
        Self { forget_workers: 24 }
    }
}

impl Absence {
    /// `None`: they stay for ever.
    #[must_use]
    pub fn limit(self) -> Option<Duration> {
        (self.forget_workers > 0).then(|| Duration::from_secs(u64::from(self.forget_workers) * 3600))
    }
}

/// Where it says how it is.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Monitoring {
    /// Where to say at /liveness whether this control plane serves, for orchestrators and balancers; usually :9090
    #[arg(long, env = "POSTERN_LIVENESS", value_name = "ADDRESS|off", default_value = "off")]
    pub liveness: postern_monitor::Place,
    /// Where to serve metrics for Prometheus; usually :9999
    #[arg(long, env = "POSTERN_METRICS", value_name = "ADDRESS|off", default_value = "off")]
    pub metrics: postern_monitor::Place,
}

#[derive(Debug, Args)]
pub struct GatewayToken {
    #[command(flatten)]
    pub data: Data,
    /// Name of the gateway
    #[arg(long)]
    pub name: String,
    /// Where clients dial it; otherwise the gateway says so itself
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Its peering group; relays of the same group park links there
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

#[derive(Debug, Args)]
pub struct RelayToken {
    #[command(flatten)]
    pub data: Data,
    /// Name of the relay
    #[arg(long)]
    pub name: String,
    /// Its peering group: it parks links at the gateways of the same one
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// A tag, by which egress filters of resources may name it (may be repeated)
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = read_tag)]
    pub tags: Vec<(String, String)>,
}

fn read_tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() { Err("a tag has the form key=value".to_owned()) } else { Ok((key.to_owned(), value.to_owned())) }
}

#[derive(Debug, Subcommand)]
pub enum Db {
    /// Copy everything into an empty place; stop the control plane before
    Copy(Copy),
}

/// A place is a data folder, or postgres://USER@HOST:PORT/NAME (the password in PGPASSWORD or ~/.pgpass).
#[derive(Debug, Args)]
pub struct Copy {
    /// Data folder or URL to read
    #[arg(long, value_name = "PLACE")]
    pub from: AnyPlace,
    /// Data folder or URL to write; it must hold no organisation
    #[arg(long, value_name = "PLACE")]
    pub to: AnyPlace,
    /// File with the key under which the keys are sealed in PostgreSQL
    #[arg(long, value_name = "FILE", env = "POSTERN_CONTROL_KEY_FILE")]
    pub key_file: Option<PathBuf>,
}

/// A place as it is written on the command line.
#[derive(Clone, Debug)]
pub struct AnyPlace(pub Place);

impl std::str::FromStr for AnyPlace {
    type Err = crate::sql::BadDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Whatever has a scheme is no folder; a mistyped URL is not made into one.
        let place = if text.contains("://") { Place::Postgres(text.parse()?) } else { Place::Folder(text.into()) };
        Ok(Self(place))
    }
}

#[derive(Debug, Args)]
pub struct Backup {
    /// The file; it holds the keys too, so keep it as safe as them
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Data folder
    #[arg(long, value_name = "DIR", env = "POSTERN_CONTROL_DATA", required_unless_present = "database")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub shared: Shared,
}

impl Backup {
    /// What is saved or restored.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match (&self.shared.database, &self.data) {
            (Some(url), _) => Some(Place::Postgres(url.clone())),
            (None, Some(data)) => Some(Place::Folder(data.clone())),
            (None, None) => None,
        }
    }
}

#[derive(Debug, Args)]
pub struct NewKey {
    /// File to make; one that is there is left alone
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct AdminReset {
    #[command(flatten)]
    pub data: Data,
    /// E-mail address of the account
    #[arg(long)]
    pub email: String,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::CommandLine;

    #[test]
    fn a_password_in_a_wrong_url_is_not_repeated() {
        for arguments in [
            ["postern-control", "serve", "--data=/d", "--database=mysql://u:s3cret@h/d"],
            ["postern-control", "backup", "/f", "--database=postgres://u:s3cret@h:port/d"],
        ] {
            let error = CommandLine::try_parse_from(arguments).unwrap_err();
            let told = super::without_passwords(error).to_string();
            assert!(told.contains("--database") && !told.contains("s3cret"), "{told}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }
}
