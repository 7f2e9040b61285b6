//! What each scope holds, from what is configured and what is known at this instant.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use postern_proto::{
    id::{AccountId, ClusterId, NodeId, ResourceId},
    sync::{CLUSTERS, DrainOrder, Item, ItemKey, LeavingWorker, ParkedAt},
    time::UnixMillis,
};

use super::{
    feed::{View, view},
    hub::{GATEWAYS, ORG},
};
use crate::{
    access,
    catalogue::{Catalogue, Leaving, Resource, verdicts},
    health::board::HealthBoard,
};

/// Resources as clients are told of them, each once for all the scopes that hold it.
#[derive(Default)]
pub struct SharedItems(RefCell<HashMap<ResourceId, Weak<Item>>>);

impl SharedItems {
    /// The one item that is as this one.
    fn share(&self, resource: ResourceId, item: Item) -> Arc<Item> {
        let mut known = self.0.borrow_mut();
        if let Some(known) = known.get(&resource).and_then(Weak::upgrade)
            && *known == item
        {
            return known;
        }
        let item = Arc::new(item);
        known.insert(resource, Arc::downgrade(&item));
        item
    }

    /// The resources of which somebody holds an item.
    pub fn held(&self) -> Vec<ResourceId> {
        let known = self.0.borrow();
        known.iter().filter(|(_, item)| item.strong_count() > 0).map(|(resource, _)| *resource).collect()
    }

    /// Forgets what nobody holds any more.
    pub fn sweep(&mut self) {
        self.0.get_mut().retain(|_, item| item.strong_count() > 0);
    }
}

/// Everything that scopes are made of.
pub struct Sources<'a> {
    pub catalogue: &'a Catalogue,
    /// The lease keys, as items.
    pub lease_keys: &'a [Item],
    pub health: &'a HealthBoard,
    /// What nodes say of taking no new streams.
    pub draining: &'a BTreeMap<NodeId, Leaving>,
    /// Where relays have parked links.
    pub parked: &'a BTreeMap<NodeId, Vec<ParkedAt>>,
    pub shared: &'a SharedItems,
    pub now: UnixMillis,
}

impl Sources<'_> {
    /// All items of a scope. A scope that names nothing that is there is empty.
    #[must_use]
    pub fn view(&self, scope: &str) -> View {
        match Named::parse(scope) {
            Some(Named::Org) => self.org(),
            Some(Named::Gateways) => view(self.dialled_over(None)),
            Some(Named::Clusters) => view(self.catalogue.clusters.keys().filter_map(|cluster| self.cluster(*cluster))),
            Some(Named::Cluster(cluster)) => {
                view(self.cluster(cluster).into_iter().chain(self.dialled_over(Some(cluster))))
            }
            Some(Named::Account(account)) => self.account(account),
            Some(Named::Node(node)) => view(self.node(node).into_iter().chain(self.neighbours(node))),
            None => View::new(),
        }
    }

    /// One item of a scope; `None` when it holds no such item now.
    #[must_use]
    pub fn item(&self, scope: &str, key: &ItemKey) -> Option<Arc<Item>> {
        match (Named::parse(scope)?, key) {
            (Named::Org, ItemKey::Settings) => Some(Arc::new(self.settings())),
            (Named::Org, ItemKey::LeaseKey { .. }) => {
                self.lease_keys.iter().find(|item| item.key() == *key).cloned().map(Arc::new)
            }
            (Named::Org, ItemKey::Gateway { id }) => self.gateway(*id).map(Arc::new),
            (Named::Org, ItemKey::Relay { id }) => self.relay(*id).map(Arc::new),
            (Named::Gateways, ItemKey::Resource { id }) => self.dialled_there(*id, None).map(Arc::new),
            (Named::Cluster(cluster), ItemKey::Resource { id }) => self.dialled_there(*id, Some(cluster)).map(Arc::new),
            (Named::Clusters | Named::Cluster(_), ItemKey::Cluster { id }) => self.cluster(*id).map(Arc::new),
            (Named::Account(account), ItemKey::Account { .. }) => self.who(account).map(Arc::new),
            (Named::Account(account), ItemKey::Access { id }) => {
                access::reason(self.catalogue, account, *id, self.now)?;
                self.access(*id)
            }
            (Named::Node(node), ItemKey::Node { .. }) => self.node(node).map(Arc::new),
            (Named::Node(node), ItemKey::Neighbours) => self.neighbours(node).map(Arc::new),
            _ => None,
        }
    }

    fn org(&self) -> View {
        let gateways = self.catalogue.nodes.keys().filter_map(|node| self.gateway(*node));
        let relays = self.catalogue.nodes.keys().filter_map(|node| self.relay(*node));
        let keys = self.lease_keys.iter().cloned();
        view([self.settings()].into_iter().chain(keys).chain(gateways).chain(relays))
    }

    fn account(&self, account: AccountId) -> View {
        let reachable = access::reachable(self.catalogue, account, self.now);
        let who = self.who(account).map(Arc::new);
        view(who.into_iter().chain(reachable.keys().filter_map(|resource| self.access(*resource))))
    }

    fn settings(&self) -> Item {
        Item::Settings((*self.catalogue.settings).clone())
    }

    fn gateway(&self, node: NodeId) -> Option<Item> {
        let entry = self.catalogue.nodes.get(&node)?.entry(self.said(node))?;
        Some(Item::Gateway(entry))
    }

    fn relay(&self, node: NodeId) -> Option<Item> {
        let parked = self.parked.get(&node).map(Vec::as_slice).unwrap_or_default();
        let relay = self.catalogue.nodes.get(&node)?.relay(self.said(node), parked)?;
        Some(Item::Relay(relay))
    }

    fn said(&self, node: NodeId) -> Leaving {
        self.draining.get(&node).copied().unwrap_or_default()
    }

    fn cluster(&self, id: ClusterId) -> Option<Item> {
        let cluster = self.catalogue.clusters.get(&id)?;
        let workers = self.catalogue.nodes.values().filter(|node| node.cluster == Some(id));
        let leaving = workers.filter_map(|node| {
            let ends = node.leaving(self.said(node.id)).ends.filter(|ends| *ends > self.now)?;
            Some(LeavingWorker { id: node.id, name: node.name.clone(), ends })
        });
        Some(Item::Cluster(cluster.entry(leaving.collect(), self.now)))
    }

    /// The resources that are reached over this cluster; without one, over gateways and relays.
    fn dialled_over(&self, cluster: Option<ClusterId>) -> impl Iterator<Item = Item> {
        let there = self.catalogue.resources.values().filter(move |resource| resource.cluster == cluster);
        there.map(|resource| self.dialled(resource))
    }

    fn dialled_there(&self, id: ResourceId, cluster: Option<ClusterId>) -> Option<Item> {
        let resource = self.catalogue.resources.get(&id).filter(|resource| resource.cluster == cluster)?;
        Some(self.dialled(resource))
    }

    fn dialled(&self, resource: &Resource) -> Item {
        Item::Resource(resource.for_node(self.catalogue.egress(resource)))
    }

    fn who(&self, id: AccountId) -> Option<Item> {
        let account = self.catalogue.accounts.get(&id)?;
        Some(Item::Account { id, email: account.email.to_string(), name: account.name.clone() })
    }

    pub fn access(&self, resource: ResourceId) -> Option<Arc<Item>> {
        let found = self.catalogue.resources.get(&resource)?;
        let reports = verdicts(self.health.reports(resource).map(|(node, report)| (node, &report.health)));
        let via = self.catalogue.via(found, &reports);
        Some(self.shared.share(resource, Item::Access(found.for_client(self.health.health(resource), via))))
    }

    fn node(&self, id: NodeId) -> Option<Item> {
        let node = self.catalogue.nodes.get(&id)?;
        let drain = node.drain_ends_at.map(|ends_at| DrainOrder { ends_at });
        Some(Item::Node { id, name: node.name.clone(), drain })
    }

    fn neighbours(&self, id: NodeId) -> Option<Item> {
        let node = self.catalogue.nodes.get(&id)?;
        Some(Item::Neighbours { nodes: self.catalogue.neighbours(node) })
    }
}

enum Named {
    Org,
    Gateways,
    Account(AccountId),
    Node(NodeId),
    Clusters,
    Cluster(ClusterId),
}

impl Named {
    fn parse(scope: &str) -> Option<Self> {
        match scope.split_once(':') {
            None if scope == ORG => Some(Self::Org),
            None if scope == GATEWAYS => Some(Self::Gateways),
            None if scope == CLUSTERS => Some(Self::Clusters),
            Some(("cluster", id)) => id.parse().ok().map(Self::Cluster),
            Some(("account", id)) => id.parse().ok().map(Self::Account),
            Some(("node", id)) => id.parse().ok().map(Self::Node),
            _ => None,
        }
    }
}
