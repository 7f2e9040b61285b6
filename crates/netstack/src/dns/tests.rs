//! What the resolver answers. Answers are decoded by hickory, which has no part in writing them.

mod behaviour;
mod hosts;
mod messages;
mod properties;
mod table;
mod tcp;

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query as Question, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::opt::EdnsOption},
};

use postern_proto::name::DnsName;

use super::*;

const WILDCARD: &str = "kafka.internal";

/// An organisation with a zone, an alias that is a real host name, and a wildcard alias.
fn contents() -> Contents {
    Contents {
        zones: names(&["my-org", "db.internal.example", WILDCARD]),
        names: vec![
            known("db.my-org", &["100.72.1.0", "fd12:3456:789a::100"]),
            known("old.my-org", &["100.72.1.1"]),
            known("a.b.my-org", &["100.72.1.2"]),
            known("six.my-org", &["fd12:3456:789a::103"]),
            known("db.internal.example", &["100.72.1.4"]),
            known("admin.kafka.internal", &["100.72.1.5"]),
        ],
        wildcards: vec![Wildcard { parent: name(WILDCARD), notice: None }],
        bypass: names(&["control.my-org", "gw-1.kafka.internal"]),
        resolver: vec!["100.72.0.2".parse().unwrap(), "fd12:3456:789a::2".parse().unwrap()],
        range: range(),
        notice: None,
        serial: 7,
    }
}

fn range() -> Range {
    Range { v4: "100.72.0.0/16".parse().unwrap(), v6: Some("fd12:3456:789a::".parse().unwrap()) }
}

fn name(text: &str) -> DnsName {
    text.parse().unwrap()
}

fn names(texts: &[&str]) -> Vec<DnsName> {
    texts.iter().map(|text| name(text)).collect()
}

fn known(text: &str, addresses: &[&str]) -> Known {
    Known { name: name(text), addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(), notice: None }
}

/// A resolver, the addresses it has given, and what is asked of it.
struct Bed {
    resolver: Resolver,
    hosts: HostAddresses,
}

impl Bed {
    fn new() -> Self {
        Self::of(contents())
    }

    fn of(contents: Contents) -> Self {
        let hosts = HostAddresses::new(contents.range.v4);
        Self { resolver: Resolver::new(Arc::new(Table::new(contents).unwrap())), hosts }
    }

    fn with_notice(notice: Notice) -> Self {
        Self::of(Contents { notice: Some(notice), ..contents() })
    }

    /// Asks and decodes.
    fn send(&mut self, transport: Transport, query: &Message) -> Message {
        let (answer, bytes) = self.bytes(transport, &query.to_vec().unwrap());
        assert!(matches!(answer, Outcome::Answered(_)), "no answer to {query}");
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!((answer.id, answer.message_type), (query.id, MessageType::Response));
        answer
    }

    fn bytes(&mut self, transport: Transport, query: &[u8]) -> (Outcome, Vec<u8>) {
        let mut out = b"left from before".to_vec();
        let outcome = self.resolver.answer(transport, query, &mut self.hosts, &mut out);
        (outcome, out)
    }

    /// Asks with EDNS over UDP, as systems do.
    fn ask(&mut self, name: &str, kind: RecordType) -> Message {
        let query = question(name, kind);
        let answer = self.send(Transport::Udp, &query);
        assert_eq!(answer.queries, query.queries);
        answer
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    message.add_query(Question::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns);
    message
}

fn addresses(answer: &Message) -> Vec<IpAddr> {
    answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The one SOA record of a negative answer, which has nothing else.
fn soa(answer: &Message) -> &Record {
    assert!(answer.answers.is_empty(), "{answer}");
    assert_eq!(answer.authorities.len(), 1, "{answer}");
    assert!(answer.metadata.authoritative && !answer.metadata.truncation, "{answer}");
    assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    &answer.authorities[0]
}

/// The code and text of the Extended DNS Error.
fn notice(answer: &Message) -> Option<(u16, String)> {
    let options = answer.edns.as_ref().unwrap().options();
    options.as_ref().iter().find_map(|(code, option)| match (u16::from(*code), option) {
        (15, EdnsOption::Unknown(_, data)) => {
            Some((u16::from_be_bytes([data[0], data[1]]), String::from_utf8(data[2..].to_vec()).unwrap()))
        }
        _ => None,
    })
}

fn assert_refused(answer: &Message) {
    assert_eq!(answer.response_code, ResponseCode::Refused, "{answer}");
    assert!(answer.answers.is_empty() && answer.authorities.is_empty() && answer.additionals.is_empty(), "{answer}");
    assert!(!answer.metadata.authoritative && !answer.metadata.recursion_available);
}
