//! Which nodes may dial a resource, which of them a client is sent to, and which nodes belong together.

use std::collections::BTreeMap;

use postern_proto::{
    filter::{Filter, Subject, Value},
    id::NodeId,
    resource::Health,
};

use super::{Catalogue, Node, NodeKind, Resource};

impl Node {
    /// What an egress filter may ask for.
    pub const EGRESS_FIELDS: &[&str] = &["name", "id", "kind", "group", "tags"];
}

impl Subject for Node {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => self.name.as_str().into(),
            "id" => self.id.to_string().into(),
            "kind" | "role" => self.kind.as_str().into(),
            "group" => self.group.as_str().into(),
            "tags" => Value::Tags(&self.tags),
            _ => Value::None,
        }
    }
}

impl Catalogue {
    /// The nodes that may dial a resource, gateways first; `None`: every node. A filter that cannot be read lets none.
    #[must_use]
    pub fn egress(&self, resource: &Resource) -> Option<Vec<NodeId>> {
        let filter = Filter::parse(resource.egress.as_deref()?, Node::EGRESS_FIELDS).ok();
        let allowed = |node: &&Node| filter.as_ref().is_some_and(|filter| filter.matches(*node));
        Some(self.in_order(allowed))
    }

    /// The nodes over which a client is to reach a resource, gateways first; empty: any gateway. `reports`: what nodes say
    /// about it.
    ///
    /// A node that does not reach it is left out while another one does. Where nothing is prescribed, relays are for what
    /// no gateway reaches.
    #[must_use]
    pub fn via(&self, resource: &Resource, reports: &BTreeMap<NodeId, bool>) -> Vec<NodeId> {
        if resource.cluster.is_some() {
            return Vec::new();
        }
        let reaches = |id: &NodeId| reports.get(id) == Some(&true);
        let fails = |id: &NodeId| reports.get(id) == Some(&false);
        if let Some(allowed) = self.egress(resource) {
            let some = allowed.iter().any(reaches);
            return allowed.into_iter().filter(|id| !some || !fails(id)).collect();
        }
        let gateways = self.in_order(|node| node.kind == NodeKind::Gateway);
        if gateways.iter().any(reaches) {
            let good: Vec<NodeId> = gateways.iter().copied().filter(|id| !fails(id)).collect();
            return if good.len() == gateways.len() { Vec::new() } else { good };
        }
        self.in_order(|node| node.kind == NodeKind::Relay && reaches(&node.id))
    }

    /// Of a relay the gateways where it may park links, of a gateway the relays that may do so: the other kind of the same
    /// peering group.
    #[must_use]
    pub fn neighbours(&self, node: &Node) -> Vec<NodeId> {
        if node.kind == NodeKind::Worker {
            return Vec::new();
        }
        self.in_order(|other| other.kind != node.kind && other.group == node.group)
    }

    /// Enrolled nodes but workers, gateways first.
    fn in_order(&self, wanted: impl Fn(&&Node) -> bool) -> Vec<NodeId> {
        let of = |kind: NodeKind| self.nodes.values().map(AsRef::as_ref).filter(move |node: &&Node| node.kind == kind);
        let all = of(NodeKind::Gateway).chain(of(NodeKind::Relay));
        all.filter(|node| node.enrolled_at.is_some() && wanted(node)).map(|node| node.id).collect()
    }
}

/// Which nodes reach a resource and which do not, from what they say.
#[must_use]
pub fn verdicts<'a>(reports: impl Iterator<Item = (NodeId, &'a Health)>) -> BTreeMap<NodeId, bool> {
    let verdict = |health: &Health| match health {
        Health::Unknown => None,
        Health::Healthy => Some(true),
        Health::Unhealthy { .. } => Some(false),
    };
    reports.filter_map(|(node, health)| Some((node, verdict(health)?))).collect()
}

#[cfg(test)]
mod tests;
