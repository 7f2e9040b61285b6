use postern_proto::{
    door::EntryCarrier,
    id::{AccountId, ClusterId, DeviceId, OrgId},
    sync::Peer,
};
use postern_tunnel::{
    identity,
    tls::{Identity, Trust, install_crypto_provider},
};
use proptest::prelude::*;

use super::*;

fn tls() -> ClientTls {
    install_crypto_provider();
    let org = OrgId::from_ulid(1.into());
    let peer = Peer::Device { account: AccountId::from_ulid(2.into()), device: DeviceId::from_ulid(3.into()) };
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::default();
    leaf.subject_alt_names = vec![rcgen::SanType::URI(identity::uri(org, peer).try_into().unwrap())];
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)).unwrap().pem();
    let identity = Identity::from_pem(org, &leaf, &key.serialize_pem()).unwrap();
    ClientTls::new(&Trust::from_pem(org, &pem).unwrap(), &identity).unwrap()
}

fn node(n: u128) -> NodeId {
    NodeId::from_ulid(n.into())
}

fn info(n: u128) -> GatewayInfo {
    GatewayInfo {
        id: node(n),
        name: format!("gw-{n}"),
        address: format!("127.0.0.1:{n}"),
        draining: false,
        drain_ends: None,
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1000 + seconds)
}

fn listed(n: u128) -> Listed {
    Listed::Gateway(info(n))
}

fn ends(list: &[u128]) -> Vec<Door> {
    list.iter().map(|n| node(*n).into()).collect()
}

/// Gateways 1 to `count`.
fn gateways(count: u128) -> Gateways {
    let mut gateways = Gateways::new(7);
    gateways.set_tls(Some(tls()));
    gateways.set((1..=count).map(listed).collect(), Vec::new()).unwrap();
    gateways
}

fn chosen(gateways: &Gateways, via: &[u128], tried: &[u128], now: Duration) -> Option<u128> {
    let tried: Vec<Way> = ends(tried).into_iter().map(Way::from).collect();
    gateways.choose(&ends(via), &tried, now).map(|entry| entry.end().node().unwrap().ulid().0)
}

#[test]
fn the_fastest_that_works_is_taken() {
    let mut gateways = gateways(3);
    gateways.note_reached(node(1), Some(Duration::from_millis(80)));
    gateways.note_reached(node(2), Some(Duration::from_millis(12)));
    gateways.note_reached(node(3), Some(Duration::from_millis(40)));
    assert_eq!(chosen(&gateways, &[], &[], at(0)), Some(2));
    assert_eq!(chosen(&gateways, &[], &[2], at(0)), Some(3));
    assert_eq!(chosen(&gateways, &[], &[2, 3, 1], at(0)), None);
}

#[test]
fn two_that_are_about_as_fast_do_not_take_turns() {
    let mut gateways = gateways(2);
    let millis = Duration::from_millis;
    gateways.note_reached(node(1), Some(millis(14)));
    gateways.note_reached(node(2), Some(millis(16)));
    assert_eq!(chosen(&gateways, &[], &[], at(0)), Some(1));
    // They pass each other again and again, and the border between two steps, too.
    for round in 0..40 {
        let (first, second) = if round % 8 < 4 { (18, 13) } else { (11, 18) };
        gateways.note_reached(node(1), Some(millis(first)));
        gateways.note_reached(node(2), Some(millis(second)));
        assert_eq!(chosen(&gateways, &[], &[], at(round)), Some(1), "in round {round}");
    }
    for round in 40..60 {
        gateways.note_reached(node(1), Some(millis(60)));
        gateways.note_reached(node(2), Some(millis(16)));
        if chosen(&gateways, &[], &[], at(round)) == Some(2) {
            return;
        }
    }
    panic!("one that has become slow is kept");
}

#[test]
fn only_gateways_that_carry_the_resource_count_and_their_order_decides_between_equals() {
    let gateways = gateways(3);
    assert_eq!(chosen(&gateways, &[3, 2], &[], at(0)), Some(3));
    assert_eq!(chosen(&gateways, &[3, 2], &[3], at(0)), Some(2));
    assert_eq!(chosen(&gateways, &[9], &[], at(0)), None);
}

#[test]
fn one_that_failed_is_left_alone_for_a_while_and_tried_all_the_same_when_all_have_failed() {
    let mut gateways = gateways(2);
    gateways.note_failed(node(1), "down".to_owned(), at(0));
    assert_eq!(chosen(&gateways, &[], &[], at(0)), Some(2));
    assert_eq!(chosen(&gateways, &[], &[], at(2)), Some(2), "its pause is over, and nobody knows more yet");
    gateways.note_failed(node(2), "down".to_owned(), at(2));
    assert_eq!(chosen(&gateways, &[], &[], at(2)), Some(1), "its pause is over");
    gateways.note_failed(node(1), "down".to_owned(), at(2));
    assert!(chosen(&gateways, &[], &[], at(2)).is_some());
    gateways.note_reached(node(1), None);
    assert_eq!(chosen(&gateways, &[], &[], at(2)), Some(1));
}

#[test]
fn a_draining_one_comes_before_one_that_is_down_and_after_one_that_works() {
    let mut gateways = gateways(3);
    gateways.note_failed(node(1), "down".to_owned(), at(0));
    gateways.note_draining(node(2), at(0));
    assert_eq!(chosen(&gateways, &[], &[], at(0)), Some(3));
    assert_eq!(chosen(&gateways, &[], &[3], at(0)), Some(2));
    let mut draining = info(3);
    draining.draining = true;
    gateways.set(vec![listed(1), listed(2), Listed::Gateway(draining)], Vec::new()).unwrap();
    assert_eq!(chosen(&gateways, &[], &[], at(60)), Some(2), "it may be back; the one that was down is looked at");
    assert_eq!(chosen(&gateways, &[], &[2], at(60)), Some(1), "its pause is over, and the last one drains");
}

#[test]
fn one_that_is_back_in_service_is_looked_at_at_once_and_taken_again() {
    let mut gateways = gateways(2);
    let said = |draining: bool| {
        let mut first = info(1);
        first.draining = draining;
        vec![Listed::Gateway(first), listed(2)]
    };
    let _first_look = gateways.take_due_probes(at(0));
    gateways.set(said(true), Vec::new()).unwrap();
    gateways.note_draining(node(1), at(1));
    gateways.note_failed(node(1), "down".to_owned(), at(2));
    assert_eq!(chosen(&gateways, &[], &[], at(2)), Some(2));
    gateways.set(said(false), Vec::new()).unwrap();
    assert_eq!(chosen(&gateways, &[], &[2], at(2)), Some(1));
    assert_eq!(gateways.take_due_probes(at(2)).len(), 1);
    assert_eq!(chosen(&gateways, &[], &[], at(2)), Some(1), "it counts as one of which nothing is known");
}

#[test]
fn many_streams_that_fail_at_once_are_one_failure() {
    let mut gateways = gateways(1);
    for _ in 0..100 {
        gateways.note_failed(node(1), "down".to_owned(), at(0));
    }
    assert!(gateways.take_due_probes(at(1)).len() == 1, "looked at again soon");
}

#[test]
fn a_doubt_is_followed_up_at_once_but_not_every_time_that_something_cuts_what_stands_idle() {
    let mut gateways = gateways(1);
    let doubt = |gateways: &mut Gateways, now| gateways.known.get_mut(&Way::from(node(1))).unwrap().doubt(now);
    assert_eq!(gateways.take_due_probes(at(0)).len(), 1, "nothing is known of it");
    gateways.note_reached(node(1), None);
    let mut looks = 0;
    for second in 1..=120 {
        doubt(&mut gateways, at(second));
        looks += gateways.take_due_probes(at(second)).len();
    }
    assert_eq!(looks, 2, "in two minutes");
    // One that was right is worth the next.
    gateways.note_failed(node(1), "down".to_owned(), at(121));
    doubt(&mut gateways, at(121));
    assert_eq!(gateways.take_due_probes(at(121)).len(), 0, "its pause holds");
    gateways.note_reached(node(1), None);
    let _after_its_pause = gateways.take_due_probes(at(125));
    doubt(&mut gateways, at(126));
    assert_eq!(gateways.take_due_probes(at(126)).len(), 1);
}

#[test]
fn what_is_known_of_a_gateway_outlives_an_update_but_not_a_move() {
    let mut gateways = gateways(2);
    let before = gateways.entry(node(1)).unwrap();
    gateways.note_failed(node(2), "down".to_owned(), at(0));
    let mut moved = info(2);
    moved.address = "127.0.0.1:99".to_owned();
    gateways.set(vec![listed(1), Listed::Gateway(moved)], Vec::new()).unwrap();
    assert!(Arc::ptr_eq(&before, &gateways.entry(node(1)).unwrap()), "its warm connections are kept");
    assert!(matches!(gateways.status(at(0))[1].state, GatewayState::Unknown));
    gateways.set(vec![listed(2)], Vec::new()).unwrap();
    assert!(gateways.entry(node(1)).is_none());
}

fn relay(n: u128, parked: &[(u128, u64)]) -> RelayInfo {
    let parked = parked.iter().map(|(gateway, millis)| postern_proto::sync::ParkedAt {
        gateway: node(*gateway),
        latency_micros: millis * 1000,
    });
    RelayInfo { id: node(n), name: format!("relay-{n}"), parked: parked.collect(), draining: false, drain_ends: None }
}

/// Gateway and end of the way that is chosen.
fn way(gateways: &Gateways, via: &[u128], tried: &[Way], now: Duration) -> Option<(u128, u128)> {
    let entry = gateways.choose(&ends(via), tried, now)?;
    Some((entry.door().node()?.ulid().0, entry.end().node()?.ulid().0))
}

#[test]
fn a_relay_is_reached_over_the_cheapest_gateway_that_works() {
    let mut gateways = gateways(3);
    gateways.set((1..=3).map(listed).collect(), vec![relay(9, &[(1, 40), (2, 1)])]).unwrap();
    gateways.note_reached(node(1), Some(Duration::from_millis(10)));
    gateways.note_reached(node(2), Some(Duration::from_millis(30)));
    gateways.note_reached(node(3), Some(Duration::from_millis(1)));
    assert_eq!(way(&gateways, &[], &[], at(0)), Some((3, 3)), "what names no relay goes over none");
    assert_eq!(way(&gateways, &[9], &[], at(0)), Some((2, 9)), "31 ms against 50");
    let hops = gateways.route(&ends(&[9]), at(0)).unwrap().hops;
    let told: Vec<_> = hops.iter().map(|hop| (hop.name.as_str(), hop.latency_micros)).collect();
    assert_eq!(told, [("gw-2", Some(30_000)), ("relay-9", Some(1_000))]);
    gateways.note_failed(node(2), "down".to_owned(), at(0));
    assert_eq!(way(&gateways, &[9], &[], at(0)), Some((1, 9)), "the gateway's failure is that of every way through it");
    let tried =
        [Way { door: node(1).into(), relay: Some(node(9)) }, Way { door: node(2).into(), relay: Some(node(9)) }];
    assert_eq!(way(&gateways, &[9], &tried, at(0)), Some((3, 9)), "it passes streams on to where the relay is");
}

#[test]
fn a_way_to_a_relay_that_fails_leaves_the_gateway_itself_in_use() {
    let mut gateways = gateways(2);
    gateways.set((1..=2).map(listed).collect(), vec![relay(9, &[(1, 1), (2, 1)])]).unwrap();
    gateways.note_failed(Way { door: node(1).into(), relay: Some(node(9)) }, "away".to_owned(), at(0));
    assert_eq!(way(&gateways, &[9], &[], at(0)), Some((2, 9)));
    assert_eq!(way(&gateways, &[1], &[], at(0)), Some((1, 1)));
    gateways.set((1..=2).map(listed).collect(), vec![relay(9, &[])]).unwrap();
    assert_eq!(way(&gateways, &[9], &[], at(0)), None, "a relay that is parked nowhere is not reached");
}

#[test]
fn a_cluster_carries_what_is_bound_to_it_and_nothing_else() {
    let cluster = ClusterInfo {
        leaving: Vec::new(),
        removed: Vec::new(),
        id: ClusterId::from_ulid(5.into()),
        name: "eu".to_owned(),
        address: "127.0.0.1:443".to_owned(),
        carrier: EntryCarrier::Direct,
        authority: None,
    };
    let mut gateways = Gateways::new(7);
    gateways.set_tls(Some(tls()));
    gateways.set(vec![Listed::Cluster(cluster.clone())], vec![relay(9, &[])]).unwrap();
    assert!(gateways.choose(&[], &[], at(0)).is_none(), "what is bound to none goes over gateways");
    let ends = [Door::from(cluster.id)];
    let entry = gateways.choose(&ends, &[], at(0)).unwrap();
    assert_eq!((entry.door(), entry.end()), (ends[0], ends[0]));
    assert_eq!(gateways.route(&ends, at(0)).unwrap().hops[0].name, "eu");
    gateways.set(vec![listed(1), Listed::Cluster(cluster.clone())], Vec::new()).unwrap();
    assert!(Arc::ptr_eq(&entry, &gateways.entry(cluster.id).unwrap()), "its warm connections are kept");
    assert_eq!(chosen(&gateways, &[], &[], at(0)), Some(1));
    gateways.note_failed(node(1), "down".to_owned(), at(0));
    assert_eq!(chosen(&gateways, &[], &[], at(0)), Some(1), "a cluster takes nothing over from gateways");
    let moved = ClusterInfo { address: "127.0.0.1:444".to_owned(), ..cluster.clone() };
    gateways.set(vec![Listed::Cluster(moved)], Vec::new()).unwrap();
    assert!(!Arc::ptr_eq(&entry, &gateways.entry(cluster.id).unwrap()));
}

#[test]
fn who_is_carried_by_a_worker_that_leaves_is_told_when_and_others_of_the_cluster_are_not() {
    let leaving = LeavingWorker { id: node(3), name: "eu-worker-3".to_owned(), ends: UnixMillis(9000) };
    let cluster = ClusterInfo {
        id: ClusterId::from_ulid(5.into()),
        name: "eu".to_owned(),
        address: "127.0.0.1:443".to_owned(),
        carrier: EntryCarrier::Direct,
        authority: None,
        leaving: vec![leaving],
        removed: vec![node(4)],
    };
    let mut gateways = Gateways::new(7);
    gateways.set_tls(Some(tls()));
    gateways.set(vec![listed(1), Listed::Cluster(cluster.clone())], Vec::new()).unwrap();
    assert!(gateways.any_leaves());
    let way = Way::from(cluster.id);
    assert_eq!(gateways.leaves(way, Some(node(3))), Some((UnixMillis(9000), "eu-worker-3".to_owned())));
    assert_eq!(gateways.leaves(way, Some(node(2))), None);
    assert_eq!(gateways.leaves(way, None), None);
    assert_eq!(gateways.leaves(Way::from(node(1)), Some(node(3))), None);
    assert_eq!(gateways.removed(), [node(4)].into());
    let before = gateways.entry(cluster.id).unwrap();
    let calm = ClusterInfo { leaving: Vec::new(), ..cluster.clone() };
    gateways.set(vec![Listed::Cluster(calm)], Vec::new()).unwrap();
    assert!(!gateways.any_leaves());
    assert!(Arc::ptr_eq(&before, &gateways.entry(cluster.id).unwrap()), "its warm connections are kept");
}

#[test]
fn two_ways_of_which_nothing_is_known_are_rivals_until_one_is_proven() {
    let mut gateways = gateways(2);
    assert!(gateways.rivals(&[], &[], at(0)).is_some());
    assert!(gateways.rivals(&[], &[node(1).into()], at(0)).is_none());
    gateways.note_reached(node(1), Some(Duration::from_millis(1)));
    assert!(gateways.rivals(&[], &[], at(0)).is_none());
}

proptest! {
    #[test]
    fn a_stream_that_tries_one_after_another_tries_each_once(
        failed in prop::collection::vec((1_u128..=4, 0_u64..5), 0..12),
        now in 0_u64..10,
    ) {
        let mut gateways = gateways(4);
        for (n, when) in failed {
            gateways.note_failed(node(n), String::new(), at(when));
        }
        let mut tried = Vec::new();
        while let Some(n) = chosen(&gateways, &[], &tried, at(now)) {
            prop_assert!(!tried.contains(&n));
            tried.push(n);
        }
        prop_assert_eq!(tried.len(), 4);
    }
}
