use std::sync::Arc;

use postern_proto::{
    id::{OrgId, ResourceId},
    resource::{BindAddress, Kind, Tags},
    sync::NetworkSettings,
    time::UnixMillis,
};
use ulid::Ulid;

use super::*;
use crate::catalogue::Org;

fn id(n: u128) -> NodeId {
    NodeId::from_ulid(Ulid(n))
}

fn node(n: u128, kind: NodeKind, group: &str, site: &str) -> Node {
    Node {
        id: id(n),
        name: format!("n{n}"),
        kind,
        group: group.to_owned(),
        tags: Tags::from([("site".to_owned(), site.to_owned())]),
        advertise: None,
        spki_sha256: None,
        enrolled_at: Some(UnixMillis(1)),
        drain_ends_at: None,
        planned_drain: None,
        cluster: None,
        access_key: None,
        created_at: UnixMillis(0),
        revision: 1,
    }
}

fn resource(egress: Option<&str>) -> Resource {
    Resource {
        id: ResourceId::from_ulid(Ulid(9)),
        name: "db".to_owned(),
        kind: Kind::Tcp,
        host: "db".to_owned(),
        port: 1,
        ports: postern_proto::port::PortSet::default(),
        hosts: Vec::new(),
        tags: Tags::new(),
        bind: BindAddress::loopback([127, 0, 0, 1].into(), 1),
        allow_local: false,
        strict: false,
        egress: egress.map(ToOwned::to_owned),
        cluster: None,
        created_at: UnixMillis(0),
        revision: 1,
    }
}

/// Gateways 1 (fra) and 3 (ams), relays 2 (fra) and 4 (group "far").
fn catalogue() -> Catalogue {
    let org = Org { id: OrgId::from_ulid(Ulid(1)), name: String::new(), epoch: String::new() };
    let mut catalogue = Catalogue::empty(org, 1, NetworkSettings::default());
    let nodes = [
        node(1, NodeKind::Gateway, "", "fra"),
        node(2, NodeKind::Relay, "", "fra"),
        node(3, NodeKind::Gateway, "", "ams"),
        node(4, NodeKind::Relay, "far", "ams"),
        Node { enrolled_at: None, ..node(5, NodeKind::Relay, "", "fra") },
    ];
    catalogue.nodes = nodes.into_iter().map(|node| (node.id, Arc::new(node))).collect();
    catalogue
}

#[test]
fn an_egress_filter_names_nodes_by_kind_name_group_and_tags_gateways_first() {
    let catalogue = catalogue();
    let egress = |filter| catalogue.egress(&resource(Some(filter))).unwrap();
    assert_eq!(egress("kind:relay"), [id(2), id(4)]);
    assert_eq!(egress("tags:site=fra"), [id(1), id(2)]);
    assert_eq!(egress("group:far"), [id(4)]);
    assert_eq!(egress("name:n3"), [id(3)]);
    assert_eq!(egress("name:n5"), [], "it has not enrolled");
    assert_eq!(egress("colour:red"), [], "what cannot be read lets nobody");
    assert_eq!(catalogue.egress(&resource(None)), None);
}

#[test]
fn a_relay_is_the_way_to_what_no_gateway_reaches() {
    let catalogue = catalogue();
    let via = |reports: &[(u128, bool)]| {
        let reports = reports.iter().map(|(node, reaches)| (id(*node), *reaches)).collect();
        catalogue.via(&resource(None), &reports)
    };
    assert_eq!(via(&[]), []);
    assert_eq!(via(&[(1, true), (3, true), (2, true)]), [], "any gateway");
    assert_eq!(via(&[(1, true), (3, false), (2, true)]), [id(1)]);
    assert_eq!(via(&[(1, true)]), [], "a gateway that has said nothing is as good as another");
    assert_eq!(via(&[(1, false), (3, false), (2, true)]), [id(2)]);
    assert_eq!(via(&[(1, false), (3, false), (2, false)]), []);
}

#[test]
fn a_prescribed_node_that_fails_is_left_out_while_another_reaches_the_resource() {
    let catalogue = catalogue();
    let bound = resource(Some("kind:relay"));
    let via = |reports: &[(u128, bool)]| {
        let reports = reports.iter().map(|(node, reaches)| (id(*node), *reaches)).collect();
        catalogue.via(&bound, &reports)
    };
    assert_eq!(via(&[]), [id(2), id(4)]);
    assert_eq!(via(&[(2, true), (4, false), (1, true)]), [id(2)]);
    assert_eq!(via(&[(2, false), (4, false)]), [id(2), id(4)]);
}

#[test]
fn relays_and_gateways_of_one_group_are_neighbours() {
    let catalogue = catalogue();
    let neighbours = |n| catalogue.neighbours(&catalogue.nodes[&id(n)]);
    assert_eq!(neighbours(1), [id(2)]);
    assert_eq!(neighbours(2), [id(1), id(3)]);
    assert_eq!(neighbours(4), []);
}
