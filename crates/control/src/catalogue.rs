//! Everything that is configured, in memory: accounts, roles, rules, members, grants, resources, nodes, settings.
//!
//! A catalogue belongs to one revision and never changes; the store publishes the next one after each commit. It holds
//! no session, no login, no device and no secret.

use std::{net::IpAddr, sync::Arc};

use imbl::{OrdMap, OrdSet};
use postern_proto::{
    bind::{OwnName, Taken},
    filter::{self, Value},
    id::{AccountId, ClusterId, GrantId, NodeId, ResourceId, RoleId, RuleId, WindowId},
    name::{DnsName, HostPattern},
    resource::{ClientResource, Health, NodeResource},
    sync::{ClusterInfo, GatewayInfo, LeavingWorker, NetworkSettings, ParkedAt, RelayInfo},
    time::UnixMillis,
};

pub use self::entity::{
    Account, AccountKind, BindAddressSchema, Cluster, Grant, MaintenanceWindow, Member, Node, NodeKind, Org,
    RemovedWorker, Resource, Role, Rule, RuleTarget,
};
use self::index::link;
pub use self::{egress::verdicts, index::Index};

mod egress;
mod entity;
mod index;

/// A table that is cheap to copy: two copies share all that a change of one of them does not touch.
pub type Table<K, V> = OrdMap<K, Arc<V>>;
/// For each key some others.
pub type Links<K, V> = OrdMap<K, OrdSet<V>>;

#[derive(Clone, Debug)]
pub struct Catalogue {
    pub org: Arc<Org>,
    pub revision: u64,
    pub settings: Arc<NetworkSettings>,
    pub accounts: Table<AccountId, Account>,
    pub roles: Table<RoleId, Role>,
    pub rules: Table<RuleId, Rule>,
    pub members: Table<(RoleId, AccountId), Member>,
    pub grants: Table<GrantId, Grant>,
    pub resources: Table<ResourceId, Resource>,
    pub nodes: Table<NodeId, Node>,
    pub clusters: Table<ClusterId, Cluster>,
    pub windows: Table<WindowId, MaintenanceWindow>,
    /// Which resources ever had a virtual address, those that are gone included.
    pub had: Links<IpAddr, ResourceId>,
    pub index: Index,
}

impl Catalogue {
    /// The catalogue of an organisation in which nothing is configured yet.
    #[must_use]
    pub fn empty(org: Org, revision: u64, settings: NetworkSettings) -> Self {
        Self {
            org: Arc::new(org),
            revision,
            settings: Arc::new(settings),
            accounts: Table::default(),
            roles: Table::default(),
            rules: Table::default(),
            members: Table::default(),
            grants: Table::default(),
            resources: Table::default(),
            nodes: Table::default(),
            clusters: Table::default(),
            windows: Table::default(),
            had: Links::default(),
            index: Index::default(),
        }
    }

    #[must_use]
    pub fn account_by_email(&self, email: &str) -> Option<&Arc<Account>> {
        self.accounts.values().find(|account| account.email.as_str() == email)
    }

    /// Notes the virtual address of a resource for ever.
    pub(crate) fn note_address(&mut self, resource: &Resource) {
        if let Some(address) = resource.bind.virtual_address() {
            link(&mut self.had, address.ip(), resource.id);
        }
    }

    /// Notes for ever that a resource had a virtual address.
    pub(crate) fn note_past_address(&mut self, ip: IpAddr, resource: ResourceId) {
        link(&mut self.had, ip, resource);
    }

    /// What other resources than `own` have and had. `own_names` are those of [`Self::own_names`].
    #[must_use]
    pub fn taken<'a>(&'a self, own: ResourceId, own_names: &'a [OwnName]) -> Taken<'a> {
        let mut taken = Taken::new(own_names);
        for resource in self.resources.values().filter(|resource| resource.id != own) {
            taken.add(&resource.bind, &resource.ports, &resource.name);
        }
        if let Some(resource) = self.resources.get(&own) {
            taken.stay(&resource.bind, &resource.ports);
        }
        let lives_there = |id: &ResourceId, ip: &IpAddr| {
            let address = self.resources.get(id).and_then(|other| other.bind.virtual_address());
            address.is_some_and(|address| address.ip() == *ip)
        };
        for (ip, resources) in self.had.iter() {
            if resources.iter().any(|id| *id != own && !lives_there(id, ip)) {
                taken.retire(*ip);
            }
        }
        taken
    }

    /// The names that no zone and no alias may cover: the control plane's and those under which gateways are dialled.
    #[must_use]
    pub fn own_names(&self, control: &[DnsName]) -> Vec<OwnName> {
        let control = control.iter().map(|name| OwnName { name: name.clone(), whose: "the control plane".to_owned() });
        let gateways = self.nodes.values().filter_map(|node| {
            let (host, _) = node.advertise.as_deref()?.rsplit_once(':')?;
            Some(OwnName { name: host.parse().ok()?, whose: format!("gateway {}", node.name) })
        });
        let clusters = self.clusters.values().filter_map(|cluster| {
            let (host, _) = cluster.advertise.rsplit_once(':')?;
            Some(OwnName { name: host.parse().ok()?, whose: format!("cluster {}", cluster.name) })
        });
        control.chain(gateways).chain(clusters).filter(|own| !own.name.is_localhost()).collect()
    }

    /// The organisation's zone or the alias that covers a name, if one does.
    #[must_use]
    pub fn zone_over(&self, name: &DnsName) -> Option<String> {
        let covers = |zone: &DnsName| zone == name || name.is_under(zone);
        let aliases = self.resources.values().filter_map(|resource| resource.bind.dns_name.as_ref());
        let own = self.settings.dns_zone.parse().ok().filter(covers).map(|zone| format!("the zone {zone}"));
        let alias = aliases.filter(|alias| covers(alias.name())).map(|alias| format!("the alias {alias}"));
        own.or_else(|| alias.into_iter().next())
    }
}

impl Resource {
    /// What a dynamic rule may ask for: what the resource is, not how it is bound or how it feels.
    pub const RULE_FIELDS: &[&str] = &["name", "kind", "tags", "id", "host", "port"];

    /// As a client that may reach it is told. `health`, and `via` which nodes, are known to the caller.
    #[must_use]
    pub fn for_client(&self, health: Health, via: Vec<NodeId>) -> ClientResource {
        ClientResource {
            id: self.id,
            name: self.name.clone(),
            kind: self.kind,
            tags: self.tags.clone(),
            bind: self.bind.clone(),
            ports: self.ports.clone(),
            revision: self.revision,
            via,
            cluster: self.cluster,
            health,
        }
    }

    /// The hosts under its wildcard alias that may be dialled.
    fn dialled_hosts(&self) -> Vec<HostPattern> {
        match &self.bind.dns_name {
            Some(alias) if alias.is_wildcard() && self.hosts.is_empty() => vec![alias.clone()],
            Some(alias) if alias.is_wildcard() => self.hosts.clone(),
            _ => Vec::new(),
        }
    }

    /// As a node is told. `egress` is known to the caller.
    #[must_use]
    pub fn for_node(&self, egress: Option<Vec<NodeId>>) -> NodeResource {
        NodeResource {
            id: self.id,
            name: self.name.clone(),
            kind: self.kind,
            tags: self.tags.clone(),
            host: self.host.clone(),
            port: self.port,
            ports: self.ports.clone(),
            hosts: self.dialled_hosts(),
            revision: self.revision,
            allow_local: self.allow_local,
            strict: self.strict,
            egress,
        }
    }
}

impl filter::Subject for Resource {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => self.name.as_str().into(),
            "kind" => self.kind.as_str().into(),
            "tags" => Value::Tags(&self.tags),
            "id" => self.id.to_string().into(),
            "host" => self.host.as_str().into(),
            "port" => self.port.to_string().into(),
            "ports" => self.ports.to_string().into(),
            "allow_local" => self.allow_local.into(),
            "strict" => self.strict.into(),
            "cluster" => self.cluster.map_or(Value::None, |cluster| cluster.to_string().into()),
            "egress" => self.egress.as_deref().map_or(Value::None, Value::from),
            _ => self.bind.value(field),
        }
    }
}

impl Cluster {
    /// As clients and its workers are told. `leaving`: its workers that are on their way out of service.
    #[must_use]
    pub fn entry(&self, leaving: Vec<LeavingWorker>, now: UnixMillis) -> ClusterInfo {
        ClusterInfo {
            id: self.id,
            name: self.name.clone(),
            address: self.advertise.clone(),
            carrier: self.carrier,
            authority: self.authority.clone(),
            leaving,
            removed: self.removed.iter().filter(|worker| worker.until > now).map(|worker| worker.node).collect(),
        }
    }
}

impl Node {
    /// As clients are told: `None` while it cannot be dialled. `said`: what it says itself of leaving.
    #[must_use]
    pub fn entry(&self, said: Leaving) -> Option<GatewayInfo> {
        if self.kind != NodeKind::Gateway {
            return None;
        }
        self.enrolled_at?;
        let address = self.advertise.clone()?;
        let Leaving { draining, ends: drain_ends } = self.leaving(said);
        Some(GatewayInfo { id: self.id, name: self.name.clone(), address, draining, drain_ends })
    }

    /// As clients and gateways are told of a relay: `None` while it has not enrolled. Where it has parked links is known
    /// to the caller.
    #[must_use]
    pub fn relay(&self, said: Leaving, parked: &[ParkedAt]) -> Option<RelayInfo> {
        if self.kind != NodeKind::Relay {
            return None;
        }
        self.enrolled_at?;
        let Leaving { draining, ends: drain_ends } = self.leaving(said);
        Some(RelayInfo { id: self.id, name: self.name.clone(), parked: parked.to_vec(), draining, drain_ends })
    }

    /// Whether it is on its way out of service: because it says so, or because it is to be. It leaves the routes before it
    /// has heard of that itself.
    #[must_use]
    pub fn leaving(&self, said: Leaving) -> Leaving {
        let ends = said.ends.into_iter().chain(self.drain_ends_at).min();
        Leaving { draining: said.draining || self.drain_ends_at.is_some(), ends }
    }
}

/// Whether a node takes no new streams, and then when what runs there is cut, where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    pub draining: bool,
    pub ends: Option<UnixMillis>,
}
