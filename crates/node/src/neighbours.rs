//! The other nodes, as the control plane names them: who may park links where, and where relays have done so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use postern_proto::{
    id::NodeId,
    sync::{GatewayInfo, Item, RelayInfo},
};
use tokio::sync::watch;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// At a relay the gateways where it may park links, at a gateway the relays that may do so.
    pub own: BTreeSet<NodeId>,
    pub gateways: BTreeMap<NodeId, GatewayInfo>,
    pub relays: BTreeMap<NodeId, RelayInfo>,
    /// At a worker those of its cluster that were removed, though their certificates go on.
    pub removed: BTreeSet<NodeId>,
}

/// How they are now, and when that changes.
pub type NeighboursNow = watch::Receiver<Arc<Neighbours>>;

impl Neighbours {
    /// What the items of all scopes say.
    pub fn of<'a>(items: impl IntoIterator<Item = &'a Item>) -> Self {
        let mut found = Self::default();
        for item in items {
            match item {
                Item::Gateway(gateway) => drop(found.gateways.insert(gateway.id, gateway.clone())),
                Item::Relay(relay) => drop(found.relays.insert(relay.id, relay.clone())),
                Item::Neighbours { nodes } => found.own.extend(nodes),
                Item::Cluster(cluster) => found.removed.extend(&cluster.removed),
                _ => {}
            }
        }
        found
    }

    /// The gateways where a relay has parked links, the nearest to it first; those that take no new streams last.
    #[must_use]
    pub fn berths(&self, relay: NodeId) -> Vec<&GatewayInfo> {
        let Some(relay) = self.relays.get(&relay) else { return Vec::new() };
        let mut berths: Vec<_> =
            relay.parked.iter().filter_map(|at| Some((self.gateways.get(&at.gateway)?, at.latency_micros))).collect();
        berths.sort_by_key(|(gateway, latency)| (gateway.draining, *latency, gateway.id));
        berths.into_iter().map(|(gateway, _)| gateway).collect()
    }
}

#[cfg(test)]
mod tests {
    use postern_proto::sync::ParkedAt;
    use ulid::Ulid;

    use super::*;

    fn id(n: u128) -> NodeId {
        NodeId::from_ulid(Ulid(n))
    }

    #[test]
    fn a_relay_is_looked_for_at_the_gateway_that_is_nearest_to_it() {
        let gateway = |n, draining| {
            Item::Gateway(GatewayInfo {
                id: id(n),
                name: String::new(),
                address: format!("g{n}:1"),
                draining,
                drain_ends: None,
            })
        };
        let at = |n, latency_micros| ParkedAt { gateway: id(n), latency_micros };
        let parked = vec![at(1, 900), at(2, 100), at(3, 500), at(4, 1)];
        let relay = RelayInfo { id: id(9), name: String::new(), parked, draining: false, drain_ends: None };
        let items = [gateway(1, false), gateway(2, true), gateway(3, false), Item::Relay(relay)];
        let neighbours = Neighbours::of(&items);
        let order: Vec<_> = neighbours.berths(id(9)).iter().map(|gateway| gateway.id).collect();
        assert_eq!(order, [id(3), id(1), id(2)]);
        assert!(neighbours.berths(id(8)).is_empty());
    }
}
