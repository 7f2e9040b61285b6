//! Messages that are no plain questions.

use super::*;

fn plain() -> Vec<u8> {
    question("db.my-org", RecordType::A).to_vec().unwrap()
}

#[test]
fn what_is_no_query_or_has_no_header_is_dropped() {
    let mut bed = Bed::new();
    for length in 0..12 {
        assert_eq!(bed.bytes(Transport::Udp, &plain()[..length]), (Outcome::Dropped, vec![]));
    }
    let mut response = plain();
    response[2] |= 0x80;
    assert_eq!(bed.bytes(Transport::Udp, &response), (Outcome::Dropped, vec![]));
}

#[test]
fn what_cannot_be_read_is_told_so_with_its_id() {
    let mut bed = Bed::new();
    let mut cases: Vec<Vec<u8>> = (12..plain().len()).map(|length| plain()[..length].to_vec()).collect();
    let mut longer = plain();
    longer.push(0);
    cases.push(longer);
    // Two questions; none; a record where only questions may be; two OPT records.
    for (at, count) in [(5, 2), (5, 0), (7, 1), (9, 1), (11, 2)] {
        let mut message = plain();
        message[at] = count;
        cases.push(message);
    }
    // A name that points into the header.
    cases.push([&plain()[..12], &[0xc0, 0x00, 0, 1, 0, 1]].concat());
    let mut own = plain();
    own.truncate(12);
    own[11] = 0;
    own.extend_from_slice(&[1, b'a', 0xc0, 0x0c, 0, 1, 0, 1]);
    cases.push(own);
    for case in cases {
        let (outcome, bytes) = bed.bytes(Transport::Udp, &case);
        assert_eq!(outcome, Outcome::Answered(ResponseCode::FormErr), "{case:?}");
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!((answer.id, answer.response_code, bytes.len()), (0x1234, ResponseCode::FormErr, 12));
        assert!(answer.metadata.recursion_desired);
    }
}

#[test]
fn other_operations_are_not_implemented() {
    let mut bed = Bed::new();
    for code in (1..16).map(OpCode::from_u8) {
        let query = Message::new(9, MessageType::Query, code);
        let answer = bed.send(Transport::Udp, &query);
        assert_eq!((answer.response_code, answer.op_code), (ResponseCode::NotImp, code));
    }
}

#[test]
fn other_classes_and_zone_transfers_are_refused() {
    let mut bed = Bed::new();
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::NONE] {
        let mut query = question("db.my-org", RecordType::A);
        query.queries[0].set_query_class(class);
        assert_refused(&bed.send(Transport::Udp, &query));
    }
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_refused(&bed.send(Transport::Tcp, &question("my-org", kind)));
    }
}

#[test]
fn a_version_of_edns_that_is_not_there_yet_is_told_so() {
    let mut query = question("db.my-org", RecordType::A);
    query.edns.as_mut().unwrap().set_version(1);
    let answer = Bed::new().send(Transport::Udp, &query);
    assert_eq!(u16::from(answer.response_code), 16, "BADVERS");
    assert_eq!(answer.edns.unwrap().version(), 0);
    assert!(answer.answers.is_empty());
}

#[test]
fn edns_is_answered_with_our_size_and_the_flag_for_signatures() {
    let mut bed = Bed::new();
    for dnssec_ok in [false, true] {
        let mut query = question("db.my-org", RecordType::A);
        let edns = query.edns.as_mut().unwrap();
        edns.set_dnssec_ok(dnssec_ok);
        edns.options_mut().insert(EdnsOption::Unknown(10, b"a cookie".to_vec()));
        let edns = bed.send(Transport::Udp, &query).edns.unwrap();
        assert_eq!((edns.max_payload(), edns.flags().dnssec_ok, edns.version()), (MAX_UDP, dnssec_ok, 0));
        assert!(edns.options().as_ref().is_empty());
    }
}

#[test]
fn any_gives_all_addresses() {
    let mut bed = Bed::new();
    let both = ips(&["100.72.1.0", "fd12:3456:789a::100"]);
    assert_eq!(addresses(&bed.ask("db.my-org", RecordType::ANY)), both);
    assert_eq!(addresses(&bed.ask("b1.kafka.internal", RecordType::ANY)).len(), 2);
}

#[test]
fn a_zone_has_a_soa_record_and_names_between_names_are_there() {
    let mut bed = Bed::new();
    for zone in ["my-org", "db.internal.example"] {
        let answer = bed.ask(zone, RecordType::SOA);
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(answer.answers[0].name.to_ascii(), format!("{zone}."));
    }
    assert_eq!(addresses(&bed.ask("db.internal.example", RecordType::A)), ips(&["100.72.1.4"]));
    let answer = bed.ask("b.my-org", RecordType::A);
    assert_eq!(answer.response_code, ResponseCode::NoError, "a.b.my-org is there, so b.my-org is");
    soa(&answer);
    let answer = bed.ask("72.100.in-addr.arpa", RecordType::NS);
    assert_eq!(answer.response_code, ResponseCode::NoError);
    soa(&answer);
}

#[test]
fn a_probe_is_answered_with_the_resolvers_own_address_and_never_kept() {
    let mut bed = Bed::new();
    for zone in ["my-org", "db.internal.example", WILDCARD] {
        let answer = bed.ask(&format!("{PROBE}1f2e3d.{zone}"), RecordType::A);
        assert_eq!(addresses(&answer), ips(&["100.72.0.2"]));
        assert_eq!(answer.answers[0].ttl, 0);
        assert_eq!(
            addresses(&bed.ask(&format!("{PROBE}1f2e3d.{zone}"), RecordType::AAAA)),
            ips(&["fd12:3456:789a::2"])
        );
    }
    assert!(bed.hosts.is_empty());
    assert_refused(&bed.ask(&format!("{PROBE}1.example.com"), RecordType::A));
    assert_eq!(bed.ask(&format!("{PROBE}1.x.my-org"), RecordType::A).response_code, ResponseCode::NXDomain);
}

#[test]
fn what_is_no_host_name_gets_no_address_under_a_wildcard() {
    let mut bed = Bed::new();
    for label in [&b"a.b"[..], b"a-", b"-a", b"\xc8", b"a b", b"a\0"] {
        let mut query = question("b1.kafka.internal", RecordType::A);
        let parent = Name::from_ascii("kafka.internal.").unwrap();
        let asked = Name::from_labels([label]).unwrap().append_domain(&parent).unwrap();
        query.queries[0].set_name(asked);
        assert_eq!(bed.send(Transport::Udp, &query).response_code, ResponseCode::NXDomain, "{label:?}");
    }
    assert!(bed.hosts.is_empty());
    // Underscores are found in container networks.
    assert_eq!(addresses(&bed.ask("redis_1.kafka.internal", RecordType::A)).len(), 1);
}

#[test]
fn a_host_that_may_not_be_is_missing_and_one_too_many_is_a_failure_with_its_reason() {
    struct Denies(NoAddress);
    impl Hosts for Denies {
        fn assign(&mut self, parent: &DnsName, host: &str) -> Result<HostPart, NoAddress> {
            assert_eq!((parent.as_str(), host), (WILDCARD, "b1.kafka.internal"));
            Err(self.0)
        }
        fn name(&self, _part: HostPart) -> Option<String> {
            None
        }
    }
    let bed = Bed::new();
    let query = question("B1.kafka.internal", RecordType::A).to_vec().unwrap();
    let mut out = Vec::new();
    let mut ask = |denies| {
        bed.resolver.answer(Transport::Udp, &query, &mut Denies(denies), &mut out);
        Message::from_vec(&out).unwrap()
    };
    assert_eq!(ask(NoAddress::NotAllowed).response_code, ResponseCode::NXDomain);
    let full = ask(NoAddress::Full);
    assert_eq!(full.response_code, ResponseCode::ServFail);
    let reason = "no virtual address is left for another host under a wildcard alias";
    assert_eq!(notice(&full), Some((0, reason.to_owned())));
}

#[test]
fn another_table_is_asked_from_the_next_question_on() {
    let mut bed = Bed::new();
    let next = Contents { names: vec![known("db.my-org", &["100.72.9.9"])], ..contents() };
    bed.resolver.set_table(Arc::new(Table::new(next).unwrap()));
    assert_eq!(addresses(&bed.ask("db.my-org", RecordType::A)), ips(&["100.72.9.9"]));
    assert_eq!(bed.ask("old.my-org", RecordType::A).response_code, ResponseCode::NXDomain);
}
