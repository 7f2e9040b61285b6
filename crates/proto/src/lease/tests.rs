use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use ulid::Ulid;

use super::*;

const MINUTE: u64 = 60_000;
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn keys(seed: u8) -> (Signer, Vec<u8>) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = pair.public_key().as_ref().to_vec();
    let secret = [[seed; 32].as_slice(), &public].concat();
    (Signer::new(format!("key{seed}"), &secret).unwrap(), public)
}

fn claims() -> Claims {
    let id = |n: u128| Ulid::from(n);
    Claims {
        org: OrgId::from_ulid(id(1)),
        account: AccountId::from_ulid(id(2)),
        device: DeviceId::from_ulid(id(3)),
        cnf: "ab".repeat(32),
        resource: ResourceId::from_ulid(id(4)),
        revision: 7,
        grant: "rol_01JABCDEFGHJKMNPQRSTVWXYZ0".to_owned(),
        issued_at: NOW,
        not_after: NOW.plus(LIFETIME),
        grant_ends: None,
        cluster: None,
    }
}

fn holder(claims: &Claims) -> Holder {
    Holder { org: claims.org, account: claims.account, device: claims.device, cnf: claims.cnf.clone() }
}

fn at(minutes: u64) -> UnixMillis {
    UnixMillis(NOW.0 + minutes * MINUTE)
}

#[test]
fn a_signed_lease_is_read_back_with_the_key_it_names() {
    let (signer, public) = keys(1);
    let token = signer.sign(&claims()).unwrap();
    let verifier = Verifier::new([("key1", public.as_slice())]);
    assert_eq!(verifier.open(&token).unwrap(), claims());
    assert!(token.len() <= MAX_TOKEN);
}

#[test]
fn a_lease_of_another_signer_opens_nothing() {
    let (_, public) = keys(1);
    let (stranger, _) = keys(2);
    let verifier = Verifier::new([("key1", public.as_slice())]);
    assert_eq!(verifier.open(&stranger.sign(&claims()).unwrap()), Err(Refusal::UnknownKey));

    let (_, right) = keys(1);
    let secret =
        [[2u8; 32].as_slice(), Ed25519KeyPair::from_seed_unchecked(&[2; 32]).unwrap().public_key().as_ref()].concat();
    let impostor = Signer::new("key1", &secret).unwrap();
    let verifier = Verifier::new([("key1", right.as_slice())]);
    assert_eq!(verifier.open(&impostor.sign(&claims()).unwrap()), Err(Refusal::BadSignature));
}

#[test]
fn every_changed_character_of_a_token_is_noticed() {
    let (signer, public) = keys(1);
    let token = signer.sign(&claims()).unwrap();
    let verifier = Verifier::new([("key1", public.as_slice())]);
    for index in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        assert!(verifier.open(&String::from_utf8(bytes).unwrap()).is_err(), "changed at {index}");
    }
    assert_eq!(verifier.open(&"v4.public.".repeat(300)), Err(Refusal::Malformed));
}

#[test]
fn a_lease_opens_its_resource_for_its_holder_and_nothing_else() {
    let lease = claims();
    let right = holder(&lease);
    let check = |holder: &Holder, resource| lease.check(holder, resource, false, Contact::Connected, NOW);
    assert_eq!(check(&right, lease.resource), Ok(()));
    assert_eq!(check(&right, ResourceId::from_ulid(Ulid::from(99u128))), Err(Refusal::OtherResource));
    let other = Ulid::from(99u128);
    let strangers = [
        (Holder { org: OrgId::from_ulid(other), ..right.clone() }, Refusal::ForeignOrg),
        (Holder { account: AccountId::from_ulid(other), ..right.clone() }, Refusal::ForeignHolder),
        (Holder { device: DeviceId::from_ulid(other), ..right.clone() }, Refusal::ForeignHolder),
        (Holder { cnf: "cd".repeat(32), ..right }, Refusal::ForeignHolder),
    ];
    for (stranger, refusal) in strangers {
        assert_eq!(check(&stranger, lease.resource), Err(refusal));
    }
}

#[test]
fn a_lease_ends_on_time_while_the_control_plane_is_there() {
    let lease = claims();
    let check = |now| lease.check(&holder(&lease), lease.resource, false, Contact::Connected, now);
    assert_eq!(check(at(14)), Ok(()));
    assert_eq!(check(at(15)), Err(Refusal::Expired));
    assert_eq!(check(UnixMillis(NOW.0 - 2 * MINUTE)), Err(Refusal::NotYetValid));
}

#[test]
fn cached_leases_go_on_for_an_hour_without_the_control_plane_and_strict_ones_for_fifteen_seconds() {
    let lease = claims();
    let check =
        |strict, since, now| lease.check(&holder(&lease), lease.resource, strict, Contact::AwaySince(since), now);
    assert_eq!(check(false, at(1), at(60)), Ok(()));
    assert_eq!(check(false, at(1), at(62)), Err(Refusal::ControlPlaneAway));
    assert_eq!(check(false, at(16), at(17)), Err(Refusal::Expired), "what ended before the outage stays ended");
    assert_eq!(check(true, at(1), UnixMillis(at(1).0 + 15_000)), Ok(()));
    assert_eq!(check(true, at(1), UnixMillis(at(1).0 + 15_001)), Err(Refusal::ControlPlaneAway));
}

#[test]
fn the_end_of_the_grant_ends_the_lease_even_without_the_control_plane() {
    let lease = Claims { grant_ends: Some(at(5)), ..claims() };
    for contact in [Contact::Connected, Contact::AwaySince(NOW)] {
        assert_eq!(lease.check(&holder(&lease), lease.resource, false, contact, at(5)), Err(Refusal::GrantEnded));
    }
}

#[test]
fn a_revocation_voids_older_leases_and_spares_those_granted_anew() {
    let old = claims();
    let revocation = Revocation {
        subject: RevokedSubject::Access { account: old.account, resource: old.resource },
        at: at(1),
        reason: "role removed".to_owned(),
    };
    let renewed = Claims { issued_at: at(2), ..old.clone() };
    assert!(revocation.voids(&old));
    assert!(!revocation.voids(&renewed));
}

#[test]
fn each_kind_of_revocation_matches_what_it_names_and_nothing_else() {
    let lease = claims();
    let stream = StreamSubject {
        account: lease.account,
        device: lease.device,
        resource: lease.resource,
        grant: lease.grant.clone(),
    };
    let other = Ulid::from(99u128);
    let right = [
        RevokedSubject::Account { account: lease.account },
        RevokedSubject::Device { device: lease.device },
        RevokedSubject::Grant { grant: lease.grant.clone() },
        RevokedSubject::Resource { resource: lease.resource },
        RevokedSubject::Access { account: lease.account, resource: lease.resource },
    ];
    let wrong = [
        RevokedSubject::Account { account: AccountId::from_ulid(other) },
        RevokedSubject::Device { device: DeviceId::from_ulid(other) },
        RevokedSubject::Grant { grant: "rol_other".to_owned() },
        RevokedSubject::Resource { resource: ResourceId::from_ulid(other) },
        RevokedSubject::Access { account: lease.account, resource: ResourceId::from_ulid(other) },
        RevokedSubject::Access { account: AccountId::from_ulid(other), resource: lease.resource },
        RevokedSubject::Node { node: NodeId::from_ulid(other) },
    ];
    assert!(right.iter().all(|subject| subject.matches(&stream)));
    assert!(!wrong.iter().any(|subject| subject.matches(&stream)));
}
