//! A client's copy of the service's status, kept up to date by events. Knows no socket and no clock.

use crate::message::{Event, Numbered, Status};

/// Why events cannot be applied: some are missing. Ask for a new stream; it begins with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    #[error("event {seq} came before any snapshot")]
    NoSnapshot { seq: u64 },
    #[error("event {seq} came where event {expected} was due")]
    Missing { seq: u64, expected: u64 },
}

/// Checks that the events of one stream begin with a snapshot and follow each other without gaps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequence {
    last: Option<u64>,
}

impl Sequence {
    pub fn check(&mut self, numbered: &Numbered) -> Result<(), Gap> {
        let seq = numbered.seq;
        match (self.last, &numbered.event) {
            (None, Event::Snapshot { .. }) => {}
            (None, _) => return Err(Gap::NoSnapshot { seq }),
            (Some(last), _) if seq == last.wrapping_add(1) => {}
            (Some(last), _) => return Err(Gap::Missing { seq, expected: last.wrapping_add(1) }),
        }
        self.last = Some(seq);
        Ok(())
    }
}

/// Brings `status` to where it is after `event`. `None` stands for "no snapshot yet"; events before one change nothing.
pub fn apply(status: &mut Option<Status>, event: Event) {
    match (event, status) {
        (Event::Snapshot { status: fresh }, status) => *status = Some(*fresh),
        (Event::Service { status: fresh }, Some(status)) => {
            let resources = std::mem::take(&mut status.resources);
            *status = Status { resources, ..*fresh };
        }
        (Event::ResourceChanged { resource }, Some(status)) => {
            let id = resource.resource.id;
            match status.resources.iter_mut().find(|known| known.resource.id == id) {
                Some(known) => *known = *resource,
                None => status.resources.push(*resource),
            }
            status.resources.sort_by(|a, b| a.resource.name.cmp(&b.resource.name));
        }
        (Event::ResourceRemoved { id }, Some(status)) => status.resources.retain(|known| known.resource.id != id),
        (Event::Notice { .. }, _) | (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use postern_proto::{
        id::ResourceId,
        resource::{BindAddress, ClientResource, Health, Kind, Tags},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::message::ResourceStatus;

    fn status(service: &str, resources: Vec<ResourceStatus>) -> Box<Status> {
        Box::new(Status { resources, ..Status::signed_out(service) })
    }

    fn id(n: u8) -> ResourceId {
        format!("res_01JABCDEFGHJKMNPQRSTVWXY{:02}", n % 100).parse().unwrap()
    }

    fn resource(n: u8, streams: u32) -> ResourceStatus {
        let resource = ClientResource {
            id: id(n),
            name: format!("r{n:03}"),
            kind: Kind::Tcp,
            tags: Tags::new(),
            bind: BindAddress::loopback([127, 0, 0, 1].into(), 1024),
            ports: postern_proto::port::PortSet::default(),
            revision: 1,
            via: Vec::new(),
            cluster: None,
            health: Health::Unknown,
        };
        ResourceStatus { streams, ..ResourceStatus::off(resource) }
    }

    #[test]
    fn the_first_event_must_be_a_snapshot() {
        let event = Event::ResourceRemoved { id: id(1) };
        assert_eq!(Sequence::default().check(&Numbered { seq: 4, event }), Err(Gap::NoSnapshot { seq: 4 }));
    }

    #[test]
    fn news_of_the_service_leaves_the_resources_alone() {
        let mut copy = None;
        apply(&mut copy, Event::Snapshot { status: status("1", vec![resource(1, 0)]) });
        apply(&mut copy, Event::Service { status: status("2", Vec::new()) });
        assert_eq!(copy, Some(*status("2", vec![resource(1, 0)])));
    }

    proptest! {
        #[test]
        fn a_copy_holds_what_the_service_holds(changes in prop::collection::vec((0_u8..20, prop::option::of(0_u32..9)), 0..60)) {
            let mut truth = BTreeMap::new();
            let mut copy = None;
            apply(&mut copy, Event::Snapshot { status: status("1", Vec::new()) });
            for (n, change) in changes {
                match change {
                    Some(streams) => {
                        truth.insert(n, resource(n, streams));
                        apply(&mut copy, Event::ResourceChanged { resource: Box::new(resource(n, streams)) });
                    }
                    None => {
                        truth.remove(&n);
                        apply(&mut copy, Event::ResourceRemoved { id: id(n) });
                    }
                }
            }
            prop_assert_eq!(copy, Some(*status("1", truth.into_values().collect())));
        }
    }
}
