//! `postern admin clusters`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{DeleteArgs, ListArgs, NewTags, Output, ShowArgs, Sure, TagChanges};

#[derive(Debug, Subcommand)]
pub(crate) enum ClustersCommand {
    /// List clusters
    List(ListArgs),
    /// Show one
    Show(ShowArgs),
    /// Make a cluster
    Create(ClusterCreate),
    /// Change a cluster
    Update(ClusterUpdate),
    /// Delete clusters; their workers are cut off. No resource may be bound to them
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ClusterCreate {
    /// Name
    pub(crate) name: String,
    /// Where clients dial it, as host:port: usually that of a layer-4 balancer
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: String,
    /// direct, or websocket where something before the workers ends TLS
    #[arg(long, value_name = "CARRIER", value_parser = ["direct", "websocket"])]
    pub(crate) carrier: Option<String>,
    /// With carrier websocket: file with the authority of the outer certificate (PEM); else what clients' machines trust
    #[arg(long, value_name = "FILE")]
    pub(crate) authority: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tags: NewTags,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct ClusterUpdate {
    /// Name or id
    #[arg(value_name = "CLUSTER")]
    pub(crate) reference: String,
    /// New name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where clients dial it, as host:port
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// direct, or websocket where something before the workers ends TLS
    #[arg(long, value_name = "CARRIER", value_parser = ["direct", "websocket"])]
    pub(crate) carrier: Option<String>,
    /// With carrier websocket: file with the authority of the outer certificate (PEM); "" for what clients' machines trust
    #[arg(long, value_name = "FILE")]
    pub(crate) authority: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tags: TagChanges,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterKeysCommand {
    /// List the key pairs of a cluster
    List(ClusterKeysList),
    /// Make a key pair; its secret key is shown this once
    Create(ShowArgs),
    /// Make the secret key of a pair anew; workers that have enrolled go on
    Rotate(ClusterKeyRotate),
    /// Revoke a key pair; the workers that enrolled with it are cut off
    Revoke(ClusterKeyRevoke),
}

#[derive(Args, Debug)]
pub(crate) struct ClusterKeysList {
    /// Name or id of the cluster
    pub(crate) cluster: String,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ClusterKeyRotate {
    /// Name or id of the cluster
    pub(crate) cluster: String,
    /// The access key
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct ClusterKeyRevoke {
    /// Name or id of the cluster
    pub(crate) cluster: String,
    /// The access key
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) sure: Sure,
}
