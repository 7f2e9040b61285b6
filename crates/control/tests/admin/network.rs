//! Network settings.

use serde_json::json;

use crate::support::{World, fields};

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_kept_and_what_is_left_out_stays() {
    let mut world = World::start().await;
    let first = world.admin.get("/network").await;
    let defaults = json!({
        "loopback_range": "127.0.0.1/32", "multi_loopback": false, "vnm_subnet": "100.72.0.0/16",
        "dns_zone": "example", "vnm_ipv6": false,
    });
    assert_eq!(first, defaults);
    let body = json!({"loopback_range": "127.0.0.0/29", "multi_loopback": true, "vnm_ipv6": true});
    let answer = world.admin.send("PUT", "/network", Some(body)).await;
    assert_eq!(answer.status, 200);
    world.restart().await;
    let now = world.admin.get("/network").await;
    let expected = json!({
        "loopback_range": "127.0.0.0/29", "multi_loopback": true, "vnm_subnet": "100.72.0.0/16",
        "dns_zone": "example", "vnm_ipv6": true,
    });
    assert_eq!(now, expected);

    let mut ips = Vec::new();
    for n in 0..3 {
        let resource = world.admin.post("/resources", json!({"name": format!("r{n}"), "host": "h"})).await;
        ips.push(resource["bind"]["ip"].as_str().unwrap().to_owned());
    }
    assert_eq!(ips, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    let same_port = json!({"name": "p", "host": "h", "bind": {"port": 10000}});
    assert_eq!(world.admin.post("/resources", same_port).await["bind"]["ip"], "127.0.0.4");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_no_network_can_have_are_refused() {
    let world = World::start().await;
    let body = json!({"loopback_range": "10.0.0.0/8", "vnm_subnet": "8.8.8.0/24", "multi_loopback": "on"});
    assert_eq!(
        fields(&world.admin.broken("PUT", "/network", body).await),
        ["multi_loopback", "loopback_range", "vnm_subnet"]
    );
    let broken = world.admin.broken("PUT", "/network", json!({"vnm_subnet": "100.72.1.0/16"})).await;
    assert_eq!(broken[0].1, "must be the address of a network: with this prefix it is 100.72.0.0/16");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_would_leave_resources_without_their_address_are_refused() {
    let world = World::start().await;
    let vnm = json!({"name": "db", "host": "h", "bind": {"mode": "vnm"}});
    world.admin.post("/resources", vnm).await;
    let broken = world.admin.broken("PUT", "/network", json!({"vnm_subnet": "10.9.0.0/16"})).await;
    assert_eq!(fields(&broken), ["vnm_subnet"]);
    assert!(broken[0].1.contains("resource db, which is bound at 100.72.1.0"), "{}", broken[0].1);
    let wider = world.admin.send("PUT", "/network", Some(json!({"vnm_subnet": "100.64.0.0/10"}))).await;
    assert_eq!(wider.status, 200);
}
