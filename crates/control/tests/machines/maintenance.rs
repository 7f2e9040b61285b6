//! Drains that wait for a maintenance window.

use std::time::Duration;

use axum::http::Method;
use postern_control::maintenance::begin_due;
use postern_proto::sync::{ClientFrame, Item, ItemKey, NodeLoad};
use serde_json::{Value, json};

use crate::support::{Device, World};

/// Far away, whatever the day.
const FAR: &str = "0 0 29 2 *";

async fn admin(world: &World) -> Device {
    let account = world.create_account("ada@example.org").await;
    world.update_account(account, |account| account.admin = true).await;
    world.sign_in("ada@example.org").await
}

fn load(streams: u64) -> ClientFrame {
    ClientFrame::Load { load: NodeLoad { streams, cpu_permille: None } }
}

fn order(item: Option<&Item>) -> Option<u64> {
    match item {
        Some(Item::Node { drain, .. }) => drain.map(|order| order.ends_at.0),
        _ => None,
    }
}

async fn view_when(admin: &Device, path: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            let view: Value = admin.get(path).await.unwrap();
            if fits(&view) {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap_or_else(|_| panic!("{what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_begins_when_its_window_opens_and_the_node_is_idle_also_after_a_restart() {
    let mut world = World::start().await;
    let gateway = world.enrol_gateway("gw").await;
    let (path, own) = (format!("/api/v1/nodes/{}", gateway.given), ItemKey::Node { id: gateway.given });
    let window = {
        let admin = admin(&world).await;
        let window = json!({ "name": "w", "schedule": FAR, "duration": 600, "require_idleness": true });
        let window: Value = admin.post("/api/v1/maintenance", &window).await.unwrap();
        let ask = json!({ "in_window": true, "deadline": 30 });
        let planned: Value = admin.post(&format!("{path}/drain"), &ask).await.unwrap();
        assert_eq!((planned["state"].as_str(), &planned["drain_ends_at"]), (Some("away"), &Value::Null));
        assert_eq!(planned["drain_planned"]["begins_at"], window["opens_at"]);
        assert_eq!(planned["drain_planned"]["open"], false);
        window
    };

    world.restart().await;
    let admin = world.sign_in("ada@example.org").await;
    let mut node = gateway.follow().await;
    node.settle().await;
    node.send(&load(0)).await;
    let idle = view_when(&admin, &path, "it says what it carries", |view| view["streams"] == 0).await;
    assert_eq!(idle["drain_planned"]["window"], "w");
    let store = &world.state().store;
    assert_eq!(begin_due(store, &world.state().exchange).await.unwrap(), [], "the window is not open");

    node.send(&load(2)).await;
    view_when(&admin, &path, "it is busy", |view| view["streams"] == 2).await;
    let opened = format!("/api/v1/maintenance/{}", window["id"].as_str().unwrap());
    let open = Some(json!({ "schedule": "* * * * *" }));
    admin.client.call::<Value, Value>(Method::PATCH, &opened, open.as_ref()).await.unwrap();
    assert_eq!(begin_due(store, &world.state().exchange).await.unwrap(), [], "it carries streams");
    let waits: Value = admin.get(&path).await.unwrap();
    assert_eq!((&waits["drain_planned"]["open"], &waits["state"]), (&json!(true), &json!("up")), "{waits}");

    let before = world.state().clock.now().0;
    node.send(&load(0)).await;
    node.item_when(own.clone(), |item| order(item).is_some_and(|ends| ends >= before + 30_000)).await;
    let draining: Value = admin.get(&path).await.unwrap();
    assert_eq!((&draining["state"], &draining["drain_planned"]), (&json!("draining"), &Value::Null), "{draining}");
    let activities: Value = admin.get("/api/v1/activities").await.unwrap();
    let begun = activities["items"].as_array().unwrap().iter().find(|it| it["verb"] == "gateway.updated").unwrap();
    assert_eq!(begun["actor"]["kind"], "system");
    assert_eq!((&begun["before"]["planned_drain"], &begun["after"]["planned_drain"]), (&json!(30), &Value::Null));

    let back = admin.client.call::<(), ()>(Method::DELETE, &format!("{path}/drain"), None::<&()>).await;
    assert!(back.is_ok(), "{back:?}");
    node.item_when(own, |item| order(item).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_was_taken_back_does_not_begin() {
    let world = World::start().await;
    let gateway = world.enrol_gateway("gw").await;
    let admin = admin(&world).await;
    let path = format!("/api/v1/nodes/{}", gateway.given);
    let window = json!({ "name": "w", "schedule": FAR, "duration": 600 });
    let window: Value = admin.post("/api/v1/maintenance", &window).await.unwrap();
    let _: Value = admin.post(&format!("{path}/drain"), &json!({ "in_window": true })).await.unwrap();
    admin.client.call::<(), ()>(Method::DELETE, &format!("{path}/drain"), None::<&()>).await.unwrap();
    let opened = format!("/api/v1/maintenance/{}", window["id"].as_str().unwrap());
    let open = Some(json!({ "schedule": "* * * * *" }));
    admin.client.call::<Value, Value>(Method::PATCH, &opened, open.as_ref()).await.unwrap();
    assert_eq!(begin_due(&world.state().store, &world.state().exchange).await.unwrap(), []);
    let view: Value = admin.get(&path).await.unwrap();
    assert_eq!((&view["drain_planned"], &view["drain_ends_at"]), (&Value::Null, &Value::Null));
}
