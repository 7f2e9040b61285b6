use std::{collections::BTreeMap, time::Duration};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use postern_proto::{
    head::Wanted,
    id::{AccountId, ClusterId, DeviceId, OrgId, StreamId},
    lease::{FAIL_STATIC, FAIL_STATIC_STRICT, LIFETIME, RevokedSubject, Signer},
    record::hex,
    resource::Kind,
    sync::{Item, ItemKey},
};
use ulid::Ulid;

use super::*;

const NOW: UnixMillis = UnixMillis(1_000_000_000);

fn ulid(n: u128) -> Ulid {
    Ulid::from_parts(1, n)
}

struct Key {
    signer: Signer,
    item: Item,
}

fn key(id: &str, seed: u8) -> Key {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = pair.public_key().as_ref();
    let secret: Vec<u8> = [[seed; 32].as_slice(), public].concat();
    Key { signer: Signer::new(id, &secret).unwrap(), item: Item::LeaseKey { id: id.into(), public: hex(public) } }
}

fn resource(id: u128, strict: bool) -> NodeResource {
    NodeResource {
        id: ResourceId::from_ulid(ulid(id)),
        name: "db".into(),
        kind: Kind::Postgres,
        tags: BTreeMap::new(),
        host: "10.0.0.1".into(),
        port: 5432,
        ports: "7000-7005".parse().unwrap(),
        hosts: vec!["*.db.internal".parse().unwrap()],
        revision: 1,
        allow_local: false,
        strict,
        egress: None,
    }
}

fn holder() -> Holder {
    Holder {
        org: OrgId::from_ulid(ulid(1)),
        account: AccountId::from_ulid(ulid(2)),
        device: DeviceId::from_ulid(ulid(3)),
        cnf: "ab".into(),
    }
}

fn claims(resource: u128) -> Claims {
    let Holder { org, account, device, cnf } = holder();
    Claims {
        org,
        account,
        device,
        cnf,
        resource: ResourceId::from_ulid(ulid(resource)),
        revision: 1,
        grant: "rol_1".into(),
        issued_at: NOW,
        not_after: NOW.plus(LIFETIME),
        grant_ends: None,
        cluster: None,
    }
}

/// Knows key `a`, resource 1, and the strict resource 2.
fn egress() -> Egress {
    let items = [key("a", 1).item, Item::Resource(resource(1, false)), Item::Resource(resource(2, true))];
    Egress::new(Catalogue::new(&items), Revocations::default())
}

fn sign(claims: &Claims) -> String {
    key("a", 1).signer.sign(claims).unwrap()
}

fn request(resource: u128, token: &str) -> Request {
    Request::new(ResourceId::from_ulid(ulid(resource)), "gw", token, StreamId::from_ulid(ulid(7))).unwrap()
}

fn decide(egress: &Egress, token: &str, resource: u128, contact: Contact, now: UnixMillis) -> Result<(), Denial> {
    egress.decide(&holder(), &request(resource, token), contact, now).map(|_| ())
}

#[test]
fn a_resource_that_is_reached_over_another_door_is_told_from_one_that_nobody_knows() {
    let cluster = |n| ClusterId::from_ulid(ulid(n));
    let lease = |cluster| sign(&Claims { cluster, ..claims(3) });
    let worker = |own| egress().of(Some(cluster(own)));
    for (node, bound, over) in [
        (egress(), Some(8), Some("cluster")),
        (worker(8), Some(9), Some("cluster")),
        (worker(8), None, Some("gateways")),
        (egress(), None, None),
        (worker(8), Some(8), None),
    ] {
        let token = lease(bound.map(cluster));
        let denial = decide(&node, &token, 3, Contact::Connected, NOW).unwrap_err();
        let problem = denial.problem();
        match over {
            Some(over) => {
                assert_eq!((problem.status, problem.code.as_str()), (421, "other_door"), "{bound:?}");
                assert!(problem.detail.as_deref().is_some_and(|detail| detail.contains(over)), "{problem}");
            }
            None => assert_eq!(denial, Denial::UnknownResource { leased_at: NOW }, "{bound:?}"),
        }
    }
}

#[test]
fn a_good_lease_opens_a_stream_and_is_verified_once() {
    let egress = egress();
    let token = sign(&claims(1));
    for _ in 0..2 {
        let permit = egress.decide(&holder(), &request(1, &token), Contact::Connected, NOW).unwrap();
        assert_eq!((permit.resource.name.as_str(), &permit.claims.grant), ("db", &"rol_1".to_owned()));
    }
    assert!(lock(&egress.leases).get(&hash_of(&token)).is_some());
}

#[test]
fn a_stream_that_was_decided_about_before_its_resource_became_narrower_is_refused() {
    let egress = egress();
    let request = request(1, &sign(&claims(1))).wanting(Wanted { port: 7003, host: None });
    let permit = egress.decide(&holder(), &request, Contact::Connected, NOW).unwrap();
    assert_eq!(egress.still_good(&permit, &request), Ok(()));
    let change = |put: Vec<Item>, removed| Change { scope: "gateways".into(), snapshot: false, put, removed };
    egress.apply(&change(vec![Item::Resource(NodeResource { revision: 2, ..resource(1, false) })], vec![]));
    assert_eq!(egress.still_good(&permit, &request), Ok(()), "it still includes the port");
    let narrower = NodeResource { ports: "7000-7002".parse().unwrap(), ..resource(1, false) };
    egress.apply(&change(vec![Item::Resource(narrower)], vec![]));
    assert!(matches!(egress.still_good(&permit, &request), Err(Denial::OutOfReach { .. })));
    egress.apply(&change(vec![], vec![ItemKey::Resource { id: resource(1, false).id }]));
    assert_eq!(egress.still_good(&permit, &request), Err(Denial::UnknownResource { leased_at: NOW }));
}

#[test]
fn every_way_to_be_refused_has_its_status_and_code() {
    let past = NOW.plus(LIFETIME);
    let grant_over = Claims { grant_ends: Some(NOW), ..claims(1) };
    let foreign_org = Claims { org: OrgId::from_ulid(ulid(9)), ..claims(1) };
    let foreign_key = Claims { cnf: "cd".into(), ..claims(1) };
    let early = Claims { issued_at: NOW.plus(Duration::from_secs(3600)), ..claims(1) };
    let unknown_key = key("b", 2).signer.sign(&claims(1)).unwrap();
    let bad_signature = key("a", 2).signer.sign(&claims(1)).unwrap();
    let table = [
        (sign(&claims(1)), 1, past, 401, "lease_expired"),
        (unknown_key, 1, NOW, 401, "lease_key_unknown"),
        (bad_signature, 1, NOW, 403, "lease_invalid"),
        ("nonsense".into(), 1, NOW, 403, "lease_invalid"),
        (sign(&foreign_org), 1, NOW, 403, "lease_foreign"),
        (sign(&foreign_key), 1, NOW, 403, "lease_foreign"),
        (sign(&claims(2)), 1, NOW, 403, "lease_foreign"),
        (sign(&grant_over), 1, NOW, 403, "grant_ended"),
        (sign(&early), 1, NOW, 403, "lease_in_future"),
        (sign(&claims(9)), 9, NOW, 404, "unknown_resource"),
    ];
    for (token, resource, now, status, code) in table {
        let denial = decide(&egress(), &token, resource, Contact::Connected, now).unwrap_err();
        let problem = denial.problem();
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{denial}");
    }
}

#[test]
fn a_stream_goes_to_the_host_and_port_that_are_asked_for_within_the_resource_and_nowhere_else() {
    let (egress, token) = (egress(), sign(&claims(1)));
    let ask = |port, host: Option<&str>| {
        let wanted = Wanted { port, host: host.map(|host| host.parse().unwrap()) };
        egress.decide(&holder(), &request(1, &token).wanting(wanted), Contact::Connected, NOW)
    };
    for (port, host, target) in [
        (0, None, "10.0.0.1:5432"),
        (7005, None, "10.0.0.1:7005"),
        (0, Some("n1.db.internal"), "n1.db.internal:5432"),
        (7000, Some("n1.db.internal"), "n1.db.internal:7000"),
    ] {
        assert_eq!(ask(port, host).unwrap().target.address(), target);
    }
    for (port, host, code, text) in [
        (7006, None, "port_not_allowed", "of resource db, port 7006 is none of its ports"),
        (22, Some("n1.db.internal"), "port_not_allowed", "of resource db, port 22 is none of its ports"),
        (7000, Some("db.internal"), "host_not_allowed", "of resource db, host db.internal is none of its hosts"),
        (0, Some("metadata.example"), "host_not_allowed", "of resource db, host metadata.example is none of its hosts"),
    ] {
        let denial = ask(port, host).unwrap_err();
        let problem = denial.problem();
        assert_eq!((problem.status, problem.code.as_str(), denial.to_string().as_str()), (403, code, text));
        assert!(denial.suspicious());
    }
}

#[test]
fn while_the_control_plane_is_away_cached_leases_count_to_the_end_of_the_window() {
    let egress = egress();
    let (plain, strict) = (sign(&claims(1)), sign(&claims(2)));
    let away = Contact::AwaySince(NOW);
    let after = |span: Duration| NOW.plus(span);
    assert_eq!(decide(&egress, &plain, 1, away, after(FAIL_STATIC)), Ok(()));
    assert_eq!(
        decide(&egress, &plain, 1, away, after(FAIL_STATIC + Duration::from_millis(1))),
        Err(Denial::Lease(Refusal::ControlPlaneAway))
    );
    assert_eq!(decide(&egress, &strict, 2, away, after(FAIL_STATIC_STRICT)), Ok(()));
    let too_late = after(FAIL_STATIC_STRICT + Duration::from_millis(1));
    assert_eq!(decide(&egress, &strict, 2, away, too_late), Err(Denial::Lease(Refusal::ControlPlaneAway)));
}

#[test]
fn a_revocation_voids_cached_leases_and_not_later_ones() {
    let egress = egress();
    let token = sign(&claims(1));
    assert_eq!(decide(&egress, &token, 1, Contact::Connected, NOW), Ok(()));
    let subject = RevokedSubject::Device { device: holder().device };
    egress.revoke(&[Revocation { subject, at: NOW, reason: "stolen".into() }], NOW);
    let denial = decide(&egress, &token, 1, Contact::Connected, NOW).unwrap_err();
    assert_eq!(denial, Denial::Revoked("stolen".into()));
    assert_eq!((denial.problem().status, denial.problem().code.as_str()), (401, "lease_revoked"));
    let later = sign(&Claims { issued_at: NOW.plus(Duration::from_millis(1)), ..claims(1) });
    assert_eq!(decide(&egress, &later, 1, Contact::Connected, NOW), Ok(()));
}

#[test]
fn verdicts_do_not_outlive_their_key() {
    let egress = egress();
    let token = sign(&claims(1));
    assert_eq!(decide(&egress, &token, 1, Contact::Connected, NOW), Ok(()));
    let removed = vec![ItemKey::LeaseKey { id: "a".into() }];
    egress.apply(&Change { scope: "org".into(), snapshot: false, put: vec![], removed });
    let denial = decide(&egress, &token, 1, Contact::Connected, NOW);
    assert_eq!(denial, Err(Denial::Lease(Refusal::UnknownKey)));
}

#[test]
fn a_resource_that_is_gone_is_unknown() {
    let egress = egress();
    let token = sign(&claims(1));
    let removed = vec![ItemKey::Resource { id: resource(1, false).id }];
    let effects = egress.apply(&Change { scope: "gateways".into(), snapshot: true, put: vec![], removed });
    assert_eq!(effects.removed, [resource(1, false).id]);
    assert_eq!(decide(&egress, &token, 1, Contact::Connected, NOW), Err(Denial::UnknownResource { leased_at: NOW }));
}
