//! Brings resources that an older version bound to the rules of this one.
//!
//! Before there was a virtual network, its resources had addresses that nothing answered at, often no name, and no
//! loopback address. So what is missing is assigned, and an address in a part of the subnet that is no longer given to
//! resources (the beginning, which devices have, or the upper half, which is for hosts under wildcard aliases) is
//! exchanged. Nobody could have used it.

use std::sync::Arc;

use postern_proto::{
    bind::{self, Asker, Network, Wish, check_covers},
    name::DnsName,
    resource::BindAddress,
};

use crate::{
    catalogue::{Catalogue, Resource},
    store::{Actor, Store, StoreError},
};

/// Completes every resource in the virtual network; `names` are the control plane's. A resource for which there is no
/// place stays as it is, with a warning.
pub async fn run(store: &Store, names: &[DnsName]) -> Result<(), StoreError> {
    let catalogue = store.catalogue();
    let Ok(network) = Network::read(&catalogue.settings) else { return Ok(()) };
    if let Err(rule) = check_covers(&network.dns_zone, &catalogue.own_names(names)) {
        tracing::warn!(zone = %network.dns_zone, "the organisation's zone {rule}; change dns_zone");
    }
    if !catalogue.resources.values().any(|resource| is_unfinished(resource, &network)) {
        return Ok(());
    }
    let mut change = store.change(Actor::system()).await?;
    let unfinished: Vec<Arc<Resource>> =
        change.catalogue().resources.values().filter(|resource| is_unfinished(resource, &network)).cloned().collect();
    for resource in unfinished {
        match complete(change.catalogue(), &resource, &network, names) {
            Ok(bind) => {
                tracing::info!(resource = %resource.name, address = %bind.ip, "brought to the rules of this version");
                change.put(Resource { bind, ..Resource::clone(&resource) }).await?;
            }
            Err(why) => tracing::warn!(resource = %resource.name, "has no place in the virtual network: {why}"),
        }
    }
    change.commit().await.map(drop)
}

fn is_unfinished(resource: &Resource, network: &Network) -> bool {
    let bind = &resource.bind;
    bind.mode.is_virtual() && (bind.loopback.is_none() || bind.dns_name.is_none() || misplaced(bind, network))
}

fn misplaced(bind: &BindAddress, network: &Network) -> bool {
    network.misfits(bind).iter().any(|(setting, ..)| *setting == "vnm_subnet")
}

fn complete(
    catalogue: &Catalogue,
    resource: &Resource,
    network: &Network,
    names: &[DnsName],
) -> Result<BindAddress, String> {
    let own_names = catalogue.own_names(names);
    let taken = catalogue.taken(resource.id, &own_names);
    let asker = Asker { name: &resource.name, port: resource.port, ports: &resource.ports };
    let mut wish = Wish::keep(&resource.bind);
    if misplaced(&resource.bind, network) {
        wish.ip = None;
    }
    let assigned = bind::assign(&wish, &asker, network, &taken).or_else(|broken| {
        // A name that was allowed once and is no longer.
        let wish = match broken.iter().any(|broken| broken.field == "bind.dns_name") {
            true => Wish { dns_name: None, ..wish },
            false => return Err(broken),
        };
        bind::assign(&wish, &asker, network, &taken)
    });
    assigned.map_err(|broken| {
        let rules = broken.iter().map(|broken| format!("{} {}", broken.field, broken.rule));
        rules.collect::<Vec<_>>().join("; ")
    })
}
