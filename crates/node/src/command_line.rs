//! The command line of `postern-node`.

use clap::{Parser, Subcommand};

use crate::gateway::GatewayOptions;

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
}
