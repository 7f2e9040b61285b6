//! `network` and `dns`: the virtual network and its names.

use postern_local_api::{message::*, names::*};
use postern_proto::{
    resource::{BindMode, Kind},
    time::UnixMillis,
};
use serde_json::json;

use crate::{support::*, user::report};

#[test]
fn a_name_in_the_virtual_network_is_used_where_it_leads_to_one_host() {
    let fake = Fake::start();
    let address: std::net::SocketAddr = "100.72.1.0:22".parse().unwrap();
    let mut connected = resource(1, "orders-db", Kind::Ssh, 22, Connection::Listening { address });
    connected.resource.bind.mode = BindMode::Vnm;
    connected.resource.bind.ip = address.ip();
    connected.resource.bind.dns_name = Some("db.my-org".parse().unwrap());
    connected.virtual_name = Some("db.my-org".to_owned());
    fake.answer("POST /v1/connect", 200, report(&[connected.clone()], 1));
    fake.run(&["connect", "orders-db"]).ends(0).says("orders-db is at db.my-org:22\n").says("try: ssh db.my-org\n");
    let mut wildcard = connected.clone();
    wildcard.resource.bind.dns_name = Some("*.my-org".parse().unwrap());
    wildcard.virtual_name = Some("*.my-org".to_owned());
    fake.answer("POST /v1/connect", 200, report(&[wildcard], 1));
    fake.run(&["connect", "orders-db"]).ends(0).says("try: ssh 100.72.1.0\n");
    connected.connection = listening(10022);
    connected.virtual_name = None;
    fake.answer("POST /v1/connect", 200, report(&[connected], 1));
    fake.run(&["connect", "orders-db"]).ends(0).says("orders-db is at 127.0.0.1:10022\n");
}

#[test]
fn a_wildcard_stands_beside_the_address_of_the_resource_itself() {
    let fake = Fake::start();
    let address: std::net::SocketAddr = "100.72.1.0:9092".parse().unwrap();
    let mut kafka = resource(1, "kafka", Kind::Tcp, 9092, Connection::Disconnected);
    kafka.resource.bind.mode = BindMode::Vnm;
    kafka.resource.bind.ip = address.ip();
    kafka.resource.bind.dns_name = Some("*.kafka.internal".parse().unwrap());
    let shown = |kafka: &ResourceStatus, command: &str| {
        fake.set_status(&Status { resources: vec![kafka.clone()], ..status() });
        fake.run(&[command]).ends(0).out
    };
    let both = "100.72.1.0:9092, *.kafka.internal:9092  ";
    assert!(shown(&kafka, "resources").contains(both), "{}", shown(&kafka, "resources"));
    (kafka.connection, kafka.virtual_name) = (Connection::Listening { address }, Some("*.kafka.internal".to_owned()));
    for command in ["resources", "status"] {
        assert!(shown(&kafka, command).contains(both), "{}", shown(&kafka, command));
    }
    (kafka.connection, kafka.virtual_name) = (listening(10092), None);
    let at_loopback = shown(&kafka, "resources");
    assert!(at_loopback.contains("127.0.0.1:10092  ") && !at_loopback.contains("*."), "{at_loopback}");
}

#[test]
fn the_network_is_switched_on_and_off_and_shown() {
    let fake = Fake::start();
    fake.run(&["network", "status"]).ends(0).says("off").says("postern network enable");
    let up = NetworkStatus::Up(Box::new(NetworkUp {
        interface: "postern0".to_owned(),
        subnet: "100.73.0.0/16".to_owned(),
        moved: Some(NetworkMoved {
            from: "100.72.0.0/16".to_owned(),
            because: vec!["100.72.0.0/16 is routed to tailscale0 (Tailscale)".to_owned()],
        }),
        ipv6: None,
        address: [100, 73, 0, 1].into(),
        resolver: [100, 73, 0, 2].into(),
        zones: vec!["my-org".to_owned(), "db.internal".to_owned()],
        names: NameService::Registered { through: "systemd-resolved".to_owned() },
        since: UnixMillis(1),
        behind: None,
        left_out: Vec::new(),
    }));
    fake.answer("POST /v1/network", 200, json!(up));
    let ran = fake.run(&["network", "enable"]).ends(0);
    for text in ["100.73.0.0/16 on postern0", "because 100.72.0.0/16 is routed to tailscale0 (Tailscale)"] {
        assert!(ran.out.contains(text), "{}", ran.out);
    }
    assert!(ran.out.contains("my-org, db.internal at 100.73.0.2, through systemd-resolved"), "{}", ran.out);
    assert_eq!(fake.run(&["network", "enable", "--json"]).ends(0).json(), json!(up));
    let NetworkStatus::Up(mut many) = up else { panic!("{up:?}") };
    many.zones = (0..20).map(|n| format!("z{n}.example")).collect();
    many.left_out = vec!["db.far.example".to_owned()];
    fake.answer("POST /v1/network", 200, json!(NetworkStatus::Up(many)));
    let ran = fake.run(&["network", "enable"]).ends(0);
    for text in ["z7.example and 12 more (--json has all) at", "without an answer: db.far.example – "] {
        assert!(ran.out.contains(text) && !ran.out.contains("z8.example"), "{}", ran.out);
    }
    let gone = NetworkStatus::Unavailable {
        fault: NetworkFault::NoService,
        reason: "postern-netd does not answer at /run/postern/netd.sock".to_owned(),
        retry_at: UnixMillis(2),
    };
    fake.answer("POST /v1/network", 200, json!(gone));
    fake.run(&["network", "enable"])
        .ends(7)
        .says("does not answer at")
        .says("postern-netd; until then")
        .warns("cannot be had");
    fake.answer("POST /v1/network", 200, json!(NetworkStatus::Off));
    fake.run(&["network", "disable"]).ends(0).says("off");
    let bodies: Vec<_> =
        fake.calls().into_iter().filter(|(call, _)| call == "POST /v1/network").map(|(_, body)| body).collect();
    assert_eq!(bodies.last(), Some(&json!({ "enabled": false })));
    assert_eq!(bodies.first(), Some(&json!({ "enabled": true })));
}

#[test]
fn a_name_is_answered_by_the_resolver_and_by_the_system() {
    let fake = Fake::start();
    let record =
        |data: &str| NameRecord { name: "db.my-org".to_owned(), kind: "A".to_owned(), ttl: 5, data: data.to_owned() };
    let report = |code: &str, records, system| NameReport {
        name: "db.my-org".to_owned(),
        kind: "A".to_owned(),
        resolver: Some(ResolverAnswer {
            server: "100.72.0.2:53".parse().unwrap(),
            micros: 1234,
            outcome: Asked::Answered {
                code: code.to_owned(),
                records,
                explanation: Some("session expired".to_owned()),
            },
        }),
        system,
        commands: vec!["dig".to_owned()],
    };
    let found = |ip: &str| SystemAnswer::Found { addresses: vec![ip.parse().unwrap()] };
    let ask = |report: &NameReport, exit| {
        fake.answer("POST /v1/names", 200, json!(report));
        assert_eq!(fake.run(&["dns", "query", "db.my-org", "--json"]).ends(exit).json(), json!(report));
        fake.run(&["dns", "query", "db.my-org"]).ends(exit)
    };
    let same = report("NOERROR", vec![record("100.72.1.0")], found("100.72.1.0"));
    let ran = ask(&same, 0).says("db.my-org A\n").says("  resolver  100.72.0.2  NOERROR in 1.2 ms\n");
    ran.says("            A 100.72.1.0  5 s\n").says("note: session expired").says("  system    100.72.1.0\n");
    let other = report("NOERROR", vec![record("100.72.1.0")], found("192.0.2.1"));
    ask(&other, 1).says("the system does not ask the resolver; see postern doctor");
    ask(&report("NOERROR", vec![record("100.72.1.0")], SystemAnswer::NotFound), 1).says("system    not found");
    ask(&report("NXDOMAIN", vec![], SystemAnswer::NotFound), 5).says("NXDOMAIN");
    let mut silent = report("", vec![], SystemAnswer::TimedOut);
    silent.resolver.as_mut().unwrap().outcome = Asked::TimedOut;
    ask(&silent, 7).says("100.72.0.2  no answer in time").says("system    no answer in time");
    let none = NameReport { resolver: None, ..report("", vec![], found("192.0.2.1")) };
    ask(&none, 0).says("there is no virtual network");
}

#[test]
fn the_type_of_a_question_is_passed_on() {
    let fake = Fake::start();
    let problem =
        json!({ "status": 422, "code": "bad_question", "title": "That cannot be asked", "detail": "no type" });
    fake.answer("POST /v1/names", 422, problem);
    fake.run(&["dns", "query", "db.my-org", "--type", "NONSENSE"]).ends(8).warns("that cannot be asked");
}
