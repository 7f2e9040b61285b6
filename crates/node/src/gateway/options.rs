use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use postern_tunnel::{
    control::{BadUrl, ControlUrl, ControlUrls, Trust},
    outward::ProxySettings,
};
use zeroize::Zeroizing;

use crate::{arrival::ArrivalOptions, monitor::Place};

/// How a gateway is started.
#[derive(Args)]
pub struct GatewayOptions {
    #[command(flatten)]
    pub node: NodeOptions,
    /// Where to listen for clients
    #[arg(long, env = "POSTERN_LISTEN", value_name = "IP:PORT", default_value = "0.0.0.0:5000")]
    pub listen: SocketAddr,
    /// Where clients dial this gateway, when that is not what the control plane knows
    #[arg(long, env = "POSTERN_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    #[command(flatten)]
    pub arrival: ArrivalOptions,
}

/// How every kind of node is started.
#[derive(Args)]
#[command(group = ArgGroup::new("trust").required(true).args(["ca", "ca_fingerprint", "system_roots"]))]
pub struct NodeOptions {
    /// The control plane, as https://host:port; the port may be missing. Where it has replicas without a balancer, each of
    /// them: repeat it, or put commas between
    #[arg(long, env = "POSTERN_CONTROL", value_name = "URL", required = true, value_delimiter = ',')]
    control: Vec<ControlUrl>,
    /// The organisation's CA certificate (PEM)
    #[arg(long, env = "POSTERN_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// SHA-256 of the organisation's CA certificate, as the control plane prints it
    #[arg(long, env = "POSTERN_CA_FINGERPRINT", value_name = "HEX", value_parser = Trust::fingerprint)]
    ca_fingerprint: Option<Trust>,
    /// Trust the roots of this machine: for a control plane with a public certificate
    #[arg(long)]
    system_roots: bool,
    /// Folder for the identity and the session records
    #[arg(long, env = "POSTERN_STATE", value_name = "DIR")]
    pub state: PathBuf,
    /// One-time enrolment token; needed once. Better given by POSTERN_ENROL_TOKEN or a file: arguments can be seen by
    /// others on this machine
    #[arg(long, env = "POSTERN_ENROL_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    enrol_token: Option<String>,
    /// File that holds the one-time enrolment token
    #[arg(long, value_name = "FILE", conflicts_with = "enrol_token")]
    enrol_token_file: Option<PathBuf>,
    /// Seconds that running connections have to end after SIGTERM
    #[arg(long, env = "POSTERN_DRAIN", value_name = "SECONDS", default_value_t = 300)]
    drain: u64,
    /// MiB of session records that may wait for the control plane; then new connections are refused
    #[arg(long, env = "POSTERN_SPOOL_LIMIT", value_name = "MIB", default_value_t = 4096)]
    spool_limit: u64,
    /// Where to say at /liveness whether this node serves, for orchestrators and balancers; usually :9090
    #[arg(long, env = "POSTERN_LIVENESS", value_name = "ADDRESS|off", default_value = "off")]
    pub liveness: Place,
    /// Where to serve metrics for Prometheus; usually :9999
    #[arg(long, env = "POSTERN_METRICS", value_name = "ADDRESS|off", default_value = "off")]
    pub metrics: Place,
    /// The HTTPS proxy through which the control plane, gateways and bridges are dialled, as http://host:port; never
    /// resources. Not taken from HTTPS_PROXY
    #[arg(long, env = "POSTERN_HTTPS_PROXY", value_name = "URL", hide_env_values = true)]
    https_proxy: Option<String>,
    /// File with user:password for the HTTPS proxy
    #[arg(long, env = "POSTERN_HTTPS_PROXY_CREDENTIALS_FILE", value_name = "FILE")]
    https_proxy_credentials_file: Option<PathBuf>,
}

/// An option that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadOption {
    #[error("{option} {path}: {source}")]
    File { option: &'static str, path: PathBuf, source: std::io::Error },
    #[error("--control: {0}")]
    Control(#[from] BadUrl),
    #[error("no --control is given")]
    NoControl,
    #[error("no --ca, --ca-fingerprint or --system-roots is given")]
    NoTrust,
}

impl NodeOptions {
    /// Where the control plane is.
    pub fn control(&self) -> Result<ControlUrls, BadOption> {
        ControlUrls::from_list(self.control.iter().cloned())?.ok_or(BadOption::NoControl)
    }

    pub fn trust(&self) -> Result<Trust, BadOption> {
        if let Some(trust) = &self.ca_fingerprint {
            return Ok(trust.clone());
        }
        match &self.ca {
            Some(path) => Ok(Trust::Ca(read("--ca", path)?)),
            None if self.system_roots => Ok(Trust::System),
            None => Err(BadOption::NoTrust),
        }
    }

    pub fn enrol_token(&self) -> Result<Option<Zeroizing<String>>, BadOption> {
        let token = match &self.enrol_token_file {
            Some(path) => Some(read("--enrol-token-file", path)?),
            None => self.enrol_token.clone(),
        };
        Ok(token.map(|token| Zeroizing::new(token.trim().to_owned())).filter(|token| !token.is_empty()))
    }

    /// What was said about an HTTPS proxy.
    pub fn proxy_settings(&self) -> Result<ProxySettings, BadOption> {
        let file = self.https_proxy_credentials_file.as_ref();
        let credentials = file.map(|path| read("--https-proxy-credentials-file", path).map(Zeroizing::new));
        Ok(ProxySettings { proxy: self.https_proxy.clone(), credentials: credentials.transpose()? })
    }

    #[must_use]
    pub const fn drain(&self) -> Duration {
        Duration::from_secs(self.drain)
    }

    #[must_use]
    pub const fn spool_limit(&self) -> u64 {
        self.spool_limit.saturating_mul(1 << 20)
    }
}

fn read(option: &'static str, path: &PathBuf) -> Result<String, BadOption> {
    std::fs::read_to_string(path).map_err(|source| BadOption::File { option, path: path.clone(), source })
}
