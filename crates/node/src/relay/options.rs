use clap::Args;

use crate::gateway::NodeOptions;

/// How a relay is started.
#[derive(Args)]
pub struct RelayOptions {
    #[command(flatten)]
    pub node: NodeOptions,
}
