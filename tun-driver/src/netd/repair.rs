//! Puts back what others take away from the networks of the users, and gives up for a while when they go on.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{host::Repair, server::Service};
use crate::{
    dns::SplitDns,
    network::{HostNetworks, Watch},
};

/// More repairs than this within [`SPAN`] are a fight with another program.
const MAX_REPAIRS: usize = 10;
const SPAN: Duration = Duration::from_secs(60);
/// Before another attempt to listen for changes.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run<D: SplitDns, N: HostNetworks>(service: Arc<Service<D, N>>, stop: CancellationToken) {
    let mut fight = Fight::default();
    while !stop.is_cancelled() {
        let ended = match Watch::open() {
            Ok(mut watch) => follow(&service, &mut watch, &mut fight).await,
            Err(error) => error,
        };
        tracing::warn!("cannot follow changes of the network: {ended}");
        sleep(PAUSE).await;
    }
}

async fn follow<D: SplitDns, N: HostNetworks>(
    service: &Service<D, N>,
    watch: &mut Watch,
    fight: &mut Fight,
) -> std::io::Error {
    loop {
        // What changed before the watch was opened counts too.
        if let Some(rest) = fight.poll_rest(Instant::now()) {
            tracing::error!(
                "another program keeps taking away routes or rules of Postern; giving up for {} s",
                rest.as_secs()
            );
            sleep(rest).await;
        }
        let Repair { put_back, fault } = service.host().repair();
        if put_back > 0 {
            tracing::info!(count = put_back, "put back what was taken away");
            fight.handle_repair(Instant::now());
        }
        if let Some(fault) = fault {
            tracing::warn!("cannot repair: {fault}");
        }
        if let Err(error) = watch.next().await {
            return error;
        }
    }
}

/// When there were repairs.
#[derive(Debug, Default)]
struct Fight {
    repairs: VecDeque<Instant>,
}

impl Fight {
    fn handle_repair(&mut self, now: Instant) {
        self.repairs.push_back(now);
    }

    /// How long to let be, when there were too many.
    fn poll_rest(&mut self, now: Instant) -> Option<Duration> {
        while self.repairs.front().is_some_and(|first| now.duration_since(*first) >= SPAN) {
            self.repairs.pop_front();
        }
        if self.repairs.len() < MAX_REPAIRS {
            return None;
        }
        self.repairs.clear();
        Some(SPAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_pauses_and_a_repair_now_and_then_does_not() {
        let start = Instant::now();
        let mut fight = Fight::default();
        for minute in 0..100 {
            let now = start + SPAN * minute;
            fight.handle_repair(now);
            assert_eq!(fight.poll_rest(now), None);
        }
        let now = start + SPAN * 200;
        for _ in 1..MAX_REPAIRS {
            fight.handle_repair(now);
            assert_eq!(fight.poll_rest(now), None);
        }
        fight.handle_repair(now);
        assert_eq!(fight.poll_rest(now), Some(SPAN));
        assert_eq!(fight.poll_rest(now), None);
    }
}
