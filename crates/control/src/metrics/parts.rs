//! What is read from the parts of a control plane when it is asked for.

use std::{fmt, sync::Arc};

use postern_monitor::Page;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use crate::{authority::Authority, duty, store::Store, sync::Exchange};

/// Whom to ask.
#[derive(Clone)]
pub struct Parts {
    pub store: Store,
    pub exchange: Exchange,
    pub authority: Arc<Authority>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl Collector for Parts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(&mut encoder);
        page.build(env!("CARGO_PKG_VERSION"), "control")?;
        let connections = self.exchange.connections().map(|(kind, count)| ([("kind", kind)], count as u64));
        page.gauges("sync_connections", "Devices and nodes that follow, by what they are", &connections)?;
        page.gauge(
            "news_waiting",
            "What nodes said and other replicas were not told yet",
            self.exchange.news_waiting(),
        )?;
        page.gauge("revision", "Revision of the configuration that is known here", self.store.catalogue().revision)?;
        let behind = self.store.unseen_for().as_secs();
        page.gauge("revision_unseen_seconds", "Time since that was seen to be the database's", behind)?;
        let held = duty::ALL.map(|name| ([("duty", name)], u64::from(self.store.holds_duty(name))));
        page.gauges("duty_held", "Whether this one does what one replica does for all", &held)?;
        let issued = self.authority.issued().map(|(kind, count)| ([("kind", kind)], count));
        page.counters("certificates", "Certificates that were signed", &issued)?;
        page.process()
    }
}
