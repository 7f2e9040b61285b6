//! Relays and gateways as whole nodes: what a relay decides itself, and that gateways do not send a client round in circles.

use postern_proto::{
    head::Passage,
    id::OrgId,
    lease::Claims,
    resource::NodeResource,
    sync::{GatewayInfo, Item, ParkedAt, RelayInfo},
    time::UnixMillis,
};
use postern_tunnel::{
    park::{self, ForwardError, OpenError},
    stream::EndCause,
};
use ulid::Ulid;

use crate::{
    bench::{
        Bench, Control, Device, Running, RunningRelay, Stream, echo, node, now, numbered, resource_id, sign, token,
        until,
    },
    monitor::{get, sample},
};

fn gateway(n: u128, running: &Running) -> Item {
    let address = running.ready.listen.unwrap().to_string();
    Item::Gateway(GatewayInfo { id: numbered(n), name: format!("gw-{n}"), address, draining: false, drain_ends: None })
}

#[tokio::test]
async fn a_relay_refuses_leases_of_other_resources_organisations_and_devices() {
    let bench = Bench::start().await;
    let (control, relay) = (&bench.control, numbered(2));
    let elsewhere = echo(2).await;
    let known = control.shared.resources.lock().unwrap().clone();
    let meant = |nodes: &[_]| Some(nodes.to_vec());
    let mut own = known[0].clone();
    own.egress = meant(&[relay]);
    let resources = vec![own, NodeResource { egress: meant(&[node()]), ..elsewhere }];
    control.publish(resources);
    control.tell(node(), vec![Item::Neighbours { nodes: vec![relay] }]);
    control.tell(relay, vec![Item::Neighbours { nodes: vec![node()] }, gateway(1, &bench.gateway)]);
    let running = RunningRelay::start(control, 2);
    until(|| control.shared.parked.lock().unwrap().get(&relay).is_some_and(|at| !at.is_empty())).await;

    let good = bench.device.claims(1);
    let entry = bench.device.entry_to(relay, bench.gateway.ready.listen, &sign(&good));
    let mut stream = Stream::open(&entry, 1, &sign(&good)).await;
    stream.ping(b"over the relay").await.unwrap();
    assert_eq!(stream.close().await, EndCause::Done);
    let foreign_org = Claims { org: OrgId::from_ulid(Ulid(9)), ..good.clone() };
    let other_resource = Claims { resource: resource_id(2), ..good.clone() };
    let other_device = Device::new(&control.ca, 2).claims(1);
    let table = [
        (1, &foreign_org, 403, "lease_foreign"),
        (1, &other_resource, 403, "lease_foreign"),
        (1, &other_device, 403, "lease_foreign"),
        // A good lease of something that another node is to dial.
        (2, &other_resource, 421, "other_node"),
        (
            7,
            &Claims { resource: resource_id(7), issued_at: UnixMillis(now().0 - 20_000), ..good.clone() },
            404,
            "unknown_resource",
        ),
    ];
    for (resource, claims, status, code) in table {
        let problem = Stream::open(&entry, resource, &sign(claims)).await.refusal().await;
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{problem}");
    }
    // And what the gateway before it lets nobody to it with.
    for (claims, status, code) in [
        (&foreign_org, 403, "lease_foreign"),
        (&other_device, 403, "lease_foreign"),
        (&other_resource, 421, "other_node"),
    ] {
        let entry = bench.device.entry_to(relay, bench.gateway.ready.listen, &sign(claims));
        let problem = Stream::open(&entry, 1, &sign(&good)).await.refusal().await;
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{problem}");
    }
    until(|| !control.ends().is_empty()).await;
    assert_eq!(control.starts().len(), 1, "something was dialled with another lease");
    assert!(control.shared.records.lock().unwrap().contains_key(&relay), "the relay has not recorded what it dialled");
    running.finish().await;
    bench.gateway.finish().await;
}

#[tokio::test]
async fn gateways_that_each_believe_the_relay_at_the_other_do_not_send_a_client_round_in_circles() {
    let control = Control::start(vec![echo(1).await]).await;
    let states = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut gateways = Vec::new();
    for (n, state) in (1..).zip(&states) {
        let token = token(n);
        let options = ["--enrol-token", token.as_str(), "--metrics", "127.0.0.1:0"];
        gateways.push(Running::try_start(&control, state, &options).await.unwrap());
    }
    let relay = numbered(9);
    for (n, other) in [(1, 2), (2, 1)] {
        let parked = vec![ParkedAt { gateway: numbered(other), latency_micros: 1 }];
        let relay = RelayInfo { id: relay, name: "relay".into(), parked, draining: false, drain_ends: None };
        let known = (1..).zip(&gateways).map(|(n, running)| gateway(n, running));
        control.tell(numbered(n), known.chain([Item::Relay(relay)]).collect());
    }
    let device = Device::new(&control.ca, 1);
    let lease = device.lease(1);
    let door = gateways[0].ready.listen.unwrap().to_string();
    let wish = Passage::new(relay, "gw", Some(lease)).unwrap();
    // Until both have heard of each other, the second refuses for another reason, or is not asked at all.
    let refused = async |gateway: &Running, code: &str| {
        let (_, text) = get(gateway.ready.monitor.metrics.unwrap(), "/metrics").await;
        let name = format!("postern_streams_refused_total{{code=\"{code}\"}}");
        if text.contains(&name) { sample(&text, &name) } else { 0.0 }
    };
    let mut asked = 0.0;
    while refused(&gateways[1], "relay_away").await == 0.0 {
        let refused = park::forward(&door, node(), &device.tls, &wish).await.err();
        let Some(ForwardError::Open(OpenError::Refused(refused))) = refused else { panic!("{refused:?}") };
        assert_eq!((refused.problem.status, refused.problem.code.as_str()), (503, "relay_away"));
        asked += 1.0;
    }
    assert_eq!(refused(&gateways[0], "relay_away").await, asked, "it was asked by the other one");
    assert_eq!(refused(&gateways[1], "relay_away").await, 1.0);
    for gateway in gateways {
        gateway.finish().await;
    }
}
