//! What posternd is started with.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use anyhow::Context as _;
use clap::{
    Parser, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser as _},
};
use postern_local_api::message::KeyPlace;
use postern_tunnel::outward::ProxySettings;
use zeroize::Zeroizing;

/// The user's background service of Postern: makes resources appear on this machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "posternd", version, about)]
pub struct Options {
    /// Puts state, runtime files and configuration under one folder.
    #[arg(long, env = "POSTERN_HOME", value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub home: Option<PathBuf>,
    /// The control plane, as https://host:port; wins over what the last sign-in used. Where it has replicas without a
    /// balancer, each of them: repeat it, or put commas between.
    #[arg(long, env = "POSTERN_CONTROL", value_name = "URL", value_delimiter = ',')]
    pub control: Vec<String>,
    /// The organisation's CA certificate (PEM), for --control. Without it the system's roots must vouch for it.
    #[arg(long, env = "POSTERN_CA", value_name = "FILE", requires = "control")]
    pub ca: Option<PathBuf>,
    /// Another user (uid) whose processes may use the listeners too; may be given several times. It is audited.
    #[arg(long = "allow-uid", env = "POSTERN_ALLOW_UID", value_name = "UID", value_delimiter = ',')]
    pub allow_uids: Vec<u32>,
    /// Where scripts read the status over HTTP, or "off".
    #[arg(long, env = "POSTERN_STATUS_LISTEN", value_name = "ADDR|off", default_value = "127.0.0.1:65220")]
    pub status_listen: StatusListen,
    /// A file with a service account's token: signs in with it, and again whenever the sign-in ends.
    #[arg(long, env = "POSTERN_SERVICE_TOKEN_FILE", value_name = "FILE")]
    pub service_token_file: Option<PathBuf>,
    /// Where the device key and the sign-in are kept until somebody chooses (postern key-storage). Without it: the
    /// keyring; with --service-token-file a file that only this user may read.
    #[arg(long, env = "POSTERN_KEY_STORAGE", value_name = "PLACE", value_enum)]
    pub key_storage: Option<Place>,
    /// The HTTPS proxy through which gateways, clusters and the control plane are dialled, as http://host:port, or "off".
    /// Without it: HTTPS_PROXY, but for what NO_PROXY names.
    #[arg(long, env = "POSTERN_HTTPS_PROXY", value_name = "URL|off", hide_env_values = true)]
    pub https_proxy: Option<String>,
    /// A file with user:password for the HTTPS proxy.
    #[arg(long, env = "POSTERN_HTTPS_PROXY_CREDENTIALS_FILE", value_name = "FILE")]
    pub https_proxy_credentials_file: Option<PathBuf>,
}

/// `--key-storage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Place {
    Keyring,
    File,
    Memory,
}

impl Options {
    /// What was said about an HTTPS proxy.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn proxy_settings(&self) -> anyhow::Result<ProxySettings> {
        let credentials = self.https_proxy_credentials_file.as_ref().map(|file| {
            let text = std::fs::read_to_string(file);
            text.map(Zeroizing::new).with_context(|| format!("cannot read the credentials in {}", file.display()))
        });
        Ok(ProxySettings { proxy: self.https_proxy.clone(), credentials: credentials.transpose()? })
    }

    /// Where keys are kept until somebody chooses. A service account has nobody who could unlock a keyring.
    #[must_use]
    pub const fn key_place(&self) -> KeyPlace {
        match (self.key_storage, &self.service_token_file) {
            (Some(Place::Keyring), _) | (None, None) => KeyPlace::Keyring,
            (Some(Place::File), _) | (None, Some(_)) => KeyPlace::File,
            (Some(Place::Memory), _) => KeyPlace::Memory,
        }
    }
}

/// `--status-listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusListen {
    Off,
    At(SocketAddr),
}

impl FromStr for StatusListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self::Off);
        }
        let address: SocketAddr = text.parse().map_err(|_| "give IP:PORT or \"off\"".to_owned())?;
        if !address.ip().is_loopback() {
            return Err("the status is for this machine only: give a loopback address".to_owned());
        }
        Ok(Self::At(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from([&["posternd"], arguments].concat())
    }

    #[test]
    fn the_status_is_never_served_beyond_this_machine() {
        assert!(parse(&["--status-listen", "0.0.0.0:65220"]).is_err());
        assert!(parse(&["--status-listen", "192.0.2.1:1"]).is_err());
        assert_eq!(parse(&["--status-listen", "off"]).unwrap().status_listen, StatusListen::Off);
        let at = parse(&["--status-listen", "127.0.0.1:0"]).unwrap().status_listen;
        assert_eq!(at, StatusListen::At(SocketAddr::from(([127, 0, 0, 1], 0))));
    }

    #[test]
    fn a_ca_without_the_control_plane_it_is_for_is_refused() {
        assert!(parse(&["--ca", "/ca.pem"]).is_err());
    }

    #[test]
    fn several_users_may_be_allowed() {
        assert_eq!(parse(&["--allow-uid", "1", "--allow-uid", "2"]).unwrap().allow_uids, [1, 2]);
        assert!(parse(&["--allow-uid", "root"]).is_err());
    }
}
