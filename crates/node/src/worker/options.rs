use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use postern_proto::{api::KeyPair, id::AccessKeyId};
use zeroize::Zeroizing;

use crate::{arrival::ArrivalOptions, bridge::Bridge, gateway::NodeOptions};

/// Where the secret key is looked for. There is no flag for it: arguments can be seen by others on the machine.
const SECRET_KEY: &str = "POSTERN_PROXY_CLUSTER_SECRET_KEY";

/// How a worker is started.
#[derive(Args)]
pub struct WorkerOptions {
    #[command(flatten)]
    pub node: NodeOptions,
    /// Where to listen, as IP:PORT or :PORT
    #[arg(long, env = "POSTERN_BIND_ADDRESS", value_name = "IP:PORT", default_value = "0.0.0.0:8443", value_parser = address)]
    pub bind_address: SocketAddr,
    /// The access key of a key pair of the cluster. Its secret key is taken from POSTERN_PROXY_CLUSTER_SECRET_KEY or a file
    #[arg(long, env = "POSTERN_PROXY_CLUSTER_ACCESS_KEY", value_name = "KEY")]
    access_key: Option<AccessKeyId>,
    /// File that holds the secret key
    #[arg(long, env = "POSTERN_PROXY_CLUSTER_SECRET_KEY_FILE", value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
    /// Which certificate connections are met with: this node's own, that of a file, or none, because something before the
    /// worker ends TLS
    #[arg(long, env = "POSTERN_TLS_CERT_SOURCE", value_name = "SOURCE", default_value = "postern")]
    pub tls_cert_source: CertificateSource,
    /// With source file: the certificate and what stands between it and its authority (PEM)
    #[arg(long, env = "POSTERN_TLS_CERT_FILE", value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,
    /// With source file: the private key (PEM)
    #[arg(long, env = "POSTERN_TLS_KEY_FILE", value_name = "FILE")]
    tls_key_file: Option<PathBuf>,
    /// Who proves a client's identity: the TLS session that reaches this worker, or, with none, one within a WebSocket,
    /// because a balancer ends the outer session. The cluster must then have the carrier websocket
    #[arg(long, env = "POSTERN_TLS_CLIENT_AUTH", value_name = "AUTH", default_value = "direct")]
    pub tls_client_auth: ClientAuth,
    #[command(flatten)]
    pub arrival: ArrivalOptions,
    /// "local": this worker is a bridge, which passes clients on to inner workers of its cluster. Or the addresses of bridges:
    /// then this is an inner worker, which listens nowhere and parks links there
    #[arg(long, env = "POSTERN_BRIDGE", value_name = "local|HOST:PORT,…")]
    pub bridge: Option<Bridge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CertificateSource {
    Postern,
    File,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    Direct,
    None,
}

/// What a worker is met with before its mutual TLS session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Nothing: the mutual TLS session itself.
    Nothing,
    /// Plain HTTP: a balancer has ended TLS.
    Plain,
    /// TLS with this node's own certificate.
    Own,
    /// TLS with a certificate from files.
    Files { certificate: PathBuf, key: PathBuf },
}

/// Options that a worker cannot be started with.
#[derive(Debug, thiserror::Error)]
pub enum BadWorkerOption {
    #[error(
        "POSTERN_TLS_CERT_SOURCE=none with POSTERN_TLS_CLIENT_AUTH=direct cannot work: without a certificate no TLS session \
         reaches this worker in which a client could prove its identity. Set POSTERN_TLS_CLIENT_AUTH=none and the cluster's \
         carrier to websocket, or leave the certificate to Postern"
    )]
    NothingToProveIn,
    #[error("POSTERN_TLS_CERT_SOURCE=file needs {0}")]
    NoFile(&'static str),
    #[error("{given} is given, but POSTERN_TLS_CERT_SOURCE is not file")]
    NeedlessFile { given: &'static str },
    #[error(
        "no key pair is given: set POSTERN_PROXY_CLUSTER_ACCESS_KEY and POSTERN_PROXY_CLUSTER_SECRET_KEY (or \
         --secret-key-file) to one from `postern admin cluster-keys create`"
    )]
    NoKeyPair,
    #[error("the secret key in {}: {source}", path.display())]
    SecretFile { path: PathBuf, source: io::Error },
}

impl WorkerOptions {
    /// What the TLS options mean together.
    pub fn outside(&self) -> Result<Outside, BadWorkerOption> {
        let files = [(&self.tls_cert_file, "POSTERN_TLS_CERT_FILE"), (&self.tls_key_file, "POSTERN_TLS_KEY_FILE")];
        if self.tls_cert_source != CertificateSource::File
            && let Some((_, given)) = files.iter().find(|(file, _)| file.is_some())
        {
            return Err(BadWorkerOption::NeedlessFile { given });
        }
        match (self.tls_cert_source, self.tls_client_auth) {
            (CertificateSource::Postern, ClientAuth::Direct) => Ok(Outside::Nothing),
            (CertificateSource::Postern, ClientAuth::None) => Ok(Outside::Own),
            (CertificateSource::None, ClientAuth::None) => Ok(Outside::Plain),
            (CertificateSource::None, ClientAuth::Direct) => Err(BadWorkerOption::NothingToProveIn),
            // Clients know only the organisation's authority: behind another certificate they prove themselves within.
            (CertificateSource::File, _) => {
                let file = |(file, name): &(&Option<PathBuf>, &'static str)| {
                    file.as_ref().cloned().ok_or(BadWorkerOption::NoFile(name))
                };
                let [certificate, key] = &files;
                Ok(Outside::Files { certificate: file(certificate)?, key: file(key)? })
            }
        }
    }

    /// The key pair, when one is given.
    pub fn key_pair(&self) -> Result<Option<ClusterKey>, BadWorkerOption> {
        let secret = match (&self.secret_key_file, std::env::var(SECRET_KEY)) {
            (Some(path), _) => Some(read(path)?),
            (None, Ok(secret)) => Some(Zeroizing::new(secret)),
            (None, Err(_)) => None,
        };
        let secret = secret.map(|secret| Zeroizing::new(secret.trim().to_owned())).filter(|secret| !secret.is_empty());
        match (self.access_key, secret) {
            (Some(access_key), Some(secret_key)) => Ok(Some(ClusterKey { access_key, secret_key })),
            (None, None) => Ok(None),
            _ => Err(BadWorkerOption::NoKeyPair),
        }
    }
}

/// A key pair. Its Debug form holds no secret.
#[derive(Clone)]
pub struct ClusterKey {
    pub access_key: AccessKeyId,
    secret_key: Zeroizing<String>,
}

impl ClusterKey {
    /// As it is shown to the control plane, with the name of this machine.
    #[must_use]
    pub fn shown(&self) -> KeyPair {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        KeyPair { access_key: self.access_key, secret_key: self.secret_key.to_string(), worker: name }
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKey").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, BadWorkerOption> {
    let read = std::fs::read_to_string(path).map(Zeroizing::new);
    read.map_err(|source| BadWorkerOption::SecretFile { path: path.to_owned(), source })
}

/// Also `:8443`, as other programs take it.
fn address(text: &str) -> Result<SocketAddr, String> {
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    whole.parse().map_err(|_| "use IP:PORT or :PORT".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: WorkerOptions,
    }

    fn outside(more: &[&str]) -> Result<Outside, BadWorkerOption> {
        let common = ["worker", "--control", "https://c:1", "--system-roots", "--state", "/s"];
        Line::parse_from(common.iter().chain(more)).options.outside()
    }

    #[test]
    fn each_source_and_each_way_to_prove_an_identity_has_its_meaning_or_is_refused_with_the_reason() {
        let (cert, none) = ("--tls-cert-source", "--tls-client-auth");
        assert_eq!(outside(&[]).unwrap(), Outside::Nothing);
        assert_eq!(outside(&[none, "none"]).unwrap(), Outside::Own);
        assert_eq!(outside(&[cert, "none", none, "none"]).unwrap(), Outside::Plain);
        let refused = outside(&[cert, "none"]).unwrap_err().to_string();
        assert!(
            refused.contains("POSTERN_TLS_CLIENT_AUTH=none") && refused.contains("prove its identity"),
            "{refused}"
        );
        assert!(outside(&[cert, "file"]).unwrap_err().to_string().contains("POSTERN_TLS_CERT_FILE"));
        let one = outside(&[cert, "file", "--tls-cert-file", "/c"]).unwrap_err().to_string();
        assert!(one.contains("POSTERN_TLS_KEY_FILE"), "{one}");
        let files = outside(&[cert, "file", "--tls-cert-file", "/c", "--tls-key-file", "/k"]).unwrap();
        assert_eq!(files, Outside::Files { certificate: "/c".into(), key: "/k".into() });
        assert!(matches!(outside(&["--tls-key-file", "/k"]), Err(BadWorkerOption::NeedlessFile { .. })));
    }

    #[test]
    fn an_address_may_be_a_port_alone() {
        assert_eq!(address(":8443").unwrap(), "0.0.0.0:8443".parse().unwrap());
        assert_eq!(address("127.0.0.1:0").unwrap(), "127.0.0.1:0".parse().unwrap());
        assert!(address("8443").is_err());
    }

    #[test]
    fn a_key_pair_does_not_show_its_secret_key() {
        let secret_key = Zeroizing::new("hidden".to_owned());
        let pair = ClusterKey { access_key: AccessKeyId::from_ulid(1.into()), secret_key };
        assert!(!format!("{pair:?}").contains("hidden"));
    }
}
