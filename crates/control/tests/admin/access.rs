//! Roles, rules, members, grants: who reaches what, and what is revoked.

use std::{collections::BTreeSet, time::Duration};

use postern_control::access;
use postern_proto::{
    id::{AccountId, ResourceId},
    lease::RevokedSubject,
};
use serde_json::json;

use crate::support::{World, column, fields, text};

/// What an account reaches now.
fn reach(world: &World, account: &str) -> BTreeSet<ResourceId> {
    let account: AccountId = account.parse().unwrap();
    access::reachable(&world.store().catalogue(), account, world.now()).into_keys().collect()
}

fn ids(ids: &[&String]) -> BTreeSet<ResourceId> {
    ids.iter().map(|id| id.parse().unwrap()).collect()
}

fn lost(account: &str, resource: &str) -> RevokedSubject {
    RevokedSubject::Access { account: account.parse().unwrap(), resource: resource.parse().unwrap() }
}

/// The revocations of the next change.
async fn revoked(
    changes: &mut tokio::sync::broadcast::Receiver<std::sync::Arc<postern_control::store::Changes>>,
) -> Vec<RevokedSubject> {
    let change = tokio::time::timeout(Duration::from_secs(20), changes.recv()).await.unwrap().unwrap();
    change.revocations.iter().map(|revocation| revocation.subject.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_rule_names_resources_and_a_dynamic_one_what_they_are() {
    let world = World::start().await;
    let prod = world.create_resource("pay db", json!({"env": "prod"})).await;
    let dev = world.create_resource("play db", json!({"env": "dev"})).await;
    let user = world.create_user("ada@example.org").await;
    let role = text(&world.admin.post("/roles", json!({"name": "operators"})).await, "id");
    let rules = format!("/roles/{role}/rules");
    world.admin.post(&format!("/roles/{role}/members"), json!({"account": user})).await;
    assert_eq!(reach(&world, &user), BTreeSet::new());

    let fixed = world.admin.post(&rules, json!({"resources": [dev]})).await;
    assert_eq!(reach(&world, &user), ids(&[&dev]));
    let query = world.admin.post(&rules, json!({"query": "Tags:ENV=prod  kind:tcp"})).await;
    assert_eq!(query["query"], "tags:env=prod kind:tcp", "in canonical form");
    assert_eq!(reach(&world, &user), ids(&[&dev, &prod]));

    let mut changes = world.follow();
    world.admin.delete(&format!("{rules}/{}", text(&fixed, "id"))).await;
    assert_eq!(revoked(&mut changes).await, [lost(&user, &dev)]);
    world.admin.patch(&format!("/resources/{dev}"), json!({"tags": {"env": "prod"}})).await;
    assert_eq!(revoked(&mut changes).await, []);
    assert_eq!(reach(&world, &user), ids(&[&dev, &prod]), "a tag is enough");
    world.admin.patch(&format!("/resources/{prod}"), json!({"tags": {"env": "test"}})).await;
    assert_eq!(revoked(&mut changes).await, [lost(&user, &prod)]);
    world.admin.delete(&format!("/roles/{role}/members/{user}")).await;
    assert_eq!(revoked(&mut changes).await, [lost(&user, &dev)]);
    assert_eq!(reach(&world, &user), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_role_or_grant_still_allows_is_not_revoked() {
    let world = World::start().await;
    let db = world.create_resource("db", json!({})).await;
    let user = world.create_user("ada@example.org").await;
    let mut roles = Vec::new();
    for name in ["one", "two"] {
        let role = text(&world.admin.post("/roles", json!({"name": name})).await, "id");
        world.admin.post(&format!("/roles/{role}/rules"), json!({"query": "name:db"})).await;
        world.admin.post(&format!("/roles/{role}/members"), json!({"account": user})).await;
        roles.push(role);
    }
    let grant = text(&world.admin.post("/grants", json!({"account": user, "resource": db})).await, "id");
    let mut changes = world.follow();
    world.admin.delete(&format!("/roles/{}", roles[0])).await;
    assert_eq!(revoked(&mut changes).await, []);
    world.admin.delete(&format!("/grants/{grant}")).await;
    assert_eq!(revoked(&mut changes).await, []);
    world.admin.delete(&format!("/roles/{}", roles[1])).await;
    assert_eq!(revoked(&mut changes).await, [lost(&user, &db)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_ends_at_its_time_without_anybodys_action() {
    let world = World::start().await;
    let db = world.create_resource("db", json!({})).await;
    let user = world.create_user("ada@example.org").await;
    let end = world.now().0 + 1500;
    let grant =
        world.admin.post("/grants", json!({"account": user, "resource": db, "ends_at": end, "reason": "repair"})).await;
    assert_eq!((&grant["ends_at"], &grant["reason"]), (&json!(end), &json!("repair")));
    assert_eq!(reach(&world, &user), ids(&[&db]));
    let mut changes = world.follow();
    assert_eq!(revoked(&mut changes).await, [lost(&user, &db)]);
    assert!(world.now().0 >= end);
    assert_eq!(reach(&world, &user), BTreeSet::new());
    assert_eq!(world.admin.refused("GET", &format!("/grants/{}", text(&grant, "id")), None).await.status, 404);
    let last = world.admin.get("/activities?limit=1").await["items"][0].clone();
    assert_eq!((&last["verb"], &last["actor"]["kind"]), (&json!("grant.ended"), &json!("system")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_ended_while_the_control_plane_was_away_ends_at_its_start() {
    let mut world = World::start().await;
    let db = world.create_resource("db", json!({})).await;
    let user = world.create_user("ada@example.org").await;
    let end = world.now().0 + 200_000;
    world.admin.post("/grants", json!({"account": user, "resource": db, "ends_at": end})).await;
    world.pass(Duration::from_secs(201));
    assert_eq!(reach(&world, &user), BTreeSet::new(), "by the clock it is over at once");
    world.restart().await;
    let gone = async {
        while world.admin.get("/grants").await["items"] != json!([]) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    let revocations = world.store().revocations_since(postern_proto::time::UnixMillis(0)).await.unwrap();
    assert!(revocations.iter().any(|r| r.subject == lost(&user, &db) && r.reason == "the grant has ended"));
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_rules_and_members_name_what_is_there() {
    let world = World::start().await;
    let nobody = "acc_01JABCDEFGHJKMNPQRSTVWXYZ0";
    let broken = world.admin.broken("POST", "/grants", json!({"account": nobody, "resource": "x", "ends_at": 1})).await;
    assert_eq!(fields(&broken), ["account", "resource", "ends_at"]);
    let role = text(&world.admin.post("/roles", json!({"name": "r"})).await, "id");
    let rules = format!("/roles/{role}/rules");
    for (body, field) in [
        (json!({}), "resources"),
        (json!({"resources": [], "query": "name:*"}), "query"),
        (json!({"resources": ["res_01JABCDEFGHJKMNPQRSTVWXYZ0"]}), "resources[0]"),
        (json!({"query": "health:healthy"}), "query"),
        (json!({"query": " "}), "query"),
        (json!({"query": "name:\"x"}), "query"),
        (json!({"query": 3}), "query"),
    ] {
        assert_eq!(fields(&world.admin.broken("POST", &rules, body.clone()).await), [field], "{body}");
    }
    assert_eq!(
        fields(&world.admin.broken("POST", &format!("/roles/{role}/members"), json!({"account": nobody})).await),
        ["account"]
    );
    assert_eq!(fields(&world.admin.broken("POST", "/roles", json!({"name": "R"})).await), ["name"]);
    assert_eq!(world.admin.refused("GET", &format!("{rules}/x"), None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_leaves_its_roles_and_is_revoked() {
    let world = World::start().await;
    let user = world.create_user("ada@example.org").await;
    let role = text(&world.admin.post("/roles", json!({"name": "r"})).await, "id");
    let members = format!("/roles/{role}/members");
    let member = world.admin.post(&members, json!({"account": user})).await;
    assert_eq!((&member["email"], &member["account"]), (&json!("ada@example.org"), &json!(user)));
    let mut changes = world.follow();
    world.admin.delete(&format!("/accounts/{user}")).await;
    assert_eq!(revoked(&mut changes).await, [RevokedSubject::Account { account: user.parse().unwrap() }]);
    assert_eq!(column(&world.admin.get(&members).await, "account"), Vec::<String>::new());
}
