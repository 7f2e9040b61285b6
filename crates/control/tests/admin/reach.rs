//! Resources of several ports and hosts, their names, and what clients and gateways are told of them.

use postern_proto::{name::HostPattern, resource::Health};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{World, fields, text};

fn cluster(name: &str, alias: &str) -> Value {
    json!({
        "name": name, "host": "n1.redis.internal", "kind": "redis", "port": 6379, "ports": ["7000-7005", "9000"],
        "bind": {"mode": "vnm", "dns_name": alias},
    })
}

/// Without a list of ports.
fn fit(mut body: Value) -> Value {
    body["ports"] = json!([]);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_hosts_are_kept_in_one_form_and_reach_clients_and_gateways() {
    let mut world = World::start().await;
    let mut body = cluster("cluster", "*.Redis.internal");
    body["ports"] = json!(["9000", "7003-7005", 7000, "7001-7003"]);
    let created = world.admin.post("/resources", body).await;
    assert_eq!(
        (&created["port"], &created["ports"]),
        (&json!(6379), &json!(["7000-7005".to_owned(), "9000".to_owned()]))
    );
    assert_eq!((&created["hosts"], &created["bind"]["dns_name"]), (&json!([]), &json!("*.redis.internal")));
    assert_eq!(created["bind"]["loopback"], json!({"ip": "127.0.0.1", "port": 10000}));
    let path = format!("/resources/{}", text(&created, "id"));
    let hosts = json!(["n2.redis.internal", "*.eu.redis.internal"]);
    world.admin.patch(&path, json!({"hosts": hosts})).await;
    world.restart().await;
    let shown = world.admin.get(&path).await;
    assert_eq!((&shown["hosts"], &shown["ports"]), (&hosts, &created["ports"]));
    assert_eq!(world.admin.get("/resources?filter=ports:*9000").await["items"].as_array().unwrap().len(), 1);

    let catalogue = world.store().catalogue();
    let resource = catalogue.resources.values().next().unwrap();
    let (client, node) = (resource.for_client(Health::Unknown, Vec::new()), resource.for_node(None));
    assert_eq!((client.ports.to_string(), client.bind.is_wildcard()), ("7000-7005,9000".to_owned(), true));
    assert_eq!(
        node.hosts,
        ["n2.redis.internal", "*.eu.redis.internal"].map(|host| host.parse::<HostPattern>().unwrap())
    );
    let all = world.admin.patch(&path, json!({"hosts": null, "ports": "7000-7001"})).await;
    assert_eq!((&all["hosts"], &all["ports"]), (&json!([]), &json!(["7000-7001"])));
    let catalogue = world.store().catalogue();
    let node = catalogue.resources.values().next().unwrap().for_node(None);
    assert_eq!(node.hosts, ["*.redis.internal".parse::<HostPattern>().unwrap()], "all that lie under the alias");
    let single = world.admin.patch(&path, json!({"ports": null, "bind": {"dns_name": "db.redis.internal"}})).await;
    assert_eq!((&single["ports"], &single["hosts"]), (&json!([]), &json!([])));
    assert!(world.store().catalogue().resources.values().next().unwrap().for_node(None).hosts.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_port_is_the_kinds_or_the_first_of_the_list() {
    let world = World::start().await;
    for (n, (body, port)) in [
        (json!({"kind": "redis", "ports": ["6379", "7000"]}), 6379),
        (json!({"kind": "redis", "ports": ["7000-7005"]}), 7000),
        (json!({"ports": "9000,8000"}), 8000),
        (json!({"ports": 8000, "port": 9000}), 9000),
        (json!({"kind": "redis", "ports": []}), 6379),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = body;
        body["name"] = json!(format!("r{n}"));
        body["host"] = json!("h");
        assert_eq!(world.admin.post("/resources", body.clone()).await["port"], port, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_rule_of_ports_hosts_and_names_is_told_with_its_field_and_value() {
    let world = World::start().await;
    let mut taken = cluster("taken", "*.taken.internal");
    taken["bind"]["ip"] = json!("100.72.1.9");
    taken["ports"] = json!(["7000-7005"]);
    world.admin.post("/resources", taken).await;
    let many: Vec<String> = (1..=65).map(|n| (2 * n).to_string()).collect();
    for (change, field, value, rule) in [
        (json!({"ports": ["7000-x"]}), "ports", r#"["7000-x"]"#, "must list ports from 1 to 65535 or ranges of them"),
        (
            json!({"ports": ["7005-7000"]}),
            "ports",
            r#"["7005-7000"]"#,
            "must have ranges that begin with their lower port",
        ),
        (json!({"ports": "0"}), "ports", "0", "must list ports from 1 to 65535"),
        (json!({"ports": many}), "ports", "[", "must not list more than 64 ports and ranges"),
        (json!({"hosts": "n1"}), "hosts", "n1", "invalid type"),
        (json!({"hosts": ["n1.redis.internal", "n1.other"]}), "hosts", "n1.other", "must lie under *.redis.internal"),
        (json!({"hosts": ["*"]}), "hosts", "*", "must name what the star stands under"),
        (json!({"hosts": ["10.0.0.1"]}), "hosts", "10.0.0.1", "must not look like an IP address"),
        (
            json!({"hosts": ["h.redis.internal"], "bind": {"mode": "vnm", "dns_name": "h.redis.internal"}}),
            "hosts",
            "h.redis.internal",
            "must be left out unless bind.dns_name is a wildcard",
        ),
        (json!({"hosts": ["h"], "bind": {}}), "hosts", "h", "must be left out unless bind.dns_name is a wildcard"),
        (
            json!({"bind": {"mode": "vnm", "dns_name": "*"}}),
            "bind.dns_name",
            "*",
            "must name what the star stands under",
        ),
        (
            json!({"bind": {"mode": "vnm", "dns_name": "*.com"}}),
            "bind.dns_name",
            "*.com",
            "must not be a public suffix",
        ),
        (
            json!({"bind": {"mode": "vnm", "dns_name": "*.TAKEN.internal"}}),
            "bind.dns_name",
            "*.TAKEN.internal",
            "must be unique: resource taken has it",
        ),
        (
            json!({"bind": {"mode": "vnm", "ip": "100.72.1.9", "port": 7000}}),
            "bind.port",
            "7000",
            "must be free at 100.72.1.9: resource taken has it",
        ),
        (
            json!({"ports": ["7005"], "bind": {"mode": "vnm", "ip": "100.72.1.9", "port": 80}}),
            "ports",
            "7005",
            "must be free at 100.72.1.9: resource taken has it",
        ),
        (
            json!({"ports": ["7005"], "bind": {"mode": "vnm", "port": 7005}}),
            "bind.port",
            "7005",
            "must not be one of the resource's further ports",
        ),
        (json!({"bind": {"mode": "sometimes"}}), "bind.mode", "sometimes", "unknown variant"),
        (json!({"bind": {"loopback": {"port": 20000}}}), "bind.loopback", "20000", "must be left out in loopback mode"),
        (
            json!({"bind": {"mode": "both", "loopback": {"port": 80, "colour": "red"}}}),
            "bind.loopback.colour",
            "\"red\"",
            "is not a field here",
        ),
        (
            json!({"bind": {"mode": "both", "loopback": {"port": 10000}}}),
            "bind.loopback.port",
            "10000",
            "must be free at 127.0.0.1: resource taken has it",
        ),
    ] {
        let mut body = cluster("new", "*.redis.internal");
        body = fit(body);
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        let answer = world.admin.send("POST", "/resources", Some(body)).await;
        assert_eq!(answer.status, 422, "{change}");
        let first = &answer.problem().violations[0];
        assert_eq!(first.field, field, "{change}: {first:?}");
        assert!(first.value.starts_with(value) && first.rule.contains(rule), "{change}: {first:?}");
    }
    assert_eq!(world.admin.get("/resources").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_race_for_a_name_exactly_one_wins() {
    let world = World::start().await;
    for (round, (mine, theirs)) in
        [("*.kafka.internal", "*.KAFKA.internal."), ("db.example.org", "DB.example.org")].into_iter().enumerate()
    {
        let mut racers = JoinSet::new();
        for n in 0..20 {
            let admin = world.admin.clone();
            let alias = if n % 2 == 0 { mine } else { theirs };
            let body = cluster(&format!("r{round}-{n}"), alias);
            racers.spawn(async move { admin.send("POST", "/resources", Some(body)).await });
        }
        let answers = racers.join_all().await;
        let won = answers.iter().filter(|answer| answer.status == 201).count();
        let lost = answers.iter().filter(|answer| answer.status == 422);
        let told = lost.filter(|answer| answer.problem().violations[0].rule.starts_with("must be unique: resource "));
        assert_eq!((won, told.count()), (1, 19));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_ports_is_checked_against_the_neighbours() {
    let world = World::start().await;
    let at = |name: &str, ports: &str| {
        json!({
            "name": name, "host": "h", "port": 80, "ports": ports,
            "bind": {"mode": "vnm", "ip": "100.72.1.9", "port": if name == "a" { 80 } else { 81 }},
        })
    };
    world.admin.post("/resources", at("a", "7000-7005")).await;
    let second = world.admin.post("/resources", at("b", "8000")).await;
    let path = format!("/resources/{}", text(&second, "id"));
    let broken = world.admin.broken("PATCH", &path, json!({"ports": ["6999-7000"]})).await;
    assert_eq!(
        (fields(&broken), broken[0].1.as_str()),
        (vec!["ports"], "must be free at 100.72.1.9: resource a has it")
    );
    let fine = world.admin.patch(&path, json!({"ports": ["6999", "82"]})).await;
    assert_eq!(fine["ports"], json!(["82", "6999"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_move_with_the_zone_and_nobody_loses_one() {
    let world = World::start().await;
    let vnm = |name: &str, alias: Option<&str>| json!({"name": name, "host": "h", "bind": {"mode": "both", "dns_name": alias}});
    for (name, alias) in [
        ("Payments DB", None),
        ("kafka", Some("*.kafka.example")),
        ("real", Some("db.internal")),
        ("guest", Some("guest.new-zone")),
    ] {
        world.admin.post("/resources", vnm(name, alias)).await;
    }
    for (zone, rule) in [
        ("com", "must not be a public suffix"),
        ("*.x", "must consist of ASCII letters"),
        ("localhost", "must not be localhost"),
        ("", "must not be empty"),
    ] {
        let broken = world.admin.broken("PUT", "/network", json!({"dns_zone": zone})).await;
        assert!(fields(&broken) == ["dns_zone"] && broken[0].1.contains(rule), "{zone}: {}", broken[0].1);
    }
    world.admin.post("/resources", vnm("clash", Some("payments-db.new-zone"))).await;
    let broken = world.admin.broken("PUT", "/network", json!({"dns_zone": "new-zone"})).await;
    assert_eq!(broken[0].1, "must leave payments-db.new-zone to resource clash");
    let answer = world.admin.send("PUT", "/network", Some(json!({"dns_zone": " New.Zone. "}))).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["dns_zone"]), (200, &json!("new.zone")));
    let list = world.admin.get("/resources").await;
    let mut names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["bind"]["dns_name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["*.kafka.new.zone", "db.internal", "guest.new-zone", "payments-db.new-zone", "payments-db.new.zone"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_zone_and_no_name_covers_the_control_plane_or_a_gateway() {
    let world = World::start_named(&["control.acme.example", "127.0.0.1"]).await;
    world.admin.post("/gateways", json!({"name": "gw", "advertise": "gw.edge.test:5000"})).await;
    for (zone, covered) in [
        ("acme.example", "control.acme.example, the name of the control plane"),
        ("control.acme.example", "control.acme.example, the name of the control plane"),
        ("edge.test", "gw.edge.test, the name of gateway gw"),
    ] {
        let expected = format!("must not cover {covered}: nobody could reach it any more");
        let broken = world.admin.broken("PUT", "/network", json!({"dns_zone": zone})).await;
        assert_eq!((fields(&broken), &broken[0].1), (vec!["dns_zone"], &expected));
        let broken = world.admin.broken("POST", "/resources", fit(cluster("c", &format!("*.{zone}")))).await;
        assert_eq!((fields(&broken), &broken[0].1), (vec!["bind.dns_name"], &expected));
    }
    for advertise in ["db.internal:5000", "x.db.internal:5000"] {
        let path = format!(
            "/resources/{}",
            text(&world.admin.post("/resources", fit(cluster("c", "db.internal"))).await, "id")
        );
        let broken = world.admin.broken("POST", "/gateways", json!({"name": "g2", "advertise": advertise})).await;
        assert_eq!(fields(&broken), ["advertise"]);
        world.admin.delete(&path).await;
    }
}
