//! Maintenance windows, as administrators see them.

use serde_json::json;

use crate::support::{World, column, fields, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_maintenance_window_is_made_changed_and_removed_and_survives_a_restart() {
    let mut world = World::start().await;
    world.admin.post("/gateways", json!({"name": "gw-fra", "tags": {"site": "fra"}})).await;
    world.admin.post("/gateways", json!({"name": "relay-ams", "kind": "relay"})).await;
    let made = json!({"name": "nightly", "schedule": " 0  2 * * SUN ", "duration": 3600, "nodes": "role:gateway"});
    let made = world.admin.post("/maintenance", made).await;
    assert_eq!((&made["schedule"], &made["require_idleness"]), (&json!("0 2 * * SUN"), &json!(false)));
    assert_eq!((&made["bound"], made["opens_at"].is_u64()), (&json!(1), true), "{made}");
    let opens = made["opens_at"].as_u64().unwrap();
    assert_eq!(made["closes_at"].as_u64(), Some(opens + 3_600_000));

    let path = format!("/maintenance/{}", text(&made, "id"));
    let change = json!({"schedule": "* * * * *", "require_idleness": true, "nodes": null, "name": "always"});
    let changed = world.admin.patch(&path, change).await;
    assert_eq!((&changed["open"], &changed["bound"], &changed["nodes"]), (&json!(true), &json!(2), &json!(null)));
    world.restart().await;
    let listed = world.admin.get("/maintenance?filter=open:true").await;
    assert_eq!(column(&listed, "name"), ["always"]);
    assert_eq!(world.admin.get(&path).await["require_idleness"], true);
    world.admin.delete(&path).await;
    assert_eq!(world.admin.get("/maintenance").await["items"], json!([]));
    let verbs = column(&world.admin.get("/activities").await, "verb");
    for verb in ["maintenance_window.created", "maintenance_window.updated", "maintenance_window.deleted"] {
        assert!(verbs.iter().any(|seen| seen == verb), "{verb}: {verbs:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maintenance_window_that_cannot_be_is_refused_with_each_reason() {
    let world = World::start().await;
    assert_eq!(fields(&world.admin.broken("POST", "/maintenance", json!({})).await), ["name", "schedule", "duration"]);
    let broken = json!({"name": "w", "schedule": "0 0 30 feb *", "duration": 59, "nodes": "colour:red", "cron": "x"});
    let broken = world.admin.broken("POST", "/maintenance", broken).await;
    assert_eq!(fields(&broken), ["cron", "schedule", "duration", "nodes"]);
    let good = json!({"name": "w", "schedule": "0 2 * * *", "duration": 60});
    world.admin.post("/maintenance", good.clone()).await;
    assert_eq!(fields(&world.admin.broken("POST", "/maintenance", good).await), ["name"]);
    let long = json!({"name": "v", "schedule": "1,".repeat(100), "duration": 86_401});
    assert_eq!(fields(&world.admin.broken("POST", "/maintenance", long).await), ["schedule", "duration"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_without_a_window_that_is_for_the_node_is_refused() {
    let world = World::start().await;
    let gateway = world.admin.post("/gateways", json!({"name": "gw"})).await;
    let path = format!("/nodes/{}", text(&gateway, "id"));
    let drain = format!("{path}/drain");
    let ask = || world.admin.broken("POST", &drain, json!({"in_window": true}));
    assert_eq!(fields(&ask().await), ["in_window"]);
    let other = json!({"name": "other", "schedule": "0 2 * * *", "duration": 60, "nodes": "role:relay"});
    let other = world.admin.post("/maintenance", other).await;
    assert_eq!(fields(&ask().await), ["in_window"]);

    world.admin.patch(&format!("/maintenance/{}", text(&other, "id")), json!({"nodes": null})).await;
    let planned = world.admin.send("POST", &drain, Some(json!({"in_window": true, "deadline": 9}))).await.json();
    assert_eq!((&planned["drain_planned"]["deadline"], &planned["drain_ends_at"]), (&json!(9), &json!(null)));
    assert_eq!(planned["drain_planned"]["window"], "other");
    // Without its window it waits for another one.
    world.admin.delete(&format!("/maintenance/{}", text(&other, "id"))).await;
    let waiting = world.admin.get(&path).await["drain_planned"].clone();
    assert_eq!((&waiting["window"], &waiting["begins_at"]), (&json!(null), &json!(null)));
    world.admin.delete(&drain).await;
    assert_eq!(world.admin.get(&path).await["drain_planned"], json!(null));
    // What is out of service already does not wait to be.
    assert_eq!(world.admin.send("POST", &drain, Some(json!({}))).await.json()["drain_planned"], json!(null));
    assert_eq!(fields(&ask().await), ["in_window"]);
}
