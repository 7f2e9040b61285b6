//! What is read from the parts of a node when it is asked for.

use std::{fmt, sync::Arc};

use postern_monitor::Page;
use postern_tunnel::node::{Outcome, Server};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use crate::{
    clock, contact::ContactRecord, drain::Drain, gateway::Gateway, identity::Validity, live::LiveSessions,
    parking::Parking, spool::Spool,
};

/// What kind of node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Gateway,
    Relay,
    Worker,
}

impl Role {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Relay => "relay",
            Self::Worker => "worker",
        }
    }
}

/// Whom to ask.
#[derive(Clone)]
pub struct Parts {
    pub role: Role,
    pub server: Arc<Server<Gateway>>,
    pub live: Arc<LiveSessions>,
    pub drain: Drain,
    pub contact: Arc<ContactRecord>,
    pub spool: Spool,
    pub parking: Option<Arc<Parking>>,
    pub validity: Validity,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("role", &self.role).finish_non_exhaustive()
    }
}

impl Collector for Parts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (up, down) = self.live.carried();
        let now = clock::now();
        let mut page = Page(&mut encoder);
        page.build(env!("CARGO_PKG_VERSION"), self.role.as_str())?;
        page.gauge("streams", "Streams that are carried to resources now", self.live.len() as u64)?;
        let bytes = [([("direction", "up")], up), ([("direction", "down")], down)];
        page.counters("stream_bytes", "Bytes carried between clients and resources", &bytes)?;
        handshakes(&mut page, &self.server)?;
        page.gauge(
            "spare_links",
            "Links of clients and gateways that stand ready for a stream",
            self.server.spares() as u64,
        )?;
        if let Some(parking) = &self.parking {
            let relays = parking.state();
            let idle: usize = relays.iter().map(|(_, _, idle)| idle).sum();
            let (up, down) = parking.passages.carried();
            page.gauge("relays", "Relays that are here", relays.len() as u64)?;
            page.gauge("parked_links", "Links of relays that stand ready", idle as u64)?;
            page.gauge("passages", "Connections of clients to relays now", parking.passages.len() as u64)?;
            let bytes = [([("direction", "up")], up), ([("direction", "down")], down)];
            page.counters("passage_bytes", "Bytes carried between clients and relays", &bytes)?;
        }
        page.gauge("session_records_waiting", "Records that the control plane has not got yet", self.spool.waiting())?;
        page.gauge("session_records_bytes", "Size of the records on disk", self.spool.size())?;
        page.gauge("draining", "Whether it takes no new streams", u64::from(self.drain.is_on()))?;
        let left = self.validity.ends().since(now).as_secs();
        page.gauge("certificate_left_seconds", "Time until the certificate ends", left)?;
        page.gauge("control_plane_connected", "Whether the control plane is there", u64::from(self.contact.is_up()))?;
        let silent = now.since(self.contact.heard()).as_secs();
        page.gauge("control_plane_silent_seconds", "Time since the control plane was heard", silent)?;
        page.process()
    }
}

/// Adds what only nodes have.
fn handshakes(page: &mut Page<'_, '_>, server: &Server<Gateway>) -> fmt::Result {
    let counts = Outcome::ALL.map(|outcome| ([("outcome", outcome.as_str())], server.handshakes().count(outcome)));
    page.counters("handshakes", "TLS handshakes of clients, gateways and relays, by how they ended", &counts)
}
