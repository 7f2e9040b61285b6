//! What the local API asks of the shell.

use std::collections::BTreeSet;

use postern_local_api::message::{ChangeReport, KeyPlace, NetworkStatus, PortOverride, ResourceStatus, Selection};
use postern_proto::{filter::Filter, id::ResourceId, problem::Problem, resource::ClientResource};
use tokio::sync::{mpsc, oneshot};

use crate::sign_in::SignedIn;

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// See the module.
#[derive(Debug)]
pub enum Request {
    /// Becomes this account from now on. `unlock`: a person has proved to be it.
    Adopt {
        signed_in: Box<SignedIn>,
        unlock: bool,
        reply: Reply<()>,
    },
    SignOut {
        reply: Reply<()>,
    },
    Lock {
        reply: Reply<()>,
    },
    Choose {
        selection: Selection,
        connected: bool,
        reply: Reply<ChangeReport>,
    },
    /// Another port for the address that a resource has; answered when it is known whether it could be taken.
    ChoosePort {
        wish: PortOverride,
        reply: Reply<ResourceStatus>,
    },
    /// Keeps the device key and the sign-in there.
    KeepKeys {
        place: KeyPlace,
        reply: Reply<()>,
    },
    /// Switches the virtual network on or off; answered when it is known what came of it.
    SetNetwork {
        enabled: bool,
        reply: Reply<NetworkStatus>,
    },
    /// Brings the board up to date.
    /// Tries to reach the control plane now, not when the next try is due.
    RetryControl {
        reply: Reply<()>,
    },
    Refresh {
        reply: Reply<()>,
    },
    /// The account has a new password: it need not change it any more.
    PasswordChanged {
        reply: Reply<()>,
    },
}

/// Asks, and waits for the answer.
///
/// # Errors
/// What the shell says, or that the service stops.
pub async fn ask<T>(requests: &mpsc::Sender<Request>, make: impl FnOnce(Reply<T>) -> Request) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    requests.send(make(reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?
}

pub(crate) fn stopping() -> Problem {
    Problem::new(503, "stopping", "posternd is stopping")
}

/// The resources that a selection means.
///
/// # Errors
/// A name or filter that means none, or is no filter.
pub fn select<'a>(
    selection: &Selection,
    resources: impl Iterator<Item = &'a ClientResource>,
) -> Result<BTreeSet<ResourceId>, Problem> {
    match selection {
        Selection::All => Ok(resources.map(|resource| resource.id).collect()),
        Selection::Name { name } => by_name(name, resources),
        Selection::Filter { filter } => {
            let parsed = Filter::parse(filter, ClientResource::FILTER_FIELDS).map_err(|error| {
                Problem::new(422, "bad_filter", "The filter cannot be read").with_detail(error.to_string())
            })?;
            let matching: BTreeSet<_> =
                resources.filter(|resource| parsed.matches(*resource)).map(|resource| resource.id).collect();
            if matching.is_empty() {
                return Err(Problem::new(404, "nothing_matches", "No resource matches the filter")
                    .with_detail(format!("Nothing that you may reach matches {filter:?}; see postern resources.")));
            }
            Ok(matching)
        }
        Selection::Ids { ids } => by_ids(ids, resources),
    }
}

/// Each of them, or none.
fn by_ids<'a>(
    ids: &[ResourceId],
    resources: impl Iterator<Item = &'a ClientResource>,
) -> Result<BTreeSet<ResourceId>, Problem> {
    let mut missing: BTreeSet<_> = ids.iter().copied().collect();
    let wanted = missing.clone();
    resources.for_each(|resource| {
        missing.remove(&resource.id);
    });
    match missing.first() {
        None => Ok(wanted),
        Some(id) => Err(Problem::new(404, "no_such_resource", "There is no such resource")
            .with_detail(format!("You may not reach {id}, or not any more; nothing was changed."))),
    }
}

/// By name as it is written, else in any case, else by id.
fn by_name<'a>(
    name: &str,
    resources: impl Iterator<Item = &'a ClientResource>,
) -> Result<BTreeSet<ResourceId>, Problem> {
    let mut loose = BTreeSet::new();
    for resource in resources {
        if resource.name == name || resource.id.to_string() == name {
            return Ok(BTreeSet::from([resource.id]));
        }
        if resource.name.to_lowercase() == name.to_lowercase() {
            loose.insert(resource.id);
        }
    }
    match loose.len() {
        1 => Ok(loose),
        0 => Err(Problem::new(404, "no_such_resource", "There is no such resource")
            .with_detail(format!("You may reach nothing that is called {name:?}; see postern resources."))),
        _ => Err(Problem::new(409, "ambiguous_name", "The name means several resources")
            .with_detail(format!("Write {name:?} in the case that the resource's name has."))),
    }
}

#[cfg(test)]
mod tests {
    use postern_proto::resource::{BindAddress, Health, Kind, Tags};

    use super::*;

    fn resource(n: u128, name: &str) -> ClientResource {
        ClientResource {
            id: ResourceId::from_ulid(n.into()),
            name: name.to_owned(),
            kind: Kind::Tcp,
            tags: Tags::from([("env".to_owned(), "prod".to_owned())]),
            bind: BindAddress::loopback([127, 0, 0, 1].into(), 1024),
            ports: postern_proto::port::PortSet::default(),
            revision: 1,
            via: Vec::new(),
            cluster: None,
            health: Health::Unknown,
        }
    }

    fn picked(selection: &Selection) -> Result<Vec<u128>, String> {
        let all = [resource(1, "pay"), resource(2, "Pay"), resource(3, "Orders db")];
        let ids = select(selection, all.iter()).map_err(|problem| problem.code)?;
        Ok(ids.into_iter().map(|id| id.ulid().0).collect())
    }

    fn by_name(name: &str) -> Result<Vec<u128>, String> {
        picked(&Selection::Name { name: name.to_owned() })
    }

    #[test]
    fn a_name_means_one_resource() {
        assert_eq!(by_name("pay").unwrap(), [1]);
        assert_eq!(by_name("Pay").unwrap(), [2]);
        assert_eq!(by_name("orders DB").unwrap(), [3]);
        assert_eq!(by_name(&ResourceId::from_ulid(3.into()).to_string()).unwrap(), [3]);
        assert_eq!(by_name("PAY").unwrap_err(), "ambiguous_name");
        assert_eq!(by_name("nothing").unwrap_err(), "no_such_resource");
    }

    #[test]
    fn filters_pick_what_matches_and_say_when_nothing_does() {
        let filter = |text: &str| picked(&Selection::Filter { filter: text.to_owned() });
        assert_eq!(filter("tags:env=prod name:p*").unwrap(), [1, 2]);
        assert_eq!(filter("tags:env=test").unwrap_err(), "nothing_matches");
        assert_eq!(filter("nonsense:1").unwrap_err(), "bad_filter");
        assert_eq!(picked(&Selection::All).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn ids_pick_exactly_those_and_an_unknown_one_picks_nothing() {
        let ids = |ids: &[u128]| ids.iter().map(|id| ResourceId::from_ulid((*id).into())).collect();
        assert_eq!(picked(&Selection::Ids { ids: ids(&[3, 1, 3]) }).unwrap(), [1, 3]);
        assert_eq!(picked(&Selection::Ids { ids: ids(&[1, 9]) }).unwrap_err(), "no_such_resource");
        assert!(picked(&Selection::Ids { ids: Vec::new() }).unwrap().is_empty());
    }
}
