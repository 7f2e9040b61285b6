//! Proxy clusters and their key pairs, as administrators see them.

use serde_json::json;

use crate::support::{World, column, fields, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_and_its_key_pairs_are_made_changed_and_removed() {
    let mut world = World::start().await;
    let made = world.admin.post("/clusters", json!({"name": "eu", "advertise": "EU.example.org:443"})).await;
    assert_eq!((&made["advertise"], &made["carrier"]), (&json!("eu.example.org:443"), &json!("direct")));
    let path = format!("/clusters/{}", text(&made, "id"));
    let changed = world.admin.patch(&path, json!({"name": "europe", "tags": {"env": "prod"}})).await;
    assert_eq!((&changed["name"], &changed["tags"]["env"]), (&json!("europe"), &json!("prod")));

    let key = world.admin.post(&format!("{path}/keys"), json!({})).await;
    assert!(text(&key, "secret_key").starts_with("postern_cluster_"));
    assert_eq!(key["access_key"], key["id"]);
    let rotated = world.admin.send("POST", &format!("{path}/keys/{}/rotate", text(&key, "id")), None).await.json();
    assert_eq!(rotated["access_key"], key["access_key"]);
    assert_ne!(rotated["secret_key"], key["secret_key"]);
    world.restart().await;
    let listed = world.admin.get(&format!("{path}/keys")).await;
    assert_eq!(column(&listed, "id"), [text(&key, "id")]);
    for secret in [text(&key, "secret_key"), text(&rotated, "secret_key")] {
        assert!(!listed.to_string().contains(&secret));
        assert!(!world.admin.get("/activities").await.to_string().contains(&secret));
    }
    let verbs = column(&world.admin.get("/activities").await, "verb");
    for verb in ["cluster.created", "cluster.updated", "cluster.key_created", "cluster.key_rotated"] {
        assert!(verbs.iter().any(|seen| seen == verb), "{verb}: {verbs:?}");
    }

    let resource = world.create_resource("db", json!({})).await;
    let bound = world.admin.patch(&format!("/resources/{resource}"), json!({"cluster": made["id"]})).await;
    assert_eq!(bound["cluster"], made["id"]);
    let refused = world.admin.refused("DELETE", &path, None).await;
    assert_eq!((refused.status, refused.code.as_str()), (409, "cluster_in_use"));
    let egress = json!({"egress": "kind:relay"});
    assert_eq!(fields(&world.admin.broken("PATCH", &format!("/resources/{resource}"), egress).await), ["egress"]);
    world.admin.patch(&format!("/resources/{resource}"), json!({"cluster": null})).await;
    world.admin.delete(&format!("{path}/keys/{}", text(&key, "id"))).await;
    world.admin.delete(&path).await;
    assert_eq!(world.admin.get("/clusters").await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_be_is_refused_with_each_reason() {
    let world = World::start().await;
    let broken = world.admin.broken("POST", "/clusters", json!({"advertise": "eu", "carrier": "quic"})).await;
    assert_eq!(fields(&broken), ["name", "advertise", "carrier"]);
    let broken = json!({"name": "eu", "advertise": "eu.example.org:443", "authority": "no PEM"});
    assert_eq!(fields(&world.admin.broken("POST", "/clusters", broken).await), ["authority"]);
    let worker = json!({"name": "w", "kind": "worker"});
    assert_eq!(fields(&world.admin.broken("POST", "/gateways", worker).await), ["kind"]);
    let nowhere = json!({"name": "db", "host": "h", "cluster": "clu_01JABCDEFGHJKMNPQRSTVWXYZ0"});
    assert_eq!(fields(&world.admin.broken("POST", "/resources", nowhere).await), ["cluster"]);
}
