//! [`SystemDns`] on macOS and Windows: these know zones, so each zone is declared where the system looks.
//!
//! What was declared outlives the device, so it carries a mark: [`SplitDns::restore`] takes away everything marked.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};

use super::{DnsError, DnsState, DnsStatus, LinkNames, SplitDns};
use crate::sys;

/// Others delete declarations (group policy updates, VPN clients): they are looked at this often.
const LOOK: Duration = Duration::from_secs(15);

/// Where things lie: these systems have one place.
#[derive(Clone, Debug, Default)]
pub struct SystemDnsConfig {
    declarations: sys::Declarations,
}

/// The system's resolver. One value for a whole service; keeps what is registered in force until it is dropped.
#[derive(Debug)]
pub struct SystemDns {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    declarations: sys::Declarations,
    links: Mutex<BTreeMap<u32, LinkNames>>,
    outcome: watch::Sender<DnsState>,
}

impl SystemDns {
    /// Must be called within a tokio runtime. Changes nothing yet.
    #[must_use]
    pub fn new(config: SystemDnsConfig) -> Self {
        let shared = Arc::new(Shared {
            declarations: config.declarations,
            links: Mutex::default(),
            outcome: watch::Sender::new(DnsState::NoZones),
        });
        let keeper = tokio::spawn(keep(Arc::downgrade(&shared)));
        Self { shared, keeper }
    }

    /// What is registered, and how.
    pub fn status(&self) -> impl Future<Output = DnsStatus> + Send {
        let links: Vec<LinkNames> = self.shared.links().values().cloned().collect();
        let state = match links.is_empty() {
            true => DnsState::NoZones,
            false => DnsState::Registered { backend: sys::Declarations::BACKEND },
        };
        let detail = self.shared.declarations.describe();
        std::future::ready(DnsStatus { state, links, detail })
    }
}

impl Drop for SystemDns {
    fn drop(&mut self) {
        self.keeper.abort();
        if let Err(error) = self.shared.declarations.declare(&[]) {
            tracing::error!("zones stay declared: {error}");
        }
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, BTreeMap<u32, LinkNames>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn declare(&self, links: &BTreeMap<u32, LinkNames>) -> Result<(), DnsError> {
        let links: Vec<LinkNames> = links.values().cloned().collect();
        self.declarations.declare(&links).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => DnsError::Contested(error.to_string()),
            _ => DnsError::Io(error),
        })
    }
}

async fn keep(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(shared) = shared.upgrade() else { return };
        let links = shared.links();
        if !links.is_empty()
            && let Err(error) = shared.declare(&links)
        {
            tracing::warn!("zones are not declared any more: {error}");
        }
    }
}

impl SplitDns for SystemDns {
    fn register(&self, names: &LinkNames) -> impl Future<Output = Result<DnsState, DnsError>> + Send {
        let mut links = self.shared.links();
        let nothing = names.zones.is_empty() || names.resolvers.is_empty();
        let before = match nothing {
            true => links.remove(&names.index),
            false => links.insert(names.index, names.clone()),
        };
        let declared = self.shared.declare(&links).map(|()| match nothing {
            true => DnsState::NoZones,
            false => DnsState::Registered { backend: sys::Declarations::BACKEND },
        });
        if declared.is_err() {
            match before {
                Some(before) => links.insert(names.index, before),
                None => links.remove(&names.index),
            };
        }
        std::future::ready(declared)
    }

    fn revert(&self, index: u32) -> impl Future<Output = Result<(), DnsError>> + Send {
        let mut links = self.shared.links();
        links.remove(&index);
        std::future::ready(self.shared.declare(&links))
    }

    fn follow(&self) -> watch::Receiver<DnsState> {
        self.shared.outcome.subscribe()
    }

    fn restore(&self) -> impl Future<Output = Result<(), DnsError>> + Send {
        std::future::ready(self.shared.declare(&BTreeMap::new()))
    }
}
