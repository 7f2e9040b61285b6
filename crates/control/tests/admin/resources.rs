//! Resources and their bind addresses.

use std::collections::BTreeSet;

use postern_proto::lease::RevokedSubject;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{World, column, fields, text};

fn bind(resource: &Value) -> (&str, &str, u64) {
    let bind = &resource["bind"];
    (bind["mode"].as_str().unwrap(), bind["ip"].as_str().unwrap(), bind["port"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_assigned() {
    let world = World::start().await;
    let tcp = world.admin.post("/resources", json!({"name": "a", "host": "db.internal"})).await;
    assert_eq!((&tcp["kind"], &tcp["port"], &tcp["allow_local"]), (&json!("tcp"), &json!(49150), &json!(false)));
    assert_eq!(bind(&tcp), ("loopback", "127.0.0.1", 10000));
    assert_eq!(tcp["health"], json!({"state": "unknown"}));
    let second = world.admin.post("/resources", json!({"name": "b", "host": "DB.internal.", "kind": "postgres"})).await;
    assert_eq!((&second["port"], &second["host"]), (&json!(5432), &json!("db.internal")));
    assert_eq!(bind(&second), ("loopback", "127.0.0.1", 10001));
    let vnm = json!({"name": "c", "host": "10.0.0.1", "kind": "ssh", "bind": {"mode": "vnm", "dns_name": "C.My-Org"}});
    let vnm = world.admin.post("/resources", vnm).await;
    assert_eq!(bind(&vnm), ("vnm", "100.72.1.0", 22));
    assert_eq!(vnm["bind"]["dns_name"], "c.my-org");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_rule_is_a_violation_with_field_value_and_rule() {
    let world = World::start().await;
    world.admin.post("/resources", json!({"name": "Taken", "host": "h", "bind": {"port": 15432}})).await;
    let body = json!({
        "name": "taken", "host": "http://x", "port": 0, "kind": "gopher", "tags": {"": "x"}, "allow_local": "yes",
        "bind": {"ip": "127.0.0.9", "port": 80, "dns_name": "db", "colour": "red"}, "strikt": true,
    });
    let broken = world.admin.broken("POST", "/resources", body).await;
    let expected = [
        "strikt",
        "kind",
        "host",
        "port",
        "tags.",
        "allow_local",
        "bind.colour",
        "name",
        "bind.dns_name",
        "bind.ip",
        "bind.port",
    ];
    assert_eq!(fields(&broken), expected);

    for (input, field, value, rule) in [
        (json!({"port": 15432}), "bind.port", "15432", "must be free at 127.0.0.1: resource Taken has it"),
        (json!({"port": 65220}), "bind.port", "65220", "must be from 1024 to 64999 in loopback mode"),
        (json!({"port": 1023}), "bind.port", "1023", "must be from 1024 to 64999 in loopback mode"),
        (json!({"port": 70000}), "bind.port", "70000", "must be from 1024 to 64999 in loopback mode"),
        (json!({"mode": "vnm", "port": 0}), "bind.port", "0", "must be from 1 to 65535"),
        (
            json!({"mode": "vnm", "ip": "10.0.0.1"}),
            "bind.ip",
            "10.0.0.1",
            "must be an address of the virtual subnet 100.72.0.0/16",
        ),
        (json!({"ip": "::1"}), "bind.ip", "::1", "must be an address of the loopback range 127.0.0.1/32"),
        (json!({"ip": "example"}), "bind.ip", "example", "invalid IP address syntax"),
        (
            json!({"mode": "vnm", "dns_name": "a_b"}),
            "bind.dns_name",
            "a_b",
            "must consist of ASCII letters, digits, hyphens and dots",
        ),
    ] {
        let body = json!({"name": "new", "host": "h", "bind": input});
        let problem = world.admin.refused("POST", "/resources", Some(body)).await;
        let got: Vec<_> =
            problem.violations.iter().map(|b| (b.field.as_str(), b.value.as_str(), b.rule.as_str())).collect();
        assert_eq!(got, [(field, value, rule)]);
    }
    for name in ["", " x", "a\"b", "a'b", "<a>", "a\nb", "a\u{202e}b"] {
        let broken = world.admin.broken("POST", "/resources", json!({"name": name, "host": "h"})).await;
        assert_eq!(fields(&broken), ["name"], "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_race_for_one_address_exactly_one_wins() {
    let world = World::start().await;
    for bind in [
        json!({"port": 15432}),
        json!({"mode": "vnm", "ip": "100.72.1.9"}),
        json!({"mode": "vnm", "dns_name": "db.my-org"}),
    ] {
        let mut racers = JoinSet::new();
        for n in 0..50 {
            let (admin, bind) = (world.admin.clone(), bind.clone());
            racers.spawn(async move {
                let body = json!({"name": format!("{bind} {n}").replace('"', ""), "host": "h", "bind": bind});
                admin.send("POST", "/resources", Some(body)).await.status.as_u16()
            });
        }
        let mut answers = racers.join_all().await;
        answers.sort_unstable();
        assert_eq!(answers[0], 201, "{bind}");
        assert!(answers[1..].iter().all(|status| *status == 422), "{bind}: {answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_for_any_address_get_one_each() {
    let world = World::start().await;
    let mut racers = JoinSet::new();
    for n in 0..60 {
        let admin = world.admin.clone();
        racers.spawn(async move {
            let mode = if n % 2 == 0 { "vnm" } else { "loopback" };
            let body = json!({"name": format!("r{n}"), "host": "h", "bind": {"mode": mode}});
            let resource = admin.post("/resources", body).await;
            resource["bind"].to_string()
        });
    }
    let binds: BTreeSet<String> = racers.join_all().await.into_iter().collect();
    assert_eq!(binds.len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_resource_frees_its_loopback_port_and_never_its_virtual_address() {
    let mut world = World::start().await;
    let create = |name: &str, bind: Value| json!({"name": name, "host": "h", "bind": bind});
    let loopback = world.admin.post("/resources", create("a", json!({"port": 15432}))).await;
    let vnm = world.admin.post("/resources", create("b", json!({"mode": "vnm", "ip": "100.72.1.0"}))).await;
    let moved = world.admin.post("/resources", create("c", json!({"mode": "vnm", "ip": "100.72.1.1"}))).await;
    world.admin.patch(&format!("/resources/{}", text(&moved, "id")), json!({"bind": {"ip": "100.72.1.2"}})).await;
    for resource in [&loopback, &vnm] {
        world.admin.delete(&format!("/resources/{}", text(resource, "id"))).await;
    }
    world.restart().await;
    world.admin.post("/resources", create("a", json!({"port": 15432}))).await;
    for ip in ["100.72.1.0", "100.72.1.1"] {
        let broken = world.admin.broken("POST", "/resources", create("d", json!({"mode": "vnm", "ip": ip}))).await;
        assert_eq!(broken[0].1, "must not have belonged to another resource: virtual addresses are never used again");
    }
    let next = world.admin.post("/resources", create("d", json!({"mode": "vnm"}))).await;
    assert_eq!(next["bind"]["ip"], "100.72.1.3");
    let back =
        world.admin.patch(&format!("/resources/{}", text(&moved, "id")), json!({"bind": {"ip": "100.72.1.1"}})).await;
    assert_eq!(back["bind"]["ip"], "100.72.1.1", "its own address it may have again");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shared_a_virtual_address_with_a_deleted_resource_keeps_its_ports_there_or_moves() {
    let mut world = World::start().await;
    let create = |name: &str, port: u16| json!({"name": name, "host": "h", "port": port, "bind": {"mode": "vnm", "ip": "100.72.1.9"}});
    let stays = world.admin.post("/resources", create("a", 5432)).await;
    let goes = world.admin.post("/resources", create("b", 80)).await;
    world.admin.delete(&format!("/resources/{}", text(&goes, "id"))).await;
    world.restart().await;
    let path = format!("/resources/{}", text(&stays, "id"));
    let named = world.admin.patch(&path, json!({"bind": {"dns_name": "db.internal.example"}})).await;
    assert_eq!(bind(&named), ("vnm", "100.72.1.9", 5432), "its name may change");
    for (body, field) in [(json!({"bind": {"port": 80}}), "bind.port"), (json!({"ports": ["80"]}), "ports")] {
        let broken = world.admin.broken("PATCH", &path, body).await;
        assert_eq!(broken[0].0, field);
        assert!(
            broken[0].1.contains("remember its ports") && broken[0].1.contains("another bind.ip"),
            "{}",
            broken[0].1
        );
    }
    let moved = world.admin.patch(&path, json!({"bind": {"ip": null, "port": 80}})).await;
    assert_eq!(bind(&moved), ("vnm", "100.72.1.0", 80));
    let back = world.admin.broken("PATCH", &path, json!({"bind": {"ip": "100.72.1.9"}})).await;
    assert_eq!(back[0].0, "bind.ip", "what it left is nobody's any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_bind_address_keeps_assigns_or_sets_each_part() {
    let world = World::start().await;
    let body = json!({"name": "a", "host": "h", "port": 5432, "bind": {"port": 15432}});
    let path = format!("/resources/{}", text(&world.admin.post("/resources", body).await, "id"));
    let renamed = world.admin.patch(&path, json!({"name": "b"})).await;
    assert_eq!(bind(&renamed), ("loopback", "127.0.0.1", 15432));
    let set = world.admin.patch(&path, json!({"bind": {"port": 15433}})).await;
    assert_eq!(bind(&set), ("loopback", "127.0.0.1", 15433));
    let assigned = world.admin.patch(&path, json!({"bind": {"port": null}})).await;
    assert_eq!(bind(&assigned), ("loopback", "127.0.0.1", 10000));
    let virtual_ = world.admin.patch(&path, json!({"bind": {"mode": "vnm", "dns_name": "db.my-org"}})).await;
    assert_eq!(bind(&virtual_), ("vnm", "100.72.1.0", 5432));
    let named = world.admin.patch(&path, json!({"bind": {"port": 5433}})).await;
    assert_eq!((bind(&named), &named["bind"]["dns_name"]), (("vnm", "100.72.1.0", 5433), &json!("db.my-org")));
    let unnamed = world.admin.patch(&path, json!({"bind": {"dns_name": null}})).await;
    assert_eq!(unnamed["bind"]["dns_name"], "b.example");
    let both = world.admin.patch(&path, json!({"bind": {"mode": "both"}})).await;
    assert_eq!(bind(&both), ("both", "100.72.1.0", 5433));
    assert_eq!(both["bind"]["loopback"], json!({"ip": "127.0.0.1", "port": 10000}), "kept from before");
    let moved = world.admin.patch(&path, json!({"bind": {"loopback": {"port": 20000}}})).await;
    assert_eq!((bind(&moved), &moved["bind"]["loopback"]["port"]), (("both", "100.72.1.0", 5433), &json!(20000)));
    let back = world.admin.patch(&path, json!({"bind": {"mode": "loopback"}})).await;
    assert_eq!((bind(&back), back["bind"].get("loopback")), (("loopback", "127.0.0.1", 20000), None));
    let anew = world.admin.patch(&path, json!({"bind": {"port": null}})).await;
    assert_eq!(bind(&anew), ("loopback", "127.0.0.1", 10000));
    assert_eq!(
        fields(&world.admin.broken("PATCH", &path, json!({"bind": {"port": 80}, "name": null})).await),
        ["name", "bind.port"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_are_filtered_by_what_they_are_and_where_they_are_bound() {
    let world = World::start().await;
    for (name, kind, env) in
        [("pay db", "postgres", "prod"), ("pay web", "http", "prod"), ("play db", "postgres", "dev")]
    {
        world.admin.post("/resources", json!({"name": name, "kind": kind, "host": "h", "tags": {"env": env}})).await;
    }
    for (filter, names) in [
        ("name:pay*%20tags:env=prod%20kind:postgres", vec!["pay db"]),
        ("tags:env=prod", vec!["pay db", "pay web"]),
        ("*db", vec!["pay db", "play db"]),
        ("%22pay%20web%22", vec!["pay web"]),
        ("bind.port:10002", vec!["play db"]),
        ("health:unknown%20kind:http", vec!["pay web"]),
        ("nothing", vec![]),
    ] {
        assert_eq!(column(&world.admin.get(&format!("/resources?filter={filter}")).await, "name"), names, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_resource_is_revoked_and_leaves_rules_and_grants() {
    let world = World::start().await;
    let (keep, gone) = (world.create_resource("keep", json!({})).await, world.create_resource("gone", json!({})).await);
    let user = world.create_user("ada@example.org").await;
    let role = text(&world.admin.post("/roles", json!({"name": "r"})).await, "id");
    world.admin.post(&format!("/roles/{role}/rules"), json!({"resources": [keep, gone]})).await;
    world.admin.post("/grants", json!({"account": user, "resource": gone})).await;
    let mut changes = world.follow();
    world.admin.delete(&format!("/resources/{gone}")).await;
    let change = changes.recv().await.unwrap();
    let revoked: Vec<_> = change.revocations.iter().map(|r| r.subject.clone()).collect();
    assert_eq!(revoked, [RevokedSubject::Resource { resource: gone.parse().unwrap() }]);
    assert_eq!(world.admin.get("/grants").await["items"], json!([]));
    let rules = world.admin.get(&format!("/roles/{role}/rules")).await;
    assert_eq!(rules["items"][0]["resources"], json!([keep]));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_a_check_answers_at_once_that_nothing_is_known() {
    let world = World::start().await;
    let db = world.create_resource("db", json!({})).await;
    let answer = world.admin.send("POST", &format!("/resources/{db}/check"), Some(json!({}))).await;
    assert_eq!(answer.json(), json!({"id": db, "name": "db", "health": {"state": "unknown"}, "gateways": []}));
}
