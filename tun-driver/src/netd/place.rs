//! Which of the addresses that a subnet keeps for users is whose. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::interface::{Ipv6Part, MAX_SLOTS, Pair, ipv4_addresses, ipv6_addresses};

/// The addresses of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: u8,
    pub(crate) subnet: Ipv4Net,
    pub(crate) ipv4: Pair<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Part>,
}

impl Place {
    /// The first slot whose addresses nobody among `others` has; `wish` comes before all others.
    pub(crate) fn find(subnet: Ipv4Net, ipv6: Option<Ipv6Net>, wish: Option<u8>, others: &[Self]) -> Option<Self> {
        let slots = wish.into_iter().chain(0..MAX_SLOTS);
        slots
            .filter_map(|slot| Some(Self::at(subnet, ipv6, slot, ipv4_addresses(subnet, slot)?)))
            .find(|place| others.iter().all(|other| place.addresses().is_disjoint(&other.addresses())))
    }

    fn at(subnet: Ipv4Net, ipv6: Option<Ipv6Net>, slot: u8, ipv4: Pair<Ipv4Addr>) -> Self {
        let ipv6 = ipv6.map(|network| Ipv6Part { network, addresses: ipv6_addresses(network, slot) });
        Self { slot, subnet, ipv4, ipv6 }
    }

    fn addresses(&self) -> BTreeSet<IpAddr> {
        let ipv6 = self.ipv6.map(|part| [part.addresses.device.into(), part.addresses.resolver.into()]);
        [self.ipv4.device.into(), self.ipv4.resolver.into()].into_iter().chain(ipv6.into_iter().flatten()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> Ipv4Net {
        "100.72.0.0/16".parse().unwrap()
    }

    fn ula() -> Ipv6Net {
        "fd12:3456:789a::/48".parse().unwrap()
    }

    #[test]
    fn users_with_the_same_subnet_get_addresses_of_their_own() {
        let mut places = Vec::new();
        while let Some(place) = Place::find(subnet(), Some(ula()), None, &places) {
            places.push(place);
        }
        assert_eq!(places.len(), usize::from(MAX_SLOTS));
        assert_eq!(places.iter().flat_map(Place::addresses).collect::<BTreeSet<_>>().len(), places.len() * 4);
    }

    #[test]
    fn a_shared_ipv6_network_keeps_users_of_different_subnets_apart() {
        let first = Place::find(subnet(), Some(ula()), None, &[]).unwrap();
        let second = Place::find("10.1.0.0/16".parse().unwrap(), Some(ula()), None, &[first]).unwrap();
        assert_eq!((first.slot, second.slot), (0, 1));
        let third = Place::find("10.2.0.0/16".parse().unwrap(), None, None, &[first, second]).unwrap();
        assert_eq!(third.slot, 0);
    }

    #[test]
    fn a_user_keeps_the_slot_while_it_is_free() {
        let first = Place::find(subnet(), None, Some(5), &[]).unwrap();
        assert_eq!(first.slot, 5);
        assert_eq!(Place::find(subnet(), None, Some(5), &[first]).unwrap().slot, 0);
        assert_eq!(Place::find("10.0.0.0/24".parse().unwrap(), None, Some(5), &[]).unwrap().slot, 0);
    }
}
