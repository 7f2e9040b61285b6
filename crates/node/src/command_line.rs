//! The command line of `postern-node`.

use clap::{Parser, Subcommand};

use crate::{
    gateway::{GatewayOptions, NodeOptions},
    relay::RelayOptions,
    worker::WorkerOptions,
};

/// Carries authorised connections to private resources and records them
#[derive(Parser)]
#[command(name = "postern-node", version)]
pub struct CommandLine {
    #[command(subcommand)]
    pub role: Role,
}

#[derive(Subcommand)]
pub enum Role {
    /// Listens for clients and dials resources
    Gateway(Box<GatewayOptions>),
    /// Listens nowhere: parks links at gateways, and dials resources for clients that come through those
    Relay(Box<RelayOptions>),
    /// Listens for clients that come to the address of a proxy cluster, and dials the resources of that
    Worker(Box<WorkerOptions>),
}

impl Role {
    /// What every kind of node is told.
    #[must_use]
    pub const fn node(&self) -> &NodeOptions {
        match self {
            Self::Gateway(options) => &options.node,
            Self::Relay(options) => &options.node,
            Self::Worker(options) => &options.node,
        }
    }
}
