use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use postern_netstack::dns::{HostAddresses, Resolver, Transport};
use postern_proto::{bind::Cidr, name::HostPattern};
use tun_driver::{
    dns::DnsState,
    interface::{Interface, Pair},
};

use super::*;
use crate::engine::NetworkPlan;

fn id(n: u128) -> ResourceId {
    ResourceId::from_ulid(n.into())
}

fn place(n: u8, alias: &str) -> Place {
    Place {
        resource: id(n.into()),
        address: [100, 72, 1, n].into(),
        port: 5432,
        ports: "7000-7002".parse().unwrap(),
        alias: Some(alias.parse::<HostPattern>().unwrap()),
        standing: Standing::Open,
    }
}

fn places(all: Vec<Place>) -> Places {
    let subnet: Cidr = "100.72.0.0/16".parse().unwrap();
    Places {
        interface: Interface {
            index: 7,
            name: "postern0".to_owned(),
            slot: 0,
            subnet: "100.72.0.0/16".parse().unwrap(),
            addresses: Pair { device: [100, 72, 0, 1].into(), resolver: [100, 72, 0, 2].into() },
            ipv6: None,
            mtu: 1500,
            dns: DnsState::NoZones,
            second_lock: false,
        },
        plan: NetworkPlan {
            subnet,
            ipv6: None,
            zones: vec!["my-org".parse().unwrap(), "kafka.internal".parse().unwrap()],
            kept_out: Vec::new(),
        },
        moved_from: None,
        locked: false,
        places: all,
    }
}

fn destinations() -> HashMap<ResourceId, Arc<Destination>> {
    (1..9).map(|n| (id(n), Arc::new(Destination::new(id(n), Vec::new())))).collect()
}

fn meaning(directory: &Directory, to: &str) -> Option<(u128, u16, Option<String>)> {
    match directory.meaning(to.parse().unwrap()) {
        Meaning::Resource { destination, wanted } => {
            Some((destination.id.ulid().0, wanted.port, wanted.host.map(|host| host.to_string())))
        }
        Meaning::Resolver | Meaning::Nothing => None,
    }
}

/// What the resolver says to a question for a name's IPv4 addresses.
fn asked(directory: &Directory, name: &str) -> (ResponseCode, Vec<Ipv4Addr>) {
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let mut hosts = HostAddresses::new("100.72.0.0/16".parse().unwrap());
    let mut answer = Vec::new();
    let resolver = Resolver::new(Arc::clone(&directory.names));
    resolver.answer(Transport::Udp, &question.to_vec().unwrap(), &mut hosts, &mut answer);
    let answer = Message::from_vec(&answer).unwrap();
    let data = answer.answers.iter().map(|record| &record.data);
    let addresses = data.filter_map(|data| if let RData::A(ip) = data { Some(ip.0) } else { None });
    (answer.metadata.response_code, addresses.collect())
}

#[test]
fn each_port_of_a_place_means_its_resource_and_others_mean_nothing() {
    let directory = Directory::new(&places(vec![place(1, "db.my-org")]), &destinations(), &[], 1).unwrap();
    assert_eq!(meaning(&directory, "100.72.1.1:5432"), Some((1, 0, None)));
    assert_eq!(meaning(&directory, "100.72.1.1:7002"), Some((1, 7002, None)));
    assert_eq!(meaning(&directory, "100.72.1.1:7003"), None);
    assert_eq!(meaning(&directory, "100.72.1.2:5432"), None);
    assert!(matches!(directory.meaning("100.72.0.2:53".parse().unwrap()), Meaning::Resolver));
    assert!(matches!(directory.meaning("100.72.0.2:54".parse().unwrap()), Meaning::Nothing));
}

#[test]
fn hosts_under_wildcards_mean_the_closest_resource_and_themselves() {
    let all = vec![place(1, "*.kafka.internal"), place(2, "*.eu.kafka.internal")];
    let hosts = [("b1.kafka.internal", 0x8001), ("b1.eu.kafka.internal", 0x8002), ("b1.elsewhere.example", 0x8003)];
    let hosts = hosts.map(|(host, part)| HostRecord { host: host.to_owned(), part: HostPart(part), reached: false });
    let directory = Directory::new(&places(all), &destinations(), &hosts, 1).unwrap();
    assert_eq!(meaning(&directory, "100.72.128.1:5432"), Some((1, 0, Some("b1.kafka.internal".to_owned()))));
    assert_eq!(meaning(&directory, "100.72.128.2:7000"), Some((2, 7000, Some("b1.eu.kafka.internal".to_owned()))));
    assert_eq!(meaning(&directory, "100.72.128.3:5432"), None);
}

#[test]
fn resources_that_share_an_address_are_told_apart_by_their_ports() {
    let second = Place { resource: id(2), port: 22, ports: PortSet::default(), ..place(1, "shell.my-org") };
    let mut third = Place { resource: id(3), port: 80, ports: PortSet::default(), ..place(1, "off.my-org") };
    third.standing = Standing::Disconnected;
    let all = vec![place(1, "db.my-org"), second, third];
    let directory = Directory::new(&places(all), &destinations(), &[], 1).unwrap();
    assert_eq!(meaning(&directory, "100.72.1.1:5432"), Some((1, 0, None)));
    assert_eq!(meaning(&directory, "100.72.1.1:7001"), Some((1, 7001, None)));
    assert_eq!(meaning(&directory, "100.72.1.1:22"), Some((2, 0, None)));
    assert_eq!(meaning(&directory, "100.72.1.1:80"), None);
    let address = &directory.addresses.addresses[&IpAddr::from([100, 72, 1, 1])];
    assert_eq!((address.ports.clone(), address.reachable), (vec![5432..=5432, 7000..=7002, 22..=22], true));
    for name in ["db.my-org", "shell.my-org"] {
        assert_eq!(asked(&directory, name), (ResponseCode::NoError, vec![Ipv4Addr::new(100, 72, 1, 1)]), "{name}");
    }
}

#[test]
fn a_name_in_none_of_the_zones_is_left_out_and_takes_nothing_with_it() {
    let all = vec![place(1, "db.elsewhere.example"), place(2, "*.far.example"), place(3, "db.my-org")];
    let directory = Directory::new(&places(all), &destinations(), &[], 1).unwrap();
    assert_eq!(meaning(&directory, "100.72.1.1:5432"), Some((1, 0, None)));
    assert_eq!(meaning(&directory, "100.72.1.3:5432"), Some((3, 0, None)));
    assert_eq!(asked(&directory, "db.elsewhere.example").0, ResponseCode::Refused);
    assert_eq!(asked(&directory, "db.my-org"), (ResponseCode::NoError, vec![Ipv4Addr::new(100, 72, 1, 3)]));
}

#[test]
fn of_two_that_have_one_name_the_first_is_answered_and_both_have_their_addresses() {
    let all = vec![place(1, "db.my-org"), place(2, "db.my-org"), place(3, "*.kafka.internal")];
    let directory = Directory::new(&places(all), &destinations(), &[], 1).unwrap();
    assert_eq!(asked(&directory, "db.my-org"), (ResponseCode::NoError, vec![Ipv4Addr::new(100, 72, 1, 1)]));
    assert_eq!(meaning(&directory, "100.72.1.2:5432"), Some((2, 0, None)));
}

#[test]
fn what_is_disconnected_or_locked_has_no_port() {
    let mut off = place(1, "db.my-org");
    off.standing = Standing::Disconnected;
    let directory = Directory::new(&places(vec![off, place(2, "b.my-org")]), &destinations(), &[], 1).unwrap();
    assert_eq!(meaning(&directory, "100.72.1.1:5432"), None);
    assert!(directory.addresses.addresses[&IpAddr::from([100, 72, 1, 1])].ports.is_empty());
    assert!(directory.still_means("100.72.1.2:5432".parse().unwrap(), id(2)));
    assert!(!directory.still_means("100.72.1.2:5432".parse().unwrap(), id(1)));
    let locked = Places { locked: true, ..places(vec![place(2, "b.my-org")]) };
    let directory = Directory::new(&locked, &destinations(), &[], 2).unwrap();
    assert_eq!(meaning(&directory, "100.72.1.2:5432"), None);
}

#[test]
fn a_published_directory_is_seen_by_whoever_looks_next() {
    let published = Published::new(Directory::new(&places(Vec::new()), &destinations(), &[], 1).unwrap());
    let before = published.version();
    published.publish(Directory::new(&places(vec![place(1, "db.my-org")]), &destinations(), &[], 2).unwrap());
    assert!(published.version() > before);
    assert_eq!(meaning(&published.get(), "100.72.1.1:5432"), Some((1, 0, None)));
}
