//! Proxy clusters: how workers enrol, what they and clients are told, and how key pairs are changed and revoked.

use axum::http::Method;
use postern_control::{
    catalogue::{Cluster, Node, Resource},
    cluster,
    secret::Token,
};
use postern_proto::{
    api::{CertificateRequest, CertificateResponse, EnrolRequest, EnrolResponse, KeyPair, NodeKind},
    door::EntryCarrier,
    id::{ClusterId, NodeId, ResourceId},
    lease::Verifier,
    resource::Tags,
    sync::{ClientFrame, Item, ItemKey, LeavingWorker},
};
use postern_tunnel::control::CallError;

use crate::support::{Machine, World, key_and_request, problem};

pub(crate) async fn make_cluster(world: &World, name: &str) -> ClusterId {
    let mut change = world.change().await;
    let id = ClusterId::from_ulid(change.ulid());
    let made = Cluster {
        id,
        name: name.to_owned(),
        advertise: format!("{name}.example:443"),
        carrier: EntryCarrier::Direct,
        authority: None,
        removed: Vec::new(),
        tags: Tags::new(),
        created_at: change.now(),
        revision: 0,
    };
    cluster::put(&mut change, made).await.unwrap();
    change.commit().await.unwrap();
    id
}

pub(crate) async fn make_key(world: &World, id: ClusterId) -> KeyPair {
    let (mut change, secret) = (world.change().await, Token::draw(cluster::SECRET_PREFIX).unwrap());
    let cluster = change.catalogue().clusters[&id].clone();
    let key = cluster::add_key(&mut change, &cluster, &secret).await.unwrap();
    change.commit().await.unwrap();
    KeyPair { access_key: key.id, secret_key: secret.expose().to_owned(), worker: "host-1".to_owned() }
}

async fn keys(world: &World, id: ClusterId) -> Vec<cluster::KeyView> {
    let mut connection = world.state().store.reader().acquire().await.unwrap();
    cluster::keys(&mut connection, id).await.unwrap()
}

async fn bind(world: &World, resource: ResourceId, cluster: Option<ClusterId>) {
    let mut change = world.change().await;
    let before = change.catalogue().resources[&resource].clone();
    change.put(Resource { cluster, ..Resource::clone(&before) }).await.unwrap();
    change.commit().await.unwrap();
}

pub(crate) async fn enrol(world: &World, pair: &KeyPair) -> Result<(Machine<NodeId>, EnrolResponse), CallError> {
    let (key, csr) = key_and_request();
    let request = EnrolRequest {
        token: String::new(),
        key_pair: Some(pair.clone()),
        kind: NodeKind::Worker,
        csr,
        advertise: None,
    };
    let enrolled: EnrolResponse = world.client().call(Method::POST, "/api/v1/nodes/enrol", Some(&request)).await?;
    let certificate = enrolled.certificate.certificate.clone();
    Ok((Machine::new(world.client(), key, &certificate, None, enrolled.node), enrolled))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_pair_enrols_any_number_of_workers_and_only_with_its_secret_key() {
    let world = World::start().await;
    let eu = make_cluster(&world, "eu").await;
    let key = make_key(&world, eu).await;
    assert_eq!(keys(&world, eu).await[0].last_used_at, None);
    let (_, one) = enrol(&world, &key).await.unwrap();
    let (_, other) = enrol(&world, &key).await.unwrap();
    assert_ne!(one.node, other.node);
    assert_eq!((one.cluster, one.name.as_str()), (Some(eu), "eu-host-1"));
    assert!(other.name.starts_with("eu-host-1-"), "{}", other.name);
    assert!(keys(&world, eu).await[0].last_used_at.is_some());
    let wrong = KeyPair { secret_key: "postern_cluster_x".to_owned(), ..key };
    assert_eq!(problem(enrol(&world, &wrong).await).code, "key_pair_refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_key_enrols_nobody_more_and_a_revoked_pair_cuts_its_workers_off() {
    let world = World::start().await;
    let eu = make_cluster(&world, "eu").await;
    let (first, second) = (make_key(&world, eu).await, make_key(&world, eu).await);
    let (worker, _) = enrol(&world, &first).await.unwrap();
    let (survivor, _) = enrol(&world, &second).await.unwrap();
    let access_key = first.access_key.to_string();

    let (mut change, secret) = (world.change().await, Token::draw(cluster::SECRET_PREFIX).unwrap());
    let of = change.catalogue().clusters[&eu].clone();
    cluster::rotate_key(&mut change, &of, &access_key, &secret).await.unwrap().unwrap();
    change.commit().await.unwrap();
    assert_eq!(problem(enrol(&world, &first).await).code, "key_pair_refused");
    let rotated = KeyPair { secret_key: secret.expose().to_owned(), ..first };
    enrol(&world, &rotated).await.unwrap();

    let renew = |worker: &Machine| CertificateRequest { csr: worker.request() };
    worker.post::<CertificateResponse>("/api/v1/nodes/certificate", &renew(&worker)).await.unwrap();
    let mut following = worker.follow().await;
    following.settle().await;
    let mut change = world.change().await;
    cluster::revoke_key(&mut change, &of, &access_key).await.unwrap().unwrap();
    change.commit().await.unwrap();
    while following.next().await.is_ok() {}
    assert_eq!(problem(enrol(&world, &rotated).await).code, "key_pair_refused");
    let refused = worker.post::<CertificateResponse>("/api/v1/nodes/certificate", &renew(&worker)).await.unwrap_err();
    assert_eq!(refused.code, "node_unknown");
    survivor.post::<CertificateResponse>("/api/v1/nodes/certificate", &renew(&survivor)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bound_to_a_cluster_is_told_to_its_workers_and_to_nobody_else() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let resource = world.create_resource("db").await;
    world.create_role("team", &[resource], account).await;
    let (eu, us) = (make_cluster(&world, "eu").await, make_cluster(&world, "us").await);
    let gateway = world.enrol_gateway("gw").await;
    let (worker, _) = enrol(&world, &make_key(&world, eu).await).await.unwrap();
    let (other, _) = enrol(&world, &make_key(&world, us).await).await.unwrap();
    let device = world.sign_in("ada@example.org").await;
    let (mut gateway, mut worker, mut other) = (gateway.follow().await, worker.follow().await, other.follow().await);
    let mut device_sync = device.follow().await;
    for socket in [&mut gateway, &mut worker, &mut other, &mut device_sync] {
        socket.settle().await;
    }
    let key = ItemKey::Resource { id: resource };
    assert!(gateway.item(&key).is_some() && worker.item(&key).is_none());
    let Some(Item::Cluster(entry)) = device_sync.item(&ItemKey::Cluster { id: eu }) else { panic!("no entry") };
    assert_eq!(entry.address, "eu.example:443");

    bind(&world, resource, Some(eu)).await;
    gateway.item_when(key.clone(), |item| item.is_none()).await;
    worker.item_when(key.clone(), |item| item.is_some()).await;
    let bound = |item: Option<&Item>| matches!(item, Some(Item::Access(access)) if access.cluster == Some(eu));
    device_sync.item_when(ItemKey::Access { id: resource }, bound).await;
    assert!(other.item(&key).is_none());
    let lease = device.leases(&[resource]).await.unwrap().leases.remove(0);
    let keys = device_sync.replica.items().filter_map(|item| match item {
        Item::LeaseKey { id, public } => Some((id.clone(), unhex(public))),
        _ => None,
    });
    let keys: Vec<(String, Vec<u8>)> = keys.collect();
    let verifier = Verifier::new(keys.iter().map(|(id, key)| (id.as_str(), key.as_slice())));
    assert_eq!(verifier.open(&lease.token).unwrap().cluster, Some(eu));

    bind(&world, resource, None).await;
    worker.item_when(key.clone(), |item| item.is_none()).await;
    gateway.item_when(key, |item| item.is_some()).await;
    let mut change = world.change().await;
    cluster::remove(&mut change, eu).await.unwrap();
    change.commit().await.unwrap();
    device_sync.item_when(ItemKey::Cluster { id: eu }, |item| item.is_none()).await;
    while worker.next().await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_which_workers_leave_and_which_were_removed() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let eu = make_cluster(&world, "eu").await;
    let key = make_key(&world, eu).await;
    let (one, first) = enrol(&world, &key).await.unwrap();
    let (_, second) = enrol(&world, &key).await.unwrap();
    let device = world.sign_in("ada@example.org").await;
    let (mut device, mut one) = (device.follow().await, one.follow().await);
    device.settle().await;
    one.settle().await;
    let entry = ItemKey::Cluster { id: eu };
    let cluster = |item: Option<&Item>| match item {
        Some(Item::Cluster(cluster)) => Some((cluster.leaving.clone(), cluster.removed.clone())),
        _ => None,
    };
    // It says so itself.
    let ends = world.state().store.clock().now().plus(std::time::Duration::from_secs(300));
    let presence = |draining| ClientFrame::Presence { advertise: None, draining, drain_ends: draining.then_some(ends) };
    one.send(&presence(true)).await;
    let told = LeavingWorker { id: first.node, name: first.name.clone(), ends };
    device.item_when(entry.clone(), |item| cluster(item) == Some((vec![told.clone()], vec![]))).await;
    one.send(&presence(false)).await;
    device.item_when(entry.clone(), |item| cluster(item) == Some((vec![], vec![]))).await;
    // An administrator says so.
    let mut change = world.change().await;
    let node = Node::clone(&change.catalogue().nodes[&first.node]);
    change.put(Node { drain_ends_at: Some(ends), ..node }).await.unwrap();
    change.commit().await.unwrap();
    device.item_when(entry.clone(), |item| cluster(item) == Some((vec![told.clone()], vec![]))).await;

    for (gone, removed) in [(first.node, vec![first.node]), (second.node, vec![first.node, second.node])] {
        let mut change = world.change().await;
        let node = change.catalogue().nodes[&gone].clone();
        cluster::remove_node(&mut change, &node).await.unwrap();
        change.commit().await.unwrap();
        device.item_when(entry.clone(), |item| cluster(item) == Some((vec![], removed.clone()))).await;
    }
    // It stays with the cluster, and until certificates that were given out have ended.
    let kept = &world.state().store.catalogue().clusters[&eu].removed;
    let week = world.state().store.clock().now().plus(std::time::Duration::from_secs(7 * 86_400 - 60));
    assert!(kept.len() == 2 && kept.iter().all(|worker| worker.until > week), "{kept:?}");
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
