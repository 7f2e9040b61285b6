//! Activities: every administrative change leaves one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{World, column, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_with_who_what_from_what_to_what_when_and_from_where() {
    let world = World::start().await;
    let db = world.create_resource("db", json!({})).await;
    world.admin.patch(&format!("/resources/{db}"), json!({"port": 1})).await;
    let activity = world.admin.get("/activities?limit=1").await["items"][0].clone();
    assert_eq!(activity["verb"], "resource.updated");
    assert_eq!(activity["subject"], json!({"kind": "resource", "id": db, "name": "db"}));
    assert_eq!((&activity["before"]["port"], &activity["after"]["port"]), (&json!(49150), &json!(1)));
    assert_eq!(activity["from"], json!({"address": "127.0.0.1", "agent": "tests/1"}));
    assert_eq!(activity["actor"]["kind"], "account");
    let robot = world.admin.get("/accounts?filter=kind:service").await["items"][0].clone();
    assert_eq!((&activity["actor"]["id"], &activity["actor"]["name"]), (&robot["id"], &robot["email"]));
    assert!(activity["at"].as_u64().unwrap() <= world.now().0);
    assert_eq!(world.admin.get(&format!("/activities/{}", text(&activity, "id"))).await, activity);
    assert_eq!(activity["revision"].as_u64(), Some(world.store().catalogue().revision));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_an_administrator_can_do_leaves_an_activity() {
    let world = World::start().await;
    let admin = &world.admin;
    let db = world.create_resource("db", json!({})).await;
    let user = world.create_user("ada@example.org").await;
    admin.patch(&format!("/accounts/{user}"), json!({"password": "correct horse battery"})).await;
    let robot = text(&admin.post("/accounts", json!({"kind": "service", "name": "ci"})).await, "id");
    let token = text(&admin.post(&format!("/accounts/{robot}/tokens"), json!({})).await, "id");
    admin.delete(&format!("/accounts/{robot}/tokens/{token}")).await;
    let role = text(&admin.post("/roles", json!({"name": "r"})).await, "id");
    admin.patch(&format!("/roles/{role}"), json!({"name": "s"})).await;
    let rule = text(&admin.post(&format!("/roles/{role}/rules"), json!({"query": "name:*"})).await, "id");
    admin.patch(&format!("/roles/{role}/rules/{rule}"), json!({"query": "name:x"})).await;
    admin.delete(&format!("/roles/{role}/rules/{rule}")).await;
    admin.post(&format!("/roles/{role}/members"), json!({"account": user})).await;
    admin.delete(&format!("/roles/{role}/members/{user}")).await;
    admin.delete(&format!("/roles/{role}")).await;
    let grant = text(&admin.post("/grants", json!({"account": user, "resource": db})).await, "id");
    admin.patch(&format!("/grants/{grant}"), json!({"reason": "why"})).await;
    admin.delete(&format!("/grants/{grant}")).await;
    let gateway = text(&admin.post("/gateways", json!({"name": "gw"})).await, "id");
    admin.patch(&format!("/gateways/{gateway}"), json!({"advertise": "gw.acme.test:5000"})).await;
    admin.post(&format!("/gateways/{gateway}/token"), json!({})).await;
    admin.delete(&format!("/gateways/{gateway}")).await;
    assert_eq!(admin.send("PUT", "/network", Some(json!({"multi_loopback": true}))).await.status, 200);
    admin.delete(&format!("/resources/{db}")).await;
    admin.delete(&format!("/accounts/{user}")).await;

    for (verb, name) in [
        ("member.deleted", "ada@example.org in s"),
        ("rule.deleted", "name:x for s"),
        ("grant.created", "db to ada@example.org"),
    ] {
        let list = admin.get(&format!("/activities?filter=verb:{verb}")).await;
        assert_eq!(list["items"][0]["subject"]["name"], name, "{verb}");
    }
    let seen: BTreeSet<String> = column(&admin.get("/activities?limit=1000").await, "verb").into_iter().collect();
    for verb in [
        "account.created",
        "account.password_set",
        "account.token_created",
        "account.token_deleted",
        "account.deleted",
        "role.created",
        "role.updated",
        "role.deleted",
        "rule.created",
        "rule.updated",
        "rule.deleted",
        "member.created",
        "member.deleted",
        "grant.created",
        "grant.updated",
        "grant.deleted",
        "gateway.created",
        "gateway.updated",
        "gateway.enrol_token_issued",
        "gateway.deleted",
        "network.updated",
        "resource.created",
        "resource.deleted",
    ] {
        assert!(seen.contains(verb), "{verb} is missing in {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn activities_are_listed_newest_first_in_pages_and_exported_oldest_first_as_lines() {
    let mut world = World::start().await;
    for n in 0..30 {
        world.create_resource(&format!("r{n:02}"), json!({})).await;
    }
    world.restart().await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.admin.get(&format!("/activities?limit=7&filter=verb:resource.*{cursor}")).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["subject"]["name"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, (0..30).rev().map(|n| json!(format!("r{n:02}"))).collect::<Vec<_>>());

    let export = world.admin.send("GET", "/activities/export", None).await;
    assert_eq!(export.headers["content-type"], "application/x-ndjson");
    let lines: Vec<Value> =
        String::from_utf8(export.body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<u64> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=u64::try_from(lines.len()).unwrap()).collect::<Vec<_>>(), "none is missing");
    assert_eq!(lines.iter().filter(|line| line["verb"] == "resource.created").count(), 30);
    assert_eq!(lines[0]["verb"], "account.created");
    assert_eq!(lines[0]["actor"]["kind"], "system");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_change_leaves_neither_activity_nor_revision() {
    let world = World::start().await;
    let before = (world.store().catalogue().revision, world.admin.get("/activities?limit=1").await);
    world.admin.broken("POST", "/resources", json!({"name": "x"})).await;
    world.admin.refused("DELETE", "/roles/rol_01JABCDEFGHJKMNPQRSTVWXYZ0", None).await;
    assert_eq!((world.store().catalogue().revision, world.admin.get("/activities?limit=1").await), before);
    let revision = before.0;
    world.create_resource("x", json!({})).await;
    assert_eq!(world.store().catalogue().revision, revision + 1, "revisions are dense");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_had_its_time_is_deleted_and_the_audit_stays() {
    let world = World::start().await;
    let db = world.create_resource("db", json!({})).await;
    world.admin.delete(&format!("/resources/{db}")).await;
    let (store, start) = (world.store(), postern_proto::time::UnixMillis(0));
    assert_eq!(postern_control::housekeeping::sweep(store).await.unwrap(), 0);
    assert_eq!(store.revocations_since(start).await.unwrap().len(), 1);
    assert!(store.changes_since(0).await.unwrap().is_some());
    let activities = world.admin.get("/activities").await;
    world.pass(std::time::Duration::from_secs(8 * 86_400));
    assert!(postern_control::housekeeping::sweep(store).await.unwrap() > 0);
    assert_eq!(store.revocations_since(start).await.unwrap(), []);
    assert_eq!(store.changes_since(0).await.unwrap(), None, "who is that far behind takes a snapshot");
    assert_eq!(world.admin.get("/activities").await, activities);
}
