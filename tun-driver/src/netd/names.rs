//! Whether the system's resolver is told of the zones.

use tokio::sync::watch;

use crate::dns::{DnsError, DnsState, LinkNames, SplitDns, SystemDns};

/// What the service was started with.
#[derive(Debug)]
pub(crate) enum Names {
    System(Box<SystemDns>),
    /// `--no-dns`: the resolver of this machine is somebody else's business.
    Untouched,
}

impl SplitDns for Names {
    async fn register(&self, names: &LinkNames) -> Result<DnsState, DnsError> {
        match self {
            Self::System(system) => system.register(names).await,
            Self::Untouched => {
                let reason = "postern-netd was told to leave the system's resolver alone (--no-dns)".to_owned();
                Ok(DnsState::Unavailable { reason })
            }
        }
    }

    async fn revert(&self, index: u32) -> Result<(), DnsError> {
        match self {
            Self::System(system) => system.revert(index).await,
            Self::Untouched => Ok(()),
        }
    }

    fn follow(&self) -> watch::Receiver<DnsState> {
        match self {
            Self::System(system) => system.follow(),
            Self::Untouched => watch::Sender::new(DnsState::NoZones).subscribe(),
        }
    }

    async fn restore(&self) -> Result<(), DnsError> {
        match self {
            Self::System(system) => system.restore().await,
            Self::Untouched => Ok(()),
        }
    }
}
