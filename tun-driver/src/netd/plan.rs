//! What one user's virtual network needs from the kernel, as values: addresses, routes and rules. Pure.
//!
//! The shape was found by trying what breaks simpler ones (each is a test of `vnm_isolation`):
//! - Routes lie in tables of their own, which only a rule for the user's uid leads to. The device has a /32 (/128)
//!   address, because a wider one would put a route for everybody into `main`.
//! - The kernel's own packets (resets for sockets that are gone, the look-up behind `rp_filter`) are uid 0's: a rule for
//!   the device's address leads these to the same table.
//! - The resolver's address is everybody's, because the system's resolver asks it for the user. Its route has a table of
//!   its own: in `main` it would fall back to the default route when the device goes.
//! - Everybody else is told "unreachable" at once, instead of following the default route.
//! - Streams that were open when the network moved go on: what is bound to the address that the device had still finds
//!   its way, by rules that name this source. What begins anew is bound to nothing yet, and goes to whoever has these
//!   addresses now.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::place::Place;
use crate::interface::Pair;

/// The mark that all our rules and routes bear: a protocol number that nothing else is known to use.
pub(crate) const PROTOCOL_MARK: u8 = 80;
/// Priorities of our rules: before `main`, and ours alone together with the mark.
pub(crate) const RULE_PRIORITIES: std::ops::RangeInclusive<u32> = 900..=1999;
const RESOLVER_RULE: u32 = 900;
const USER_RULE: u32 = 1000;
const KERNEL_RULE: u32 = 1100;
const UNREACHABLE_RULE: u32 = 1999;
/// Our routing tables begin here, two for each lane; far from the small numbers that people and programs choose.
const FIRST_TABLE: u32 = 0x504F_0000;
/// Users at once.
pub(crate) const LANES: u8 = 128;

/// A user's number among those that are served now: names the routing tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane(pub(crate) u8);

impl Lane {
    pub(crate) fn user_table(self) -> u32 {
        FIRST_TABLE + 2 * u32::from(self.0)
    }

    pub(crate) fn resolver_table(self) -> u32 {
        self.user_table() + 1
    }
}

/// Whether a table is one of ours.
pub(crate) fn is_our_table(table: u32) -> bool {
    (FIRST_TABLE..FIRST_TABLE + 2 * u32::from(LANES)).contains(&table)
}

/// A rule, bearing our mark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    pub(crate) priority: u32,
    pub(crate) from: Option<IpAddr>,
    pub(crate) to: IpNet,
    pub(crate) uid: Option<u32>,
    /// Where to look up; nowhere is "unreachable".
    pub(crate) table: Option<u32>,
}

/// A route to the device, bearing our mark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) table: u32,
    pub(crate) to: IpNet,
    pub(crate) source: IpAddr,
}

/// Everything that one user's network needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The device's own, each the only one of its network.
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) routes: BTreeSet<Route>,
    pub(crate) rules: BTreeSet<Rule>,
}

impl Place {
    /// Whether streams of this network can go on beside one at `other`.
    pub(crate) fn is_apart_from(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.subnet.trunc(), other.subnet.trunc());
        !ours.contains(&theirs) && !theirs.contains(&ours)
    }

    /// What streams from before a move need: of IPv4, since IPv6 does not move.
    pub(crate) fn farewell(&self, lane: Lane, uid: u32) -> Plan {
        let (device, to) = (IpAddr::V4(self.ipv4.device), IpNet::V4(self.subnet.trunc()));
        let (from, user) = (Some(device), Some(lane.user_table()));
        Plan {
            addresses: BTreeSet::from([device]),
            routes: BTreeSet::from([Route { table: lane.user_table(), to, source: device }]),
            rules: BTreeSet::from([
                Rule { priority: USER_RULE, from, to, uid: Some(uid), table: user },
                Rule { priority: KERNEL_RULE, from, to, uid: Some(0), table: user },
                Rule { priority: UNREACHABLE_RULE, from, to, uid: None, table: None },
            ]),
        }
    }

    /// What the kernel must know for the user `uid` in `lane`.
    pub(crate) fn plan(&self, lane: Lane, uid: u32) -> Plan {
        let mut plan = Plan::default();
        let ipv4 = Pair { device: self.ipv4.device.into(), resolver: self.ipv4.resolver.into() };
        plan.add(IpNet::V4(self.subnet.trunc()), ipv4, lane, uid);
        if let Some(part) = self.ipv6 {
            let pair = Pair { device: part.addresses.device.into(), resolver: part.addresses.resolver.into() };
            plan.add(IpNet::V6(part.network.trunc()), pair, lane, uid);
        }
        plan
    }
}

impl Plan {
    /// Both at once.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.addresses.extend(other.addresses);
        self.routes.extend(other.routes);
        self.rules.extend(other.rules);
        self
    }

    fn add(&mut self, network: IpNet, addresses: Pair<IpAddr>, lane: Lane, uid: u32) {
        let Pair { device, resolver } = addresses;
        let resolver = IpNet::from(resolver);
        let (user, names) = (Some(lane.user_table()), Some(lane.resolver_table()));
        self.addresses.insert(device);
        self.routes.insert(Route { table: lane.user_table(), to: network, source: device });
        self.routes.insert(Route { table: lane.resolver_table(), to: resolver, source: device });
        self.rules.extend([
            Rule { priority: RESOLVER_RULE, from: None, to: resolver, uid: None, table: names },
            Rule { priority: USER_RULE, from: None, to: network, uid: Some(uid), table: user },
            Rule { priority: KERNEL_RULE, from: Some(device), to: network, uid: Some(0), table: user },
            Rule { priority: UNREACHABLE_RULE, from: None, to: network, uid: None, table: None },
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_network_that_moved_concerns_nothing_that_begins_anew() {
        let place = |subnet: &str| Place::find(subnet.parse().unwrap(), None, None, &[]).unwrap();
        let (old, new) = (place("100.72.0.0/16"), place("10.80.0.0/16"));
        assert!(old.is_apart_from(&new) && !old.is_apart_from(&place("100.72.5.0/24")) && !old.is_apart_from(&old));
        let left = old.farewell(Lane(3), 1000);
        assert!(left.rules.iter().all(|rule| rule.from == Some(IpAddr::V4(old.ipv4.device))));
        let both = new.plan(Lane(3), 1000).with(left);
        assert_eq!((both.addresses.len(), both.routes.len(), both.rules.len()), (2, 3, 7));
    }

    #[test]
    fn every_rule_lies_in_our_range_and_leads_to_our_tables() {
        let (subnet, ula) = ("100.72.0.0/16".parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap());
        let place = Place::find(subnet, Some(ula), None, &[]).unwrap();
        for lane in [0, LANES - 1] {
            let plan = place.plan(Lane(lane), 1000);
            assert_eq!((plan.addresses.len(), plan.routes.len(), plan.rules.len()), (2, 4, 8));
            assert!(plan.rules.iter().all(|rule| RULE_PRIORITIES.contains(&rule.priority)));
            assert!(plan.rules.iter().filter_map(|rule| rule.table).all(is_our_table));
            assert!(plan.routes.iter().all(|route| is_our_table(route.table)));
        }
    }
}
