//! Where each resource is: in the virtual network, at a loopback address, in both, or nowhere.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use postern_local_api::message::{Connection, NameService, NetworkMoved, NetworkStatus, NetworkUp};
use postern_proto::{
    bind::Cidr,
    id::ResourceId,
    name::{DnsName, HostPattern},
    resource::{BindMode, ClientResource},
};
use tun_driver::dns::{DnsBackend, DnsState};

use super::{
    Command, Engine, NetworkWish, Now, Session,
    network::{self, Place, Step, Up, View},
};

/// How a resource stands, for those who look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    pub connection: Connection,
    /// Its name, while it is in the virtual network.
    pub virtual_name: Option<String>,
    /// A loopback address beside the virtual one.
    pub also_at: Option<SocketAddr>,
    /// Why it is not in the virtual network, where it belongs.
    pub fallback: Option<String>,
    /// Whether it is to be connected, locked or not.
    pub wanted: bool,
}

impl Engine {
    /// A resource that the account may reach, and how it stands. Retry times are given on the wall clock.
    #[must_use]
    pub fn resource(&self, id: ResourceId, now: Now) -> Option<(&ClientResource, Presence)> {
        let entry = self.entries.get(&id)?;
        let resource = &entry.resource;
        let listener = entry.listener.connection(now);
        let wanted = self.is_wanted(resource);
        let mut presence = Presence { connection: listener, virtual_name: None, also_at: None, fallback: None, wanted };
        let belongs = resource.bind.mode.is_virtual() && self.session != Session::SignedOut;
        if belongs {
            let at_home = resource.bind.mode == BindMode::Both && !self.network.enabled;
            presence.fallback = self.network.absence().filter(|_| !at_home);
        }
        if wanted && self.is_locked() {
            presence.connection = Connection::Suspended;
        } else if let Some(address) = self.virtual_address(resource) {
            if let Connection::Listening { address } = presence.connection {
                presence.also_at = Some(address);
            }
            presence.connection = Connection::Listening { address };
            let alias = resource.bind.dns_name.as_ref().filter(|alias| self.network.answers(alias.name()));
            presence.virtual_name = alias.map(ToString::to_string);
        } else if !self.may_be_used(resource) {
            presence.connection = Connection::Disconnected;
        }
        Some((resource, presence))
    }

    /// Whether it is known for all of these whether they can be used.
    #[must_use]
    pub fn is_settled(&self, ids: &BTreeSet<ResourceId>) -> bool {
        ids.iter().filter_map(|id| self.entries.get(id)).all(|entry| {
            let waits = self.network.is_starting() && self.wants_virtual(&entry.resource);
            !entry.listener.is_opening() && !waits
        })
    }

    /// Whether it is known whether there is a virtual network, and no answer is on its way that may change that.
    #[must_use]
    pub const fn is_network_settled(&self) -> bool {
        !self.network.is_undecided()
    }

    /// How the virtual network stands.
    #[must_use]
    pub fn network_status(&self, now: Now) -> NetworkStatus {
        match self.network.view(now) {
            View::Off => NetworkStatus::Off,
            View::Waiting => NetworkStatus::Waiting,
            View::Starting => NetworkStatus::Starting,
            View::Up(up) => NetworkStatus::Up(Box::new(self.network_up(up))),
            View::Down(down, retry_at) => {
                NetworkStatus::Unavailable { fault: down.fault, reason: down.reason.clone(), retry_at }
            }
        }
    }

    fn network_up(&self, up: &Up) -> NetworkUp {
        let moved = self.network.moved_from();
        NetworkUp {
            interface: up.interface.name.clone(),
            subnet: up.plan.subnet.to_string(),
            moved: moved.map(|from: Cidr| NetworkMoved { from: from.to_string(), because: up.conflicts.clone() }),
            ipv6: up.interface.ipv6.map(|part| part.network.to_string()),
            address: IpAddr::V4(up.interface.addresses.device),
            resolver: IpAddr::V4(up.interface.addresses.resolver),
            zones: up.plan.zones.iter().map(ToString::to_string).collect(),
            names: name_service(&up.interface.dns),
            since: up.since.wall,
            behind: up.behind.as_ref().map(|behind| behind.reason.clone()),
            left_out: self.left_out(up),
        }
    }

    /// Names that no zone covers. While netd is asked for zones it is not known yet.
    fn left_out(&self, up: &Up) -> Vec<String> {
        if self.network.is_asking() {
            return Vec::new();
        }
        let names = self.aliases().filter(|alias| !up.plan.answers(alias.name()));
        names.map(ToString::to_string).collect()
    }

    pub(super) fn choose_network(&mut self, enabled: bool) {
        self.network.enabled = enabled;
        self.network.retry_now();
        self.moved = true;
    }

    pub(super) fn set_network(&mut self, wish: Result<NetworkWish, String>, own_names: Vec<DnsName>) {
        if self.network.wish.as_ref() != Some(&wish) || self.network.own_names != own_names {
            self.network.wish = Some(wish);
            self.network.own_names = own_names;
            self.network.retry_now();
            self.moved = true;
        }
    }

    /// Goes on with the network, and says who is where in it.
    pub(super) fn step_network(&mut self, now: Now) {
        let zones = (self.session != Session::SignedOut).then(|| self.zones()).flatten();
        match self.network.step(zones, now) {
            Step::Nothing => {}
            Step::Ask(ticket, plan) => self.commands.push_back(Command::ConfigureNetwork { ticket, plan }),
            Step::Release => self.commands.push_back(Command::ReleaseNetwork),
        }
        if self.network.take_news() | std::mem::take(&mut self.moved) {
            let concerned = self.entries.values().filter(|entry| entry.resource.bind.mode.is_virtual());
            self.changed.extend(concerned.map(|entry| entry.resource.id));
            let places = self.network.places(self.is_locked(), self.places());
            // First of all: no stream begins any more where one is to be cut.
            self.commands.push_front(Command::SetPlaces(places));
        }
    }

    /// Everything that the virtual network answers for; `None` when that is not known yet.
    fn zones(&self) -> Option<Vec<DnsName>> {
        let Ok(wish) = self.network.wish.as_ref()? else { return Some(Vec::new()) };
        Some(network::zones(&wish.zone, self.aliases(), &self.network.own_names))
    }

    /// The names of what is in the virtual network.
    fn aliases(&self) -> impl Iterator<Item = &HostPattern> {
        let entries = self.entries.values().filter(|entry| entry.resource.bind.mode.is_virtual());
        entries.filter_map(|entry| entry.resource.bind.dns_name.as_ref())
    }

    fn places(&self) -> Vec<Place> {
        let place = |resource: &ClientResource| {
            let address = self.network.address(resource)?;
            Some(Place::new(resource, address, self.wants_virtual(resource)))
        };
        self.entries.values().filter_map(|entry| place(&entry.resource)).collect()
    }

    /// Where a resource may be used in the virtual network now.
    fn virtual_address(&self, resource: &ClientResource) -> Option<SocketAddr> {
        let open = self.wants_virtual(resource) && !self.is_locked();
        let address: Ipv4Addr = self.network.address(resource).filter(|_| open)?;
        Some(SocketAddr::new(address.into(), resource.bind.port))
    }

    /// The loopback address that should be listened on for this resource now. One that only the virtual network has
    /// stands for itself: it is never bound, and why is told.
    pub(super) fn listens_at(&self, resource: &ClientResource) -> Option<SocketAddr> {
        if self.is_locked() || self.session == Session::SignedOut {
            return None;
        }
        let bind = &resource.bind;
        let wanted = match self.choice(resource) {
            Some(choice) => choice,
            // What would be in the virtual network without being asked for is at loopback in the same way.
            None if bind.mode.is_virtual() && self.network.is_missing() => true,
            None => self.is_service(),
        };
        let stands_in = self.network.absence().is_some();
        let here = match bind.mode {
            BindMode::Vnm => stands_in,
            BindMode::Loopback | BindMode::Both => true,
        };
        (wanted && here).then(|| bind.loopback_address().unwrap_or_else(|| SocketAddr::new(bind.ip, bind.port)))
    }

    /// Whether programs may use it now, by whatever address.
    pub(super) fn may_be_used(&self, resource: &ClientResource) -> bool {
        self.listens_at(resource).is_some() || self.virtual_address(resource).is_some()
    }

    /// Whether it would be used if nothing were locked.
    fn is_wanted(&self, resource: &ClientResource) -> bool {
        let in_network = self.network.up().is_some() || self.network.is_missing();
        self.choice(resource).unwrap_or_else(|| self.is_service() || (resource.bind.mode.is_virtual() && in_network))
    }

    /// In the virtual network everything is connected that was not disconnected.
    fn wants_virtual(&self, resource: &ClientResource) -> bool {
        resource.bind.mode.is_virtual() && self.session != Session::SignedOut && self.choice(resource) != Some(false)
    }

    fn choice(&self, resource: &ClientResource) -> Option<bool> {
        self.choices.get(&resource.id).copied()
    }

    const fn is_service(&self) -> bool {
        matches!(self.session, Session::SignedIn { owner, .. } if owner.service)
    }

    const fn is_locked(&self) -> bool {
        matches!(self.session, Session::SignedIn { locked: true, .. })
    }
}

fn name_service(state: &DnsState) -> NameService {
    match state {
        DnsState::Registered { backend } => NameService::Registered {
            through: match backend {
                DnsBackend::Resolved => "systemd-resolved",
                DnsBackend::ResolvConf => "resolv.conf",
                DnsBackend::ResolverFolder => "/etc/resolver",
                DnsBackend::Nrpt => "NRPT",
            }
            .to_owned(),
        },
        DnsState::NoZones => NameService::NoZones,
        DnsState::Unavailable { reason } => NameService::Unavailable { reason: reason.clone() },
    }
}
