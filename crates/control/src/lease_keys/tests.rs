use postern_proto::{
    id::{AccountId, DeviceId, OrgId, ResourceId},
    lease::{Refusal, Verifier},
};
use ulid::Ulid;

use super::*;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

fn claims() -> Claims {
    let ulid = Ulid::from_parts(1, 2);
    Claims {
        org: OrgId::from_ulid(ulid),
        account: AccountId::from_ulid(ulid),
        device: DeviceId::from_ulid(ulid),
        cnf: "0".repeat(64),
        resource: ResourceId::from_ulid(ulid),
        revision: 7,
        grant: "rol_x".to_owned(),
        issued_at: NOW,
        not_after: NOW.plus(lease::LIFETIME),
        grant_ends: None,
        cluster: None,
    }
}

/// What a node knows that has heard the announcement.
fn verifier(keys: &LeaseKeys) -> Verifier {
    let keys: Vec<(String, Vec<u8>)> = keys.keys.iter().map(|key| (key.id.clone(), key.public.to_vec())).collect();
    Verifier::new(keys.iter().map(|(id, key)| (id.as_str(), key.as_slice())))
}

#[test]
fn a_lease_is_verified_with_the_announced_key_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let token = LeaseKeys::open_or_create(folder.path(), NOW).unwrap().sign(&claims(), NOW).unwrap();
    let again = LeaseKeys::open_or_create(folder.path(), NOW.plus(ANNOUNCE)).unwrap();
    assert_eq!(verifier(&again).open(&token).unwrap(), claims());
    assert_eq!(again.keys.len(), 1);
}

#[test]
fn a_lease_of_another_control_plane_is_signed_with_an_unknown_key() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = LeaseKeys::open_or_create(ours.path(), NOW).unwrap();
    let theirs = LeaseKeys::open_or_create(theirs.path(), NOW).unwrap();
    let token = theirs.sign(&claims(), NOW).unwrap();
    assert_eq!(verifier(&ours).open(&token), Err(Refusal::UnknownKey));
}

#[test]
fn a_key_signs_only_after_it_was_announced_and_goes_only_when_its_leases_are_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = LeaseKeys::open_or_create(folder.path(), NOW).unwrap();
    assert!(!keys.rotate(NOW.plus(ROTATE_AFTER / 2)).unwrap());
    let stale = verifier(&keys);

    let rotated = NOW.plus(ROTATE_AFTER);
    assert!(keys.rotate(rotated).unwrap());
    assert_eq!(keys.announced().count(), 2);
    assert!(stale.open(&keys.sign(&claims(), rotated).unwrap()).is_ok());

    let signing = rotated.plus(ANNOUNCE);
    assert_eq!(stale.open(&keys.sign(&claims(), signing).unwrap()), Err(Refusal::UnknownKey));
    let last_old = keys.sign(&claims(), rotated).unwrap();
    assert!(!keys.rotate(signing.plus(lease::LIFETIME + lease::FAIL_STATIC)).unwrap());
    assert!(verifier(&keys).open(&last_old).is_ok());

    assert!(keys.rotate(signing.plus(RETIRE_AFTER)).unwrap());
    assert_eq!(keys.announced().count(), 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(!keys.rotate(signing.plus(RETIRE_AFTER)).unwrap());
}

#[test]
fn a_broken_key_file_is_named_and_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let keys = LeaseKeys::open_or_create(folder.path(), NOW).unwrap();
    let path = keys.keys[0].path.clone();
    let mut secret = private_file::read(&path).unwrap();
    secret[40] ^= 1;
    private_file::write(&path, &secret).unwrap();
    let refused = LeaseKeys::open_or_create(folder.path(), NOW).unwrap_err();
    assert!(matches!(&refused, LeaseKeyError::Unusable(named) if *named == path));
}
