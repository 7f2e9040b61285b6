//! The names of the model: what the resolver should answer, written down a second time in a few lines, and what it did.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use postern_netstack::{
    Address, AddressTable,
    dns::{
        Contents, HostAddresses, HostPart, Known, NEGATIVE_TTL, Outcome, Range, Resolver, TTL, Table, Transport,
        Wildcard,
    },
};
use proptest::prelude::*;

/// Names of resources.
pub(super) const ALIASES: usize = 4;
/// Hosts below the wildcard alias of one more resource.
const HOSTS: usize = 3;
pub(super) const NAMES: usize = ALIASES + HOSTS;
pub(super) const GRANTS: usize = ALIASES + 1;
/// Networks that ours may move to and back.
pub(super) const NETWORKS: u8 = 3;

const NETWORK6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x72, 0, 0, 0, 0, 0, 0);
const ZONE: &str = "my-org";
const WILDCARD: &str = "kafka.internal";

/// The grant by which a name is reached.
pub(super) fn grant(name: usize) -> usize {
    name.min(ALIASES)
}

fn text(name: usize) -> String {
    if name < ALIASES { format!("r{name}.{ZONE}") } else { format!("h{name}.{WILDCARD}") }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    Name {
        name: usize,
        kind: RecordType,
    },
    /// The name of the address that a name has.
    Reverse {
        name: usize,
        six: bool,
    },
    /// A name in our zone that nobody has.
    Nobody,
    /// A name of the control plane, in our zone.
    Own,
    Elsewhere,
}

pub(super) fn question() -> impl Strategy<Value = Question> {
    let kind = prop::sample::select(vec![RecordType::A, RecordType::A, RecordType::AAAA, RecordType::HTTPS]);
    prop_oneof![
        8 => (0..NAMES, kind).prop_map(|(name, kind)| Question::Name { name, kind }),
        3 => (0..NAMES, any::<bool>()).prop_map(|(name, six)| Question::Reverse { name, six }),
        1 => Just(Question::Nobody),
        1 => Just(Question::Own),
        1 => Just(Question::Elsewhere),
    ]
}

/// What a question must be answered with, as of when it reaches the resolver.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Nothing(ResponseCode),
    /// Its one address of this family, in this network.
    Address {
        name: usize,
        six: bool,
        network: u8,
    },
    Pointer(usize),
}

/// A question as it was sent: those for the name of an address keep that address, whatever happens until they arrive.
#[derive(Clone, Copy, Debug)]
struct Asked {
    question: Question,
    part: u32,
    network: u8,
}

/// The resolver and its reference.
pub(super) struct Names {
    granted: BTreeSet<usize>,
    network: u8,
    ipv6: bool,
    resolver: Resolver,
    hosts: HostAddresses,
    serial: u32,
    asked: BTreeMap<u16, Asked>,
    expected: BTreeMap<u16, Expected>,
    /// Every address that anybody was ever told of, with its name.
    told: BTreeMap<IpAddr, String>,
    /// The host parts of hosts below the wildcard.
    parts: BTreeMap<usize, u32>,
    /// What programs know: the address that was told of last.
    learned: BTreeMap<usize, IpAddr>,
    pub(super) answered: usize,
}

impl Names {
    pub(super) fn new(ipv6: bool) -> Self {
        let mut names = Self {
            granted: BTreeSet::new(),
            network: 0,
            ipv6,
            resolver: Resolver::new(Arc::new(Table::new(contents(0, ipv6, 0, &BTreeSet::new())).unwrap())),
            hosts: HostAddresses::new(subnet(0).parse().unwrap()),
            serial: 0,
            asked: BTreeMap::new(),
            expected: BTreeMap::new(),
            told: BTreeMap::new(),
            parts: BTreeMap::new(),
            learned: BTreeMap::new(),
            answered: 0,
        };
        names.refresh();
        names
    }

    pub(super) fn set_granted(&mut self, grant: usize, granted: bool) {
        if granted {
            self.granted.insert(grant)
        } else {
            self.granted.remove(&grant)
        };
        self.refresh();
    }

    pub(super) fn is_granted(&self, name: usize) -> bool {
        self.granted.contains(&grant(name))
    }

    pub(super) fn move_to(&mut self, network: u8) {
        self.network = network;
        self.refresh();
    }

    /// The process ends and starts again: what it knows is what it wrote down.
    pub(super) fn restart(&mut self) {
        let records = self.hosts.export();
        self.hosts = HostAddresses::new(subnet(self.network).parse().unwrap());
        assert_eq!(self.hosts.import(records), 0);
        self.refresh();
    }

    fn refresh(&mut self) {
        self.serial += 1;
        let contents = contents(self.network, self.ipv6, self.serial, &self.granted);
        self.resolver.set_table(Arc::new(Table::new(contents).unwrap()));
    }

    pub(super) fn resolver(&self) -> SocketAddr {
        SocketAddr::new(v4(self.network, 2).into(), 53)
    }

    /// What exists now, for the stack.
    pub(super) fn addresses(&self) -> AddressTable {
        let resource = Address { ports: vec![80..=80], reachable: true };
        let granted = (0..NAMES).filter(|name| self.is_granted(*name)).filter_map(|name| self.part(name));
        AddressTable {
            networks: vec![(v4(self.network, 0).into(), 16), (NETWORK6.into(), 48)],
            device: Vec::new(),
            resolvers: vec![self.resolver()],
            addresses: granted.flat_map(|part| self.both(part)).map(|ip| (ip, resource.clone())).collect(),
        }
    }

    /// The granted name that has an address now.
    pub(super) fn owner(&self, ip: IpAddr) -> Option<usize> {
        let has = |name: usize| self.part(name).is_some_and(|part| self.both(part).any(|own| own == ip));
        (0..NAMES).find(|name| self.is_granted(*name) && has(*name))
    }

    /// Where a program that wants to reach a name goes.
    pub(super) fn known(&self, name: usize) -> Option<IpAddr> {
        self.learned.get(&name).copied().or_else(|| (name < ALIASES).then(|| v4(self.network, fixed(name)).into()))
    }

    fn part(&self, name: usize) -> Option<u32> {
        if name < ALIASES { Some(fixed(name)) } else { self.hosts.get(&text(name)).map(|HostPart(part)| part) }
    }

    fn both(&self, part: u32) -> impl Iterator<Item = IpAddr> {
        [Some(v4(self.network, part).into()), self.ipv6.then(|| v6(part).into())].into_iter().flatten()
    }

    /// Makes a query. The id tells to which question an answer belongs.
    pub(super) fn ask(&mut self, question: Question) -> Vec<u8> {
        let id = u16::try_from(self.asked.len()).unwrap();
        let part = match question {
            Question::Reverse { name, .. } => self.part(name).unwrap_or(0xfff0),
            _ => 0,
        };
        self.asked.insert(id, Asked { question, part, network: self.network });
        let (name, kind) = match question {
            Question::Name { name, kind } => (text(name), kind),
            Question::Reverse { six, .. } => {
                let ip = if six { v6(part).into() } else { IpAddr::from(v4(self.network, part)) };
                (Name::from(ip).to_string(), RecordType::PTR)
            }
            Question::Nobody => (format!("nobody.{ZONE}"), RecordType::A),
            Question::Own => (format!("control.{ZONE}"), RecordType::A),
            Question::Elsewhere => ("www.example.com".to_owned(), RecordType::A),
        };
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        let mut name = Name::from_ascii(name).unwrap();
        name.set_fqdn(true);
        message.add_query(Query::query(name, kind));
        if !id.is_multiple_of(3) {
            message.set_edns(Edns::new());
        }
        message.to_vec().unwrap()
    }

    /// The resolver's part. True when an address was given that the stack is to hear of before anybody else does.
    pub(super) fn answer(&mut self, transport: Transport, message: &[u8], out: &mut Vec<u8>) -> bool {
        let id = u16::from_be_bytes([message[0], message[1]]);
        let before = self.hosts.given();
        let outcome = self.resolver.answer(transport, message, &mut self.hosts, out);
        assert!(matches!(outcome, Outcome::Answered(_)));
        // A datagram that came twice is answered twice.
        self.expected.insert(id, self.expect(self.asked[&id]));
        self.hosts.given() > before
    }

    fn expect(&self, Asked { question, part, network }: Asked) -> Expected {
        let has = |name: usize| self.part(name) == Some(part) && (self.is_granted(name) || name >= ALIASES);
        match question {
            Question::Name { name, .. } if !self.is_granted(name) => Expected::Nothing(ResponseCode::NXDomain),
            Question::Name { name, kind: RecordType::A } => {
                Expected::Address { name, six: false, network: self.network }
            }
            Question::Name { name, kind: RecordType::AAAA } if self.ipv6 => {
                Expected::Address { name, six: true, network: self.network }
            }
            Question::Name { .. } => Expected::Nothing(ResponseCode::NoError),
            Question::Reverse { six: true, .. } if !self.ipv6 => Expected::Nothing(ResponseCode::Refused),
            Question::Reverse { six: false, .. } if network != self.network => Expected::Nothing(ResponseCode::Refused),
            Question::Reverse { .. } => {
                (0..NAMES).find(|name| has(*name)).map_or(Expected::Nothing(ResponseCode::NXDomain), Expected::Pointer)
            }
            Question::Nobody => Expected::Nothing(ResponseCode::NXDomain),
            Question::Own | Question::Elsewhere => Expected::Nothing(ResponseCode::Refused),
        }
    }

    /// A program's part: what it was answered is what it should have been, and no address has ever had another name.
    pub(super) fn check(&mut self, answer: &[u8]) {
        let answer = Message::from_vec(answer).unwrap();
        let (expected, question) = (self.expected[&answer.id], self.asked[&answer.id]);
        assert!(!answer.metadata.truncation, "{answer}");
        let records: Vec<_> = answer.answers.iter().map(|record| (&record.data, record.ttl)).collect();
        match (expected, &records[..]) {
            (Expected::Nothing(code), []) => {
                assert_eq!(answer.response_code, code, "{question:?}");
                let told = answer.authorities.iter().map(|soa| soa.ttl).collect::<Vec<_>>();
                let empty = code == ResponseCode::Refused;
                assert_eq!(told, if empty { vec![] } else { vec![NEGATIVE_TTL] });
            }
            (Expected::Address { name, six, network }, [(data, TTL)]) => {
                assert_eq!(answer.response_code, ResponseCode::NoError);
                self.told_of(name, six, network, data.ip_addr().unwrap());
            }
            (Expected::Pointer(name), [(RData::PTR(to), TTL)]) => {
                assert_eq!(to.0.to_string().trim_end_matches('.'), text(name));
            }
            other => panic!("{question:?}: {other:?}"),
        }
        self.answered += 1;
    }

    fn told_of(&mut self, name: usize, six: bool, network: u8, ip: IpAddr) {
        let part = match ip {
            IpAddr::V4(ip) => ip.to_bits() & 0xffff,
            IpAddr::V6(ip) => ip.to_bits() as u32,
        };
        let kept = *self.parts.entry(name).or_insert(part);
        assert_eq!(part, kept, "{} has an address that it had not before", text(name));
        assert!(if name < ALIASES { part == fixed(name) } else { (0x8000..0xffff).contains(&part) }, "{ip}");
        let expected: IpAddr = if six { v6(part).into() } else { v4(network, part).into() };
        assert_eq!(ip, expected);
        let first = self.told.entry(ip).or_insert_with(|| text(name));
        assert_eq!(*first, text(name), "{ip} was told of for two names");
        self.learned.insert(name, ip);
    }
}

fn subnet(network: u8) -> String {
    format!("{}/16", v4(network, 0))
}

fn v4(network: u8, part: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(100, 72 + network, 0, 0).to_bits() | part)
}

fn v6(part: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(NETWORK6.to_bits() | u128::from(part))
}

/// The host part that the control plane gave.
fn fixed(name: usize) -> u32 {
    0x0200 + u32::try_from(name).unwrap()
}

fn contents(network: u8, ipv6: bool, serial: u32, granted: &BTreeSet<usize>) -> Contents {
    let range = Range { v4: subnet(network).parse().unwrap(), v6: ipv6.then_some(NETWORK6) };
    let known = |name: usize| {
        let addresses = [Some(v4(network, fixed(name)).into()), ipv6.then(|| v6(fixed(name)).into())];
        Known { name: text(name).parse().unwrap(), addresses: addresses.into_iter().flatten().collect(), notice: None }
    };
    let wildcard = Wildcard { parent: WILDCARD.parse().unwrap(), notice: None };
    Contents {
        zones: vec![ZONE.parse().unwrap(), WILDCARD.parse().unwrap()],
        names: granted.iter().filter(|name| **name < ALIASES).map(|name| known(*name)).collect(),
        wildcards: granted.contains(&ALIASES).then_some(wildcard).into_iter().collect(),
        bypass: vec![format!("control.{ZONE}").parse().unwrap()],
        resolver: vec![v4(network, 2).into()],
        range,
        notice: None,
        serial,
    }
}
