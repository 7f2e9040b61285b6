//! What resolvers of this kind must do, each line learned from somebody's trouble: fifteen behaviours, in their order.

use super::*;

#[test]
fn a_01_a_missing_family_is_an_empty_answer_and_never_a_missing_name() {
    let mut bed = Bed::new();
    assert_eq!(addresses(&bed.ask("db.my-org", RecordType::A)), ips(&["100.72.1.0"]));
    assert_eq!(addresses(&bed.ask("db.my-org", RecordType::AAAA)), ips(&["fd12:3456:789a::100"]));
    for (name, kind) in [("old.my-org", RecordType::AAAA), ("six.my-org", RecordType::A)] {
        let answer = bed.ask(name, kind);
        assert_eq!(answer.response_code, ResponseCode::NoError, "{name} {kind}");
        soa(&answer);
    }
    // IPv6 off: hosts under wildcards have one family too.
    let mut bed = Bed::of(Contents { range: Range { v6: None, ..range() }, names: vec![], ..contents() });
    assert_eq!(addresses(&bed.ask("b1.kafka.internal", RecordType::A)).len(), 1);
    let answer = bed.ask("b1.kafka.internal", RecordType::AAAA);
    assert_eq!(answer.response_code, ResponseCode::NoError);
    soa(&answer);
}

#[test]
fn a_02_https_and_svcb_are_empty_so_that_browsers_use_addresses() {
    let mut bed = Bed::new();
    for kind in [RecordType::HTTPS, RecordType::SVCB] {
        for name in ["db.my-org", "b1.kafka.internal"] {
            let answer = bed.ask(name, kind);
            assert_eq!(answer.response_code, ResponseCode::NoError);
            soa(&answer);
        }
    }
    assert!(bed.hosts.is_empty(), "a host gets an address for questions about addresses only");
}

#[test]
fn a_03_an_address_of_ours_has_its_name() {
    let mut bed = Bed::new();
    let given = addresses(&bed.ask("b1.kafka.internal", RecordType::A))[0];
    let given_v6 = addresses(&bed.ask("b1.kafka.internal", RecordType::AAAA))[0];
    for (ip, expected) in [
        ("100.72.1.0".parse().unwrap(), "db.my-org."),
        ("fd12:3456:789a::100".parse().unwrap(), "db.my-org."),
        (given, "b1.kafka.internal."),
        (given_v6, "b1.kafka.internal."),
    ] {
        let answer = bed.ask(&Name::from(ip).to_ascii(), RecordType::PTR);
        let names: Vec<_> = answer.answers.iter().map(|record| &record.data).collect();
        let [RData::PTR(name)] = names[..] else { panic!("{answer}") };
        assert_eq!(name.0.to_ascii(), expected);
        assert_eq!(answer.answers[0].ttl, TTL);
        // Anything else about the address is empty, not missing.
        let answer = bed.ask(&Name::from(ip).to_ascii(), RecordType::TXT);
        assert_eq!(answer.response_code, ResponseCode::NoError);
        soa(&answer);
    }
}

#[test]
fn a_04_answers_may_be_kept_for_five_seconds() {
    let mut bed = Bed::new();
    for (name, kind) in
        [("db.my-org", RecordType::A), ("db.my-org", RecordType::AAAA), ("b1.kafka.internal", RecordType::A)]
    {
        let answer = bed.ask(name, kind);
        assert_eq!(answer.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [5], "{name} {kind}");
    }
}

#[test]
fn a_05_negative_answers_may_be_kept_for_ten_seconds() {
    let mut bed = Bed::new();
    for (name, kind, code, zone) in [
        ("nothing.my-org", RecordType::A, ResponseCode::NXDomain, "my-org."),
        ("db.my-org", RecordType::TXT, ResponseCode::NoError, "my-org."),
        ("x.db.internal.example", RecordType::AAAA, ResponseCode::NXDomain, "db.internal.example."),
        ("9.9.72.100.in-addr.arpa", RecordType::PTR, ResponseCode::NXDomain, "72.100.in-addr.arpa."),
    ] {
        let answer = bed.ask(name, kind);
        assert_eq!(answer.response_code, code, "{name}");
        let record = soa(&answer);
        let RData::SOA(data) = &record.data else { panic!("{record}") };
        assert_eq!((record.name.to_ascii().as_str(), record.ttl, data.minimum), (zone, 10, 10), "{name}");
        assert_eq!(data.serial, 7);
    }
}

#[test]
fn a_06_long_answers_are_cut_over_udp_and_whole_over_tcp() {
    let many: Vec<_> = (0..100).map(|n| format!("100.72.2.{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let mut bed = Bed::of(Contents { names: vec![known("many.my-org", &many)], ..contents() });
    let size = 12 + (1 + 4 + 1 + 6 + 1 + 4) + 100 * 16;
    for (payload, sent_limit) in
        [(None, 512), (Some(512), 512), (Some(1000), 1000), (Some(1232), 1232), (Some(65535), 1232)]
    {
        for count in [1, 30, 60, 100] {
            let mut bed = Bed::of(Contents { names: vec![known("many.my-org", &many[..count])], ..contents() });
            let mut query = question("many.my-org", RecordType::A);
            query.edns = payload.map(|payload| {
                let mut edns = Edns::new();
                edns.set_max_payload(payload);
                edns
            });
            let whole = size - (100 - count) * 16 + if payload.is_some() { 11 } else { 0 };
            let (_, bytes) = bed.bytes(Transport::Udp, &query.to_vec().unwrap());
            let answer = Message::from_vec(&bytes).unwrap();
            assert!(bytes.len() <= sent_limit);
            assert_eq!(answer.metadata.truncation, whole > sent_limit, "{payload:?} {count}");
            assert_eq!(answer.answers.len(), if whole > sent_limit { 0 } else { count });
            assert_eq!(answer.edns.is_some(), payload.is_some(), "an answer has EDNS when the query has");
            assert_eq!(bed.send(Transport::Tcp, &query).answers.len(), count);
        }
    }
    let (_, bytes) = bed.bytes(Transport::Tcp, &question("many.my-org", RecordType::A).to_vec().unwrap());
    assert_eq!(bytes.len(), size + 11);
}

#[test]
fn a_07_cases_are_one_name_and_kept_wildcards_match_whole_labels_and_exact_names_win() {
    let mut bed = Bed::new();
    let query = question("dB.mY-oRg", RecordType::A);
    let answer = bed.send(Transport::Udp, &query);
    assert_eq!(addresses(&answer), ips(&["100.72.1.0"]));
    assert!(answer.queries[0].name().eq_case(query.queries[0].name()), "the echo keeps the case");
    assert!(answer.answers[0].name.eq_case(query.queries[0].name()), "so does the record");
    let one = addresses(&bed.ask("B1.Kafka.Internal", RecordType::A));
    assert_eq!(one, addresses(&bed.ask("b1.kafka.internal", RecordType::A)));
    assert_ne!(one, addresses(&bed.ask("b2.kafka.internal", RecordType::A)));
    assert_ne!(one, addresses(&bed.ask("x.b1.kafka.internal", RecordType::A)));
    assert_eq!(addresses(&bed.ask("admin.kafka.internal", RecordType::A)), ips(&["100.72.1.5"]));
    assert_refused(&bed.ask("b1.notkafka.internal", RecordType::A));
    assert_refused(&bed.ask("b1kafka.internal", RecordType::A));
    // The wildcard covers hosts below its parent, not the parent.
    let answer = bed.ask("kafka.internal", RecordType::A);
    assert_eq!(answer.response_code, ResponseCode::NoError);
    soa(&answer);
}

#[test]
fn a_08_nothing_is_forwarded_so_nothing_is_pending_and_replies_are_not_taken() {
    let mut bed = Bed::new();
    let ask = question("db.my-org", RecordType::A);
    let before = bed.bytes(Transport::Udp, &ask.to_vec().unwrap());
    let outside = question("example.com", RecordType::A);
    for kind in [RecordType::A, RecordType::NS, RecordType::ANY] {
        assert_refused(&bed.ask("example.com", kind));
    }
    // A forged or late reply, with the id of a query just seen, finds nothing that it could answer.
    let mut reply = Message::response(outside.id, OpCode::Query);
    reply.add_query(outside.queries[0].clone());
    reply.add_answer(Record::from_rdata(
        outside.queries[0].name().clone(),
        60,
        RData::A(hickory_proto::rr::rdata::A::new(192, 0, 2, 1)),
    ));
    assert_eq!(bed.bytes(Transport::Udp, &reply.to_vec().unwrap()), (Outcome::Dropped, vec![]));
    assert_refused(&bed.send(Transport::Udp, &outside));
    assert_eq!(bed.bytes(Transport::Udp, &ask.to_vec().unwrap()), before);
}

#[test]
fn a_09_it_asks_neither_itself_nor_sends_askers_elsewhere() {
    let mut bed = Bed::new();
    for (name, kind) in [
        ("my-org", RecordType::NS),
        ("db.my-org", RecordType::CNAME),
        ("my-org", RecordType::ANY),
        ("nothing.my-org", RecordType::A),
        ("2.0.72.100.in-addr.arpa", RecordType::PTR),
    ] {
        let answer = bed.ask(name, kind);
        let records = answer.answers.iter().chain(&answer.authorities).chain(&answer.additionals);
        for record in records {
            assert!(
                !matches!(record.record_type(), RecordType::NS | RecordType::CNAME | RecordType::DNAME),
                "{name} {kind}: {record}"
            );
        }
        assert_ne!(answer.response_code, ResponseCode::Refused);
    }
}

#[test]
fn a_10_names_of_postern_itself_are_never_answered_from_a_zone() {
    let mut bed = Bed::new();
    for name in ["control.my-org", "Control.My-Org", "gw-1.kafka.internal"] {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::HTTPS] {
            assert_refused(&bed.ask(name, kind));
        }
    }
    // Not even when somebody gave a resource that name.
    let mut contents = contents();
    contents.names.push(known("control.my-org", &["100.72.9.9"]));
    let mut bed = Bed::of(contents);
    assert_refused(&bed.ask("control.my-org", RecordType::A));
    assert!(bed.hosts.is_empty());
}

#[test]
fn a_11_the_switch_of_firefox_for_dns_over_https_is_left_alone() {
    // NXDOMAIN would switch it off, which is for resolvers that take over all names.
    assert_refused(&Bed::new().ask("use-application-dns.net", RecordType::A));
}

#[test]
fn a_12_names_outside_our_zones_are_refused_so_that_the_next_server_is_asked() {
    let mut bed = Bed::new();
    for name in
        ["example.com", "my-org.example.com", "internal.example", "internal", "org", ".", "xmy-org", "in-addr.arpa"]
    {
        assert_refused(&bed.ask(name, RecordType::A));
    }
    for name in ["1.0.0.127.in-addr.arpa", "9.0.73.100.in-addr.arpa", "1.0.ip6.arpa", "100.in-addr.arpa"] {
        assert_refused(&bed.ask(name, RecordType::PTR));
    }
}

#[test]
fn a_13_an_unknown_address_of_ours_has_no_name_and_is_asked_of_nobody_else() {
    // That packets to it are refused and routed nowhere else is the stack's part.
    let mut bed = Bed::new();
    for ip in ["100.72.77.77", "100.72.255.255", "fd12:3456:789a::77", "fd12:3456:789a:ffff::1"] {
        let ip: IpAddr = ip.parse().unwrap();
        let answer = bed.ask(&Name::from(ip).to_ascii(), RecordType::PTR);
        assert_eq!(answer.response_code, ResponseCode::NXDomain, "{ip}");
        soa(&answer);
    }
}

#[test]
fn a_14_an_answer_says_why_it_is_as_it_is() {
    let expired = Some((18, "session expired or locked: postern login, or postern unlock".to_owned()));
    let mut bed = Bed::with_notice(Notice::SessionExpired);
    let answer = bed.ask("db.my-org", RecordType::A);
    assert_eq!((addresses(&answer), notice(&answer)), (ips(&["100.72.1.0"]), expired.clone()), "names stay");
    let answer = bed.ask("unknown.my-org", RecordType::A);
    assert_eq!((answer.response_code, notice(&answer)), (ResponseCode::ServFail, expired));

    let mut some = contents();
    some.names[1].notice = Some(Notice::NotConnected);
    let mut bed = Bed::of(some);
    assert_eq!(notice(&bed.ask("old.my-org", RecordType::A)), Some((14, "not connected".to_owned())));
    assert_eq!(notice(&bed.ask("db.my-org", RecordType::A)), None);

    let mut bed = Bed::with_notice(Notice::Moved { from: "100.64.0.0/16".parse().unwrap() });
    let moved = Some((0, "virtual network moved from 100.64.0.0/16 to 100.72.0.0/16".to_owned()));
    assert_eq!(notice(&bed.ask("db.my-org", RecordType::A)), moved);
    let answer = bed.ask("9.0.64.100.in-addr.arpa", RecordType::PTR);
    assert_eq!((answer.response_code, notice(&answer)), (ResponseCode::NXDomain, moved));

    assert_eq!(notice(&bed.ask("example.com", RecordType::A)), Some((20, "not a name of Postern".to_owned())));

    // Who does not use EDNS gets no such thing.
    let mut query = question("db.my-org", RecordType::A);
    query.edns = None;
    let answer = bed.send(Transport::Udp, &query);
    assert!(answer.edns.is_none() && answer.additionals.is_empty());
}

#[test]
fn a_15_an_address_is_never_given_to_another_name_not_even_after_a_restart() {
    let mut bed = Bed::new();
    let ask = |bed: &mut Bed, host: u32| addresses(&bed.ask(&format!("b{host}.kafka.internal"), RecordType::A))[0];
    let given: Vec<_> = (0..200).map(|host| ask(&mut bed, host)).collect();
    let kept = bed.hosts.export();

    let mut bed = Bed::new();
    assert_eq!(bed.hosts.import(kept), 0);
    let later: Vec<_> = (100..300).map(|host| ask(&mut bed, host)).collect();
    assert_eq!(later[..100], given[100..], "the same name has the same address");
    assert!(later[100..].iter().all(|ip| !given.contains(ip)), "another name has another");

    // The network moves: host parts stay.
    let kept = bed.hosts.export();
    let mut bed = Bed::of(Contents {
        range: Range { v4: "100.84.0.0/16".parse().unwrap(), v6: None },
        names: vec![],
        ..contents()
    });
    bed.hosts.import(kept);
    let (IpAddr::V4(before), IpAddr::V4(after)) = (given[5], ask(&mut bed, 5)) else { panic!("not IPv4") };
    assert_eq!(
        (before.octets()[2..].to_vec(), after.octets()[..2].to_vec()),
        (after.octets()[2..].to_vec(), vec![100, 84])
    );
}
