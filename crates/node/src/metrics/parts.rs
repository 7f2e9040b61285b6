//! What is read from the parts of a node when it is asked for.

use std::{fmt, sync::Arc};

use postern_tunnel::node::{Outcome, Server};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::{
    clock, contact::ContactRecord, drain::Drain, gateway::Gateway, identity::Validity, live::LiveSessions,
    load::processor_time, parking::Parking, spool::Spool,
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
        page.build(self.role)?;
        page.gauge("streams", "Streams that are carried to resources now", self.live.len() as u64)?;
        let bytes = [([("direction", "up")], up), ([("direction", "down")], down)];
        page.counters("stream_bytes", "Bytes carried between clients and resources", &bytes)?;
        page.handshakes(&self.server)?;
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

/// Writes one metric after the other.
struct Page<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(signed(value)).encode(encoder)
    }

    fn build(&mut self, role: Role) -> fmt::Result {
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("role", role.as_str())];
        let mut encoder = self.0.encode_descriptor("build_info", "The program", None, MetricType::Gauge)?;
        ConstGauge::new(1_i64).encode(encoder.encode_family(&labels)?)
    }

    fn counters<const N: usize>(&mut self, name: &str, help: &str, values: &[([(&str, &str); N], u64)]) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values.iter().try_for_each(|(labels, value)| ConstCounter::new(*value).encode(encoder.encode_family(labels)?))
    }

    fn handshakes(&mut self, server: &Server<Gateway>) -> fmt::Result {
        let counts = Outcome::ALL.map(|outcome| ([("outcome", outcome.as_str())], server.handshakes().count(outcome)));
        self.counters("handshakes", "TLS handshakes of clients, gateways and relays, by how they ended", &counts)
    }

    /// The usual ones, under the usual names as far as a prefix allows.
    fn process(&mut self) -> fmt::Result {
        let used = ConstCounter::new(processor_time().as_secs_f64());
        let help = "Processor time of this process";
        used.encode(self.0.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?)?;
        if let Some(resident) = resident() {
            self.gauge("process_resident_memory_bytes", "Resident memory", resident)?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            self.gauge("process_open_fds", "Open file descriptors", open.count() as u64)?;
        }
        Ok(())
    }
}

/// Bytes, where the system tells.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
