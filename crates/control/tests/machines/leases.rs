use std::time::Duration;

use postern_proto::{
    lease::{Contact, Holder, LIFETIME, Verifier},
    sync::Item,
};

use crate::support::{Device, World};

/// What a node knows: the announced keys.
fn verifier(world: &World) -> Verifier {
    let keys = world.state().lease_keys.read().unwrap();
    let keys: Vec<(String, Vec<u8>)> = keys
        .announced()
        .map(|item| {
            let Item::LeaseKey { id, public } = item else { panic!("no key") };
            let bytes = (0..32).map(|n| u8::from_str_radix(&public[2 * n..2 * n + 2], 16).unwrap()).collect();
            (id, bytes)
        })
        .collect();
    Verifier::new(keys.iter().map(|(id, key)| (id.as_str(), key.as_slice())))
}

fn holder(device: &Device) -> Holder {
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(device.given.certificate.certificate.as_bytes());
    let der: rustls::pki_types::CertificateDer<'_> = der.unwrap();
    postern_tunnel::identity::PeerIdentity::from_leaf(&der, device.given.ca.org).unwrap().holder().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_given_for_what_is_granted_and_denied_for_the_rest() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let (granted, other) = (world.create_resource("granted").await, world.create_resource("other").await);
    let role = world.create_role("team", &[granted], account).await;
    let device = world.sign_in("ada@example.org").await;
    let missing = postern_proto::id::ResourceId::from_ulid(ulid::Ulid::from_parts(1, 1));
    let answer = device.leases(&[other, granted, missing, granted]).await.unwrap();
    assert_eq!(answer.denied, [missing, other]);
    let [lease] = &answer.leases[..] else { panic!("{answer:?}") };
    let claims = verifier(&world).open(&lease.token).unwrap();
    assert_eq!(claims.grant, role.to_string());
    assert_eq!(claims.not_after, claims.issued_at.plus(LIFETIME));
    claims.check(&holder(&device), granted, false, Contact::Connected, claims.issued_at).unwrap();
    let foreign = holder(&world.sign_in("ada@example.org").await);
    claims.check(&foreign, granted, false, Contact::Connected, claims.issued_at).unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_names_the_end_of_its_grant() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let resource = world.create_resource("db").await;
    let end = world.state().clock.now().plus(Duration::from_secs(3600));
    let grant = world.grant(account, resource, end).await;
    let device = world.sign_in("ada@example.org").await;
    let answer = device.leases(&[resource]).await.unwrap();
    let claims = verifier(&world).open(&answer.leases[0].token).unwrap();
    assert_eq!((claims.grant_ends, claims.grant), (Some(end), grant.to_string()));
    world.pass(Duration::from_secs(3600));
    assert_eq!(device.leases(&[resource]).await.unwrap().denied, [resource]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_never_outlives_the_login() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let resource = world.create_resource("db").await;
    world.create_role("team", &[resource], account).await;
    let device = world.sign_in("ada@example.org").await;
    world.pass(Duration::from_secs(12 * 3600 - 6 * 60));
    let answer = device.leases(&[resource]).await.unwrap();
    assert_eq!(answer.leases[0].not_after, device.given.expires_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_the_instant_before_a_revocation_is_void() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let resource = world.create_resource("db").await;
    let role = world.create_role("team", &[resource], account).await;
    let device = world.sign_in("ada@example.org").await;
    let mut change = world.change().await;
    change.remove_role(role).await.unwrap();
    // The change is under way, but nobody knows yet. Where control planes share a database, the answer waits for it.
    let commit = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        change.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(async { device.leases(&[resource]).await }, commit);
    let answer = answer.unwrap();
    assert_eq!(answer.leases.len() + answer.denied.len(), 1);
    let revocations = world.state().exchange.backlog().await.unwrap();
    for lease in answer.leases {
        let claims = verifier(&world).open(&lease.token).unwrap();
        assert!(revocations.iter().any(|revocation| revocation.voids(&claims)), "{revocations:?} {claims:?}");
    }
    assert_eq!(device.leases(&[resource]).await.unwrap().denied, [resource]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_need_the_certificate_of_a_device() {
    let world = World::start().await;
    let gateway = world.enrol_gateway("gw").await;
    let body = serde_json::json!({"resources": []});
    let refused = gateway.post::<serde_json::Value>("/api/v1/leases", &body).await.unwrap_err();
    assert_eq!(refused.status, 401);
    world.create_account("ada@example.org").await;
    let device = world.sign_in("ada@example.org").await;
    device.client.set_identity(None);
    assert_eq!(device.leases(&[]).await.unwrap_err().code, "no_certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_thousand_resources_are_refused() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let device = world.sign_in("ada@example.org").await;
    let ids: Vec<_> =
        (0..1001).map(|n| postern_proto::id::ResourceId::from_ulid(ulid::Ulid::from_parts(n, 1))).collect();
    assert_eq!(device.leases(&ids[..1000]).await.unwrap().denied.len(), 1000);
    assert_eq!(device.leases(&ids).await.unwrap_err().status, 422);
}
