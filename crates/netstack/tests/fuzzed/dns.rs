//! What holds for any bytes that anybody may send to the resolver, over UDP and over TCP.

use std::{
    net::Ipv4Addr,
    sync::{Arc, LazyLock},
};

use hickory_proto::op::{Message, MessageType};
use postern_netstack::dns::{
    Contents, HostAddresses, Known, MAX_QUERY, MAX_UDP, Notice, Outcome, Range, Resolver, Table, TcpQueries, Transport,
    Wildcard,
};

/// The first byte chooses what the resolver has to say beside its answers; the rest is one message.
pub(crate) fn check(bytes: &[u8]) {
    let Some((choice, message)) = bytes.split_first() else { return };
    let (resolver, mut hosts) = resolver(*choice);
    let mut ask = |transport, message: &[u8]| {
        let mut out = vec![0xff; 3];
        let outcome = resolver.answer(transport, message, &mut hosts, &mut out);
        (outcome, out)
    };
    let (udp, tcp) = (ask(Transport::Udp, message), ask(Transport::Tcp, message));
    assert_eq!(udp.0, tcp.0, "what is said does not depend on how it is asked");
    for (transport, (outcome, out)) in [(Transport::Udp, &udp), (Transport::Tcp, &tcp)] {
        check_answer(transport, *outcome, message, out);
        assert_eq!(ask(transport, message), (*outcome, out.clone()), "asked again, it is answered the same");
    }
    check_stream(message, &udp.0, &tcp.1, *choice);
    let given = hosts.export();
    let mut parts: Vec<_> = given.iter().map(|record| record.part).collect();
    parts.dedup();
    assert!(parts.len() == given.len() && given.len() <= 1, "one question names one host");
}

fn check_answer(transport: Transport, outcome: Outcome, message: &[u8], out: &[u8]) {
    let Outcome::Answered(code) = outcome else {
        assert!(out.is_empty());
        assert!(message.len() < 12 || message[2] & 0x80 != 0, "every query is answered");
        return;
    };
    let answer = Message::from_vec(out).expect("an answer can be read");
    assert_eq!(answer.message_type, MessageType::Response);
    assert_eq!(u16::from(answer.response_code), u16::from(code));
    assert_eq!(out[..2], message[..2]);
    if let [_question] = &answer.queries[..] {
        let end = 12 + message[12..].iter().position(|byte| *byte == 0).expect("a root label") + 5;
        assert!(message.len() >= end && out.len() >= end, "the question is echoed byte by byte");
        // The first zero may be within a label's text; then only this much is compared.
        assert_eq!(out[12..end], message[12..end]);
    } else {
        assert_eq!(out.len(), 12, "a header and nothing else");
    }
    assert!(transport == Transport::Tcp || out.len() <= usize::from(MAX_UDP));
    for record in answer.answers.iter().chain(&answer.authorities) {
        assert!(record.ttl <= 10);
    }
}

/// The same message within a stream is answered by the same bytes, however the stream is cut.
fn check_stream(message: &[u8], outcome: &Outcome, answer: &[u8], choice: u8) {
    let (resolver, mut hosts) = resolver(choice);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let stream = [&length.to_be_bytes()[..], &message[..length.into()]].concat();
    let mut queries = TcpQueries::default();
    for chunk in stream.chunks(usize::from(choice).max(1)) {
        let taken = queries.receive(chunk, |query, out| resolver.answer(Transport::Tcp, query, &mut hosts, out));
        match taken {
            Ok(taken) => assert_eq!(taken, chunk.len()),
            Err(_) => return assert!(message.len() > MAX_QUERY),
        }
    }
    match (outcome, queries.waiting().split_first_chunk::<2>()) {
        (Outcome::Dropped, waiting) => assert!(waiting.is_none()),
        (Outcome::Answered(_), Some((length, sent))) => {
            assert_eq!((usize::from(u16::from_be_bytes(*length)), sent), (answer.len(), answer));
        }
        (Outcome::Answered(_), None) => panic!("no answer in the stream"),
    }
}

/// One for each choice; making them takes far longer than asking.
static RESOLVERS: LazyLock<[Resolver; 8]> =
    LazyLock::new(|| std::array::from_fn(|choice| Resolver::new(Arc::new(table(choice)))));

const SUBNET: &str = "100.72.0.0/16";

fn resolver(choice: u8) -> (&'static Resolver, HostAddresses) {
    (&RESOLVERS[usize::from(choice % 8)], HostAddresses::new(SUBNET.parse().expect("a network")))
}

fn table(choice: usize) -> Table {
    let name = |text: &str| text.parse().expect("a name");
    let many = (0..100).map(|host| Ipv4Addr::new(100, 72, 4, host).into()).collect();
    let known = |text, addresses| Known { name: name(text), addresses, notice: None };
    let contents = Contents {
        zones: vec![name("my-org"), name("db.internal.example"), name("kafka.internal")],
        names: vec![
            known("db.my-org", vec![Ipv4Addr::new(100, 72, 1, 0).into()]),
            known("many.my-org", many),
            known("a.b.my-org", vec!["fd12:3456:789a::102".parse().expect("an address")]),
            known("db.internal.example", vec![]),
        ],
        wildcards: vec![Wildcard { parent: name("kafka.internal"), notice: None }],
        bypass: vec![name("control.my-org")],
        resolver: vec![Ipv4Addr::new(100, 72, 0, 2).into()],
        range: Range {
            v4: SUBNET.parse().expect("a network"),
            v6: "fd12:3456:789a::".parse().ok().filter(|_| choice & 4 == 0),
        },
        notice: match choice % 4 {
            0 => None,
            1 => Some(Notice::SessionExpired),
            2 => Some(Notice::NotConnected),
            _ => Some(Notice::Moved { from: "100.64.0.0/16".parse().expect("a network") }),
        },
        serial: 1,
    };
    Table::new(contents).expect("a table")
}
