//! The network of the model: in which state it should be, and who should be where in it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use postern_local_api::message::NetworkFault;
use postern_proto::resource::{BindMode, LoopbackAddress};
use tun_driver::network::{HostInterface, HostRoute, Landscape};

use super::*;
pub(super) use crate::engine::network::tests::interface;

/// Wishes of the organisation. The last one cannot be read.
pub(super) const WISHES: usize = 4;
/// Machines: with nothing else, with a Tailscale, and with routes to everything.
pub(super) const LANDSCAPES: usize = 3;

/// Where addresses of the control plane are.
const SUBNET: &str = "100.72.0.0/16";

/// In which state the network should be. The engine tells by its commands what it asks for and what it lets go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Net {
    #[default]
    Off,
    /// Asked for, for the first time.
    Starting,
    Up(Box<NetworkPlan>),
    /// Wished for, and it cannot be had now, be it asked for again or not.
    Missing,
}

/// What the network depends on.
#[derive(Debug, Default)]
pub(super) struct NetworkModel {
    pub(super) enabled: bool,
    pub(super) wish: Option<Result<NetworkWish, String>>,
    /// Nothing is left for us on this machine.
    pub(super) full: bool,
    pub(super) net: Net,
    /// What the answer that is being given makes of it.
    pub(super) answered: Option<Net>,
}

impl NetworkModel {
    pub(super) fn is_wanted(&self) -> bool {
        self.enabled && self.wish.is_some()
    }

    /// Where a resource should be in the network that is up.
    pub(super) fn address(&self, resource: &ClientResource) -> Option<Ipv4Addr> {
        let Net::Up(plan) = &self.net else { return None };
        let (IpAddr::V4(ip), true) = (resource.bind.ip, resource.bind.mode.is_virtual()) else { return None };
        let wish = self.wish.as_ref()?.as_ref().ok()?;
        let host = ip.to_bits() & 0xffff;
        wish.subnet.contains(ip).then(|| Ipv4Addr::from_bits(plan.subnet.network().to_bits() | host))
    }
}

/// What an answer of netd makes of the network.
pub(super) fn after_answer(before: &Net, plan: &NetworkPlan, ok: bool, fault: NetworkFault) -> Net {
    match before {
        _ if ok => Net::Up(Box::new(plan.clone())),
        // A change that could not be made leaves what is there, unless nothing is.
        Net::Up(plan) if fault != NetworkFault::NoService => Net::Up(plan.clone()),
        _ => Net::Missing,
    }
}

impl Model {
    /// Where resources may be used in the network.
    pub(super) fn in_network(&self) -> BTreeMap<ResourceId, SocketAddr> {
        if self.account.is_none() || self.locked {
            return BTreeMap::new();
        }
        let used = self.access.values().filter(|resource| self.choices.get(&resource.id) != Some(&false));
        used.filter_map(|resource| {
            let address = self.network.address(resource)?;
            Some((resource.id, SocketAddr::new(address.into(), resource.bind.port)))
        })
        .collect()
    }

    /// What may be used at all.
    pub(super) fn usable(&self) -> BTreeSet<ResourceId> {
        self.wanted().into_keys().chain(self.in_network().into_keys()).collect()
    }

    /// The loopback address of a resource, if it should be listened on.
    pub(super) fn loopback(&self, resource: &ClientResource, service: bool) -> Option<SocketAddr> {
        let bind = &resource.bind;
        let missing = self.network.net == Net::Missing;
        let chosen = self.choices.get(&resource.id).copied();
        let here = bind.mode != BindMode::Vnm || missing || self.network.net == Net::Off;
        let wanted = chosen.unwrap_or_else(|| service || (missing && bind.mode.is_virtual()));
        let own = bind.loopback.map(|loopback| SocketAddr::new(loopback.ip, loopback.port));
        (here && wanted).then(|| own.unwrap_or_else(|| SocketAddr::new(bind.ip, bind.port)))
    }

    pub(super) fn check_places(&self, published: Option<&Places>) {
        let Net::Up(plan) = &self.network.net else {
            return assert_eq!(published, None, "places without a network");
        };
        let published = published.expect("a network without places");
        assert_eq!((&published.plan, published.locked), (&**plan, self.locked));
        assert_eq!(published.interface, interface(plan));
        let mut addresses = BTreeSet::new();
        let mut expected = BTreeMap::new();
        for resource in self.access.values() {
            let Some(address) = self.network.address(resource) else { continue };
            assert!(addresses.insert(address), "{address} twice");
            let standing = match (&resource.health, self.choices.get(&resource.id)) {
                (_, Some(false)) => Standing::Disconnected,
                (Health::Unhealthy { .. }, _) => Standing::Unhealthy,
                _ => Standing::Open,
            };
            expected.insert(resource.id, (address, resource.bind.port, standing));
        }
        let places = &published.places;
        let said: BTreeMap<_, _> =
            places.iter().map(|place| (place.resource, (place.address, place.port, place.standing))).collect();
        assert_eq!((said, places.len()), (expected.clone(), expected.len()));
    }

    /// What the engine's commands and the state of things say about the network.
    pub(super) fn follow_network(&mut self, asked: bool, released: usize) {
        let before = std::mem::take(&mut self.network.net);
        self.network.net = match before {
            _ if self.account.is_none() || !self.network.is_wanted() => Net::Off,
            _ if matches!(self.network.wish, Some(Err(_))) => Net::Missing,
            Net::Off if asked => Net::Starting,
            Net::Off | Net::Starting | Net::Up(_) if released > 0 || before == Net::Off => {
                assert!(self.network.full, "the network was given up, and there was room for it");
                Net::Missing
            }
            before => before,
        };
        let may_ask = !matches!(self.network.net, Net::Off);
        assert!(may_ask || !asked, "nobody wants a network");
    }
}

/// Resources of each mode. Odd ports are those of unhealthy ones.
pub(super) fn shaped(n: u128, port: u16) -> ClientResource {
    let mut shaped = resource(n, port);
    if port % 2 == 1 {
        shaped.health = Health::unhealthy("it does not answer");
    }
    let mode = [BindMode::Loopback, BindMode::Vnm, BindMode::Both][(n % 3) as usize];
    if mode.is_virtual() {
        let alone = mode == BindMode::Vnm && port == 2004;
        let [.., host] = n.to_be_bytes();
        shaped.bind = BindAddress {
            mode,
            ip: Ipv4Addr::new(100, 72, 1, host).into(),
            port: 5432,
            dns_name: Some(format!("r{n}.my-org").parse().unwrap()),
            loopback: (!alone).then_some(LoopbackAddress { ip: [127, 0, 0, 1].into(), port }),
        };
    }
    shaped
}

pub(super) fn wish(n: usize) -> Result<NetworkWish, String> {
    let zone = "my-org".parse().unwrap();
    match n {
        0 => Ok(NetworkWish { subnet: SUBNET.parse().unwrap(), ipv6: None, zone }),
        1 => Ok(NetworkWish { subnet: SUBNET.parse().unwrap(), ipv6: Some("fd00:72::".parse().unwrap()), zone }),
        2 => Ok(NetworkWish { subnet: "100.73.0.0/16".parse().unwrap(), ipv6: None, zone }),
        _ => Err("the organisation's virtual subnet cannot be used".to_owned()),
    }
}

pub(super) fn landscape(n: usize) -> Landscape {
    let taken: &[&str] = match n {
        0 => &[],
        1 => &["100.64.0.0/10"],
        _ => &["100.64.0.0/10", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
    };
    let interface = HostInterface { index: 9, name: "tailscale0".to_owned(), addresses: Vec::new() };
    let route =
        |net: &&str| HostRoute { destination: net.parse::<IpNet>().unwrap(), gateway: None, interface: Some(9) };
    Landscape { interfaces: vec![interface], routes: taken.iter().map(route).collect(), resolvers: Vec::new() }
}

pub(super) fn fault(n: usize) -> NetworkFault {
    [NetworkFault::NoService, NetworkFault::NotPermitted, NetworkFault::NoDevice, NetworkFault::Failed][n % 4]
}
