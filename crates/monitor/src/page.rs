use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use rustix::time::{ClockId, clock_gettime};

/// Writes one metric after the other, for those that are read when they are asked for.
pub struct Page<'a, 'b>(pub &'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(signed(value)).encode(encoder)
    }

    /// One gauge for each value of its labels.
    pub fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: &[([(&str, &str); N], u64)],
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values
            .iter()
            .try_for_each(|(labels, value)| ConstGauge::new(signed(*value)).encode(encoder.encode_family(labels)?))
    }

    /// One counter for each value of its labels.
    pub fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: &[([(&str, &str); N], u64)],
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values.iter().try_for_each(|(labels, value)| ConstCounter::new(*value).encode(encoder.encode_family(labels)?))
    }

    /// The program: its version and what it is.
    pub fn build(&mut self, version: &str, role: &str) -> fmt::Result {
        self.gauges("build_info", "The program", &[([("version", version), ("role", role)], 1)])
    }

    /// The usual ones of a process, under the usual names as far as a prefix allows.
    pub fn process(&mut self) -> fmt::Result {
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

/// What this process has used of processors since it was started.
#[must_use]
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A gauge is signed; what does not fit is the most that does.
#[must_use]
pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Bytes, where the system tells.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}
