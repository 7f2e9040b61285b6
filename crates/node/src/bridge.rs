//! Bridges: workers at the edge that pass clients on to inner workers of their cluster (DESIGN §4.3, decision 0028).
//!
//! A bridge takes links that inner workers park, as gateways take those of relays, and hands clients on below TLS. An inner
//! worker listens nowhere, and serves what comes over its parked links as a worker serves connections.

use std::{str::FromStr, sync::Arc};

use postern_proto::{door::Door, id::ClusterId};
use postern_tunnel::control::Backoff;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::relay::{
    berth::{self, Place},
    moorings::{Moored, Shared},
};

/// What a worker has to do with bridges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bridge {
    /// It is one.
    Local,
    /// It parks links at these, each `host:port`.
    At(Vec<String>),
}

/// Passages that have come and are not served yet.
pub(crate) const INCOMING: usize = 64;
/// Most bridges that one inner worker parks links at.
const MOST: usize = 16;

impl FromStr for Bridge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().eq_ignore_ascii_case("local") {
            return Ok(Self::Local);
        }
        let bad =
            || "write \"local\", or the addresses of bridges: bridge-1.example:8443,bridge-2.example:8443".to_owned();
        let addresses: Vec<String> = text.split(',').map(|address| address.trim().to_owned()).collect();
        let usable = |address: &String| {
            address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
        };
        if addresses.len() > MOST || !addresses.iter().all(usable) { Err(bad()) } else { Ok(Self::At(addresses)) }
    }
}

/// Keeps links parked at every bridge, for ever. When it is dropped, every link ends and with it what runs through them.
pub(crate) async fn moor(bridges: Vec<String>, cluster: ClusterId, shared: Arc<Shared>) {
    let mut moorings = JoinSet::new();
    for address in bridges {
        moorings.spawn(keep(address, cluster, Arc::clone(&shared)));
    }
    while moorings.join_next().await.is_some() {}
}

async fn keep(address: String, cluster: ClusterId, shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    loop {
        let place = Place { door: Door::Cluster(cluster), address: address.clone(), name: address.clone() };
        let (told, mut moored) = mpsc::channel(4);
        let berth = berth::run(place, Arc::clone(&shared), told);
        tokio::pin!(berth);
        let end = loop {
            tokio::select! {
                end = &mut berth => break end,
                Some(news) = moored.recv() => if let Moored::Up { latency, .. } = news {
                    backoff = Backoff::default();
                    tracing::info!(bridge = address, ?latency, "links are parked");
                },
            }
        };
        let pause = backoff.next(rand::random());
        tracing::warn!(bridge = address, error = %end, retry_in = ?pause, "no links are parked at the bridge");
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_a_bridge_or_parks_at_some() {
        assert_eq!("local".parse(), Ok(Bridge::Local));
        assert_eq!(" Local ".parse(), Ok(Bridge::Local));
        let at = |addresses: &[&str]| Ok(Bridge::At(addresses.iter().map(ToString::to_string).collect()));
        assert_eq!("bridge:8443".parse(), at(&["bridge:8443"]));
        assert_eq!("bridge:8443, [2001:db8::1]:8443".parse(), at(&["bridge:8443", "[2001:db8::1]:8443"]));
        for bad in ["", "bridge", ":8443", "bridge:0", "bridge:8443,", "here"] {
            assert!(bad.parse::<Bridge>().is_err(), "{bad}");
        }
    }
}
