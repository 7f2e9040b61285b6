//! `admin`: what reaches the control plane, and what is shown of its answers.

use serde_json::{Value, json};

use crate::support::*;

const ACC: &str = "acc_01JABCDEFGHJKMNPQRSTVWXYZ0";
const SVC: &str = "acc_01JABCDEFGHJKMNPQRSTVWXYZ1";
const ROL: &str = "rol_01JABCDEFGHJKMNPQRSTVWXYZ0";
const RUL: &str = "rul_01JABCDEFGHJKMNPQRSTVWXYZ0";
const GRT: &str = "grt_01JABCDEFGHJKMNPQRSTVWXYZ0";
const RES: &str = "res_01JABCDEFGHJKMNPQRSTVWXYZ0";
const NOD: &str = "nod_01JABCDEFGHJKMNPQRSTVWXYZ0";
const CLU: &str = "clu_01JABCDEFGHJKMNPQRSTVWXYZ8";
const KEY: &str = "key_01JABCDEFGHJKMNPQRSTVWXYZ9";
const WIN: &str = "win_01JABCDEFGHJKMNPQRSTVWXYZ7";
const DEV: &str = "dev_01JABCDEFGHJKMNPQRSTVWXYZ0";
const TOK: &str = "tok_01JABCDEFGHJKMNPQRSTVWXYZ0";
/// 2026-11-21 01:20:00Z.
const AT: u64 = 1_795_224_000_000;

/// A control plane that holds one of each.
fn control() -> Fake {
    let fake = Fake::start();
    let things = [
        ("accounts", ACC, account_json()),
        (
            "accounts",
            SVC,
            json!({ "id": SVC, "email": "ci@service.invalid", "name": "ci", "kind": "service", "tags": {} }),
        ),
        ("roles", ROL, json!({ "id": ROL, "name": "ops", "tags": { "team": "sre" }, "revision": 2 })),
        ("resources", RES, resource_json()),
        (
            "gateways",
            NOD,
            json!({ "id": NOD, "name": "gw-1", "kind": "gateway", "group": "", "advertise": "gw:5000", "state": "connected", "last_seen_at": AT }),
        ),
        (
            "nodes",
            NOD,
            json!({ "id": NOD, "name": "gw-1", "role": "gateway", "group": "", "state": "draining", "version": "0.1.0", "streams": 7,
                "cpu_permille": 125, "drain_ends_at": AT, "last_seen_at": AT }),
        ),
        (
            "clusters",
            CLU,
            json!({ "id": CLU, "name": "eu", "advertise": "eu.example.org:443", "carrier": "direct", "authority": null,
                "tags": {}, "workers": 2, "connected": 1, "resources": 7 }),
        ),
        (
            "maintenance",
            WIN,
            json!({ "id": WIN, "name": "nightly", "schedule": "0 2 * * *", "duration": 5400, "require_idleness": true,
                "nodes": "role:gateway", "open": false, "opens_at": AT, "closes_at": AT + 5_400_000, "bound": 3 }),
        ),
        ("grants", GRT, json!({ "id": GRT, "account": ACC, "resource": RES, "ends_at": AT, "reason": "incident 7" })),
        (
            "devices",
            DEV,
            json!({ "id": DEV, "name": "laptop", "os": "Linux", "account": ACC, "email": "ana@example.com", "last_seen_at": AT }),
        ),
    ];
    for (collection, id, thing) in &things {
        fake.answer(&format!("GET /api/v1/{collection}/{id}"), 200, thing.clone());
        fake.answer(&format!("PATCH /api/v1/{collection}/{id}"), 200, thing.clone());
        fake.answer(&format!("DELETE /api/v1/{collection}/{id}"), 204, Value::Null);
        fake.answer(&format!("POST /api/v1/{collection}"), 201, thing.clone());
        let all: Vec<_> = things.iter().filter(|(c, ..)| c == collection).map(|(.., thing)| thing).collect();
        fake.answer(&format!("GET /api/v1/{collection}"), 200, page(&json!(all)));
        for field in ["name", "email"] {
            let Some(name) = thing[field].as_str() else { continue };
            let query = format!("limit=2&filter={field}%3A%22{}%22", name.replace('@', "%40"));
            fake.answer(&format!("GET /api/v1/{collection}?{query}"), 200, page(&json!([thing])));
        }
    }
    fake
}

fn account_json() -> Value {
    json!({ "id": ACC, "email": "ana@example.com", "name": "Ana", "kind": "user", "admin": true, "suspended": false,
        "tags": { "team": "sre" }, "created_at": AT, "revision": 5 })
}

fn resource_json() -> Value {
    json!({ "id": RES, "name": "orders-db", "kind": "postgres", "host": "10.0.0.7", "port": 5432,
        "tags": { "env": "prod", "pci": "" }, "bind": { "mode": "loopback", "ip": "127.0.0.1", "port": 15432 },
        "allow_local": false, "strict": true, "revision": 9, "health": { "state": "unhealthy", "error": "refused" } })
}

fn page(items: &Value) -> Value {
    json!({ "items": items, "next_cursor": null })
}

/// The calls that changed something.
fn changes(fake: &Fake) -> Vec<Call> {
    fake.control_calls().into_iter().filter(|(call, _)| !call.starts_with("GET")).collect()
}

/// Runs a command that must work and must lead to just this change.
#[track_caller]
fn leads_to(arguments: &[&str], call: &str, body: Value) -> Ran {
    let fake = control();
    let ran = fake.run(&[&["admin"], arguments].concat()).ends(0);
    assert_eq!(changes(&fake), [(call.to_owned(), body)], "{arguments:?}");
    ran
}

fn not_found(fake: &Fake, collection: &str) {
    for field in ["name", "email"] {
        let query = format!("limit=2&filter={field}%3A%22opps%22");
        fake.answer(&format!("GET /api/v1/{collection}?{query}"), 200, page(&json!([])));
    }
}

#[test]
fn accounts_are_listed_shown_made_changed_and_deleted() {
    let fake = control();
    let ran = fake.run(&["admin", "accounts", "list"]).ends(0);
    assert_eq!(
        ran.out,
        format!(
            "EMAIL               NAME  KIND     ADMIN  SUSPENDED  TAGS      ID\n\
             ana@example.com     Ana   user     yes    -          team=sre  {ACC}\n\
             ci@service.invalid  ci    service  -      -          -         {SVC}\n"
        )
    );
    let ran = fake.run(&["admin", "accounts", "show", "ana@example.com"]).ends(0);
    ran.says("email      ana@example.com\n").says("created    2026-11-21 01:20:00Z\n").says("tags       team=sre\n");
    assert_eq!(fake.run(&["admin", "accounts", "show", ACC, "--json"]).ends(0).json(), account_json());

    let created =
        ["accounts", "create", "bo@example.com", "--name", "Bo", "--admin", "--tag", "team=sre", "--tag", "x"];
    let body = json!({ "email": "bo@example.com", "name": "Bo", "kind": "user", "admin": true, "tags": { "team": "sre", "x": "" } });
    let ran = leads_to(&created, "POST /api/v1/accounts", body);
    ran.says("Created account ").warns("has no password yet");
    leads_to(
        &["accounts", "create", "--kind", "service", "--name", "ci"],
        "POST /api/v1/accounts",
        json!({ "kind": "service", "name": "ci" }),
    );
    fake.run(&["admin", "accounts", "create"]).ends(2).warns("EMAIL");

    leads_to(
        &[
            "accounts",
            "update",
            "ana@example.com",
            "--suspended",
            "true",
            "--admin=false",
            "--tag",
            "a=b",
            "--untag",
            "team",
        ],
        &format!("PATCH /api/v1/accounts/{ACC}"),
        json!({ "suspended": true, "admin": false, "tags": { "a": "b" } }),
    )
    .says("Changed account ");
    fake.run(&["admin", "accounts", "update", ACC]).ends(2).warns("there is nothing to change");
    leads_to(&["accounts", "delete", "ci", "--yes"], &format!("DELETE /api/v1/accounts/{SVC}"), Value::Null)
        .says("Deleted account ci\n");
}

#[test]
fn a_password_for_an_account_comes_from_stdin() {
    let fake = control();
    fake.run_with_input(&["admin", "accounts", "create", "bo@example.com", "--password-stdin"], "long enough it is\n")
        .ends(0);
    fake.run_with_input(&["admin", "accounts", "update", ACC, "--password-stdin"], "another long one\n").ends(0);
    let keep = &["admin", "accounts", "update", ACC, "--password-stdin", "--keep-password"];
    fake.run_with_input(keep, "the third long one\n").ends(0);
    let sent: Vec<_> = changes(&fake).into_iter().map(|(_, body)| body).collect();
    let passwords: Vec<_> = sent.iter().map(|body| body["password"].clone()).collect();
    assert_eq!(passwords, ["long enough it is", "another long one", "the third long one"]);
    let asked: Vec<_> = sent.iter().map(|body| body["must_change_password"].clone()).collect();
    assert_eq!(asked, [json!(true), json!(true), Value::Null]);
}

#[test]
fn tokens_are_shown_once_and_alone_on_stdout() {
    let fake = control();
    let tokens = format!("/api/v1/accounts/{SVC}/tokens");
    fake.answer(&format!("POST {tokens}"), 201, json!({ "id": TOK, "name": "deploy", "token": "ptk_secret" }));
    let known = json!([{ "id": TOK, "name": "deploy", "created_at": AT, "expires_at": null }]);
    fake.answer(&format!("GET {tokens}"), 200, page(&known));
    fake.answer(&format!("DELETE {tokens}/{TOK}"), 204, Value::Null);
    let ran =
        fake.run(&["admin", "tokens", "create", "ci", "--name", "deploy", "--until", "2026-11-21T01:20Z"]).ends(0);
    assert_eq!(ran.out, "ptk_secret\n");
    let ran = ran.warns("shown this once");
    assert!(!ran.err.contains("ptk_secret"));
    fake.run(&["admin", "tokens", "list", "ci"]).ends(0).says("deploy  2026-11-21 01:20:00Z  -");
    fake.run(&["admin", "tokens", "delete", "ci", "deploi", "--yes"]).ends(5).warns("did you mean \"deploy\"?");
    fake.run(&["admin", "tokens", "delete", "ci", "deploy", "--yes"]).ends(0);
    let expected = json!({ "name": "deploy", "expires_at": AT });
    assert_eq!(changes(&fake), [(format!("POST {tokens}"), expected), (format!("DELETE {tokens}/{TOK}"), Value::Null)]);
}

#[test]
fn roles_are_shown_with_their_rules_and_members() {
    let fake = control();
    let rules = json!([{ "id": RUL, "role": ROL, "query": "tags:env=prod" }, { "id": "rul_2", "role": ROL, "resources": [RES] }]);
    fake.answer(&format!("GET /api/v1/roles/{ROL}/rules"), 200, page(&rules));
    fake.answer(
        &format!("GET /api/v1/roles/{ROL}/members"),
        200,
        page(&json!([{ "role": ROL, "account": ACC, "email": "ana@example.com", "name": "Ana" }])),
    );
    let ran = fake.run(&["admin", "roles", "show", "ops"]).ends(0);
    let ran = ran.says("name      ops\n").says("Rules\n").says("tags:env=prod").says("orders-db");
    ran.says("Members\n").says("ana@example.com");
    fake.run(&["admin", "rules", "list", "ops"]).ends(0).says("orders-db");
    let rule = json!({ "id": RUL, "role": ROL, "resources": [RES] });
    fake.answer(&format!("GET /api/v1/roles/{ROL}/rules/{RUL}"), 200, rule);
    fake.run(&["admin", "rules", "show", "ops", RUL]).ends(0).says("resources  orders-db\n").says("role       ops\n");
    fake.run(&["admin", "members", "list", "ops"]).ends(0).says("ana@example.com");
    assert_eq!(fake.run(&["admin", "members", "list", "ops", "--json"]).ends(0).json()["items"][0]["account"], ACC);
}

#[test]
fn roles_rules_and_members_are_changed() {
    leads_to(
        &["roles", "create", "dev", "--tag", "a=1"],
        "POST /api/v1/roles",
        json!({ "name": "dev", "tags": { "a": "1" } }),
    );
    leads_to(
        &["roles", "update", "ops", "--name", "sre"],
        &format!("PATCH /api/v1/roles/{ROL}"),
        json!({ "name": "sre" }),
    );
    leads_to(&["roles", "delete", "ops", "-y"], &format!("DELETE /api/v1/roles/{ROL}"), Value::Null);

    let fake = control();
    let role = format!("/api/v1/roles/{ROL}");
    fake.answer(&format!("POST {role}/rules"), 201, json!({ "id": RUL }));
    fake.answer(&format!("PATCH {role}/rules/{RUL}"), 200, json!({ "id": RUL }));
    fake.answer(&format!("DELETE {role}/rules/{RUL}"), 204, Value::Null);
    fake.answer(&format!("POST {role}/members"), 201, json!({ "role": ROL, "account": ACC }));
    fake.answer(&format!("DELETE {role}/members/{ACC}"), 204, Value::Null);
    fake.run(&["admin", "rules", "create", "ops", "--resource", "orders-db"]).ends(0).says(RUL);
    fake.run(&["admin", "rules", "update", "ops", RUL, "--query", "kind:tcp"]).ends(0);
    fake.run(&["admin", "rules", "delete", "ops", RUL, "--yes"]).ends(0);
    fake.run(&["admin", "members", "add", "ops", "ana@example.com"]).ends(0).says("Added ana@example.com to role ops");
    fake.run(&["admin", "members", "remove", "ops", ACC]).ends(0).says("Removed ana@example.com from role ops");
    assert_eq!(
        changes(&fake),
        [
            (format!("POST {role}/rules"), json!({ "resources": [RES] })),
            (format!("PATCH {role}/rules/{RUL}"), json!({ "query": "kind:tcp" })),
            (format!("DELETE {role}/rules/{RUL}"), Value::Null),
            (format!("POST {role}/members"), json!({ "account": ACC })),
            (format!("DELETE {role}/members/{ACC}"), Value::Null),
        ]
    );
    fake.run(&["admin", "rules", "create", "ops"]).ends(2);
    fake.run(&["admin", "rules", "create", "ops", "--query", "name:"]).ends(2).warns("is not valid");
}

#[test]
fn grants_name_accounts_and_resources_by_name() {
    let fake = control();
    let ran = fake.run(&["admin", "grants", "list"]).ends(0);
    ran.says("ana@example.com  orders-db  2026-11-21 01:20:00Z  incident 7");
    fake.run(&["admin", "grants", "list", "--account", "ana@example.com", "--resource", "orders-db", "-f", "reason:x"])
        .ends(0);
    let asked = fake.control_calls().into_iter().rev().find(|(call, _)| call.contains("/grants?")).unwrap().0;
    assert_eq!(asked, format!("GET /api/v1/grants?limit=1000&filter=reason%3Ax%20account%3A{ACC}%20resource%3A{RES}"));
    fake.run(&["admin", "grants", "show", GRT]).ends(0).says("account   ana@example.com\n");
    leads_to(
        &[
            "grants",
            "create",
            "ana@example.com",
            "orders-db",
            "--until",
            "2026-11-21T01:20:00Z",
            "--reason",
            "incident 7",
        ],
        "POST /api/v1/grants",
        json!({ "account": ACC, "resource": RES, "ends_at": AT, "reason": "incident 7" }),
    );
    leads_to(
        &["grants", "update", GRT, "--forever"],
        &format!("PATCH /api/v1/grants/{GRT}"),
        json!({ "ends_at": null }),
    );
    leads_to(&["grants", "revoke", GRT, "--yes"], &format!("DELETE /api/v1/grants/{GRT}"), Value::Null);
    fake.run(&["admin", "grants", "create", ACC, RES, "--for", "8h", "--until", "2026-01-01"]).ends(2);
    fake.run(&["admin", "grants", "create", ACC, RES, "--for", "8h"]).ends(0);
    let ends = changes(&fake)[0].1["ends_at"].as_u64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let hours = (u128::from(ends) - now) / 3_600_000;
    assert!((7..=8).contains(&hours), "{hours}");
}

#[test]
fn resources_are_made_with_only_what_was_said() {
    leads_to(
        &["resources", "create", "cache", "--host", "10.0.0.9"],
        "POST /api/v1/resources",
        json!({ "name": "cache", "kind": "tcp", "host": "10.0.0.9" }),
    )
    .says("Created resource orders-db")
    .says("it appears at 127.0.0.1:15432");
    let full = "resources create db --kind postgres --host h --port 6432 --tag env=prod --bind-mode vnm --bind-ip 100.72.0.9 \
                --bind-port 5432 --dns-name db.my-org --allow-local --strict";
    leads_to(
        &full.split_whitespace().collect::<Vec<_>>(),
        "POST /api/v1/resources",
        json!({ "name": "db", "kind": "postgres", "host": "h", "port": 6432, "tags": { "env": "prod" },
            "bind": { "mode": "vnm", "ip": "100.72.0.9", "port": 5432, "dns_name": "db.my-org" },
            "allow_local": true, "strict": true }),
    );
    let cluster = "resources create cluster --kind redis --host n1 --ports 7003-7005,9000,7000-7002 --bind-mode both \
                   --hosts n2.redis.internal,*.eu.redis.internal --hosts n3.redis.internal \
                   --dns-name *.redis.internal --loopback-ip 127.0.0.2 --loopback-port 16379";
    leads_to(
        &cluster.split_whitespace().collect::<Vec<_>>(),
        "POST /api/v1/resources",
        json!({ "name": "cluster", "kind": "redis", "host": "n1", "ports": ["7000-7005", "9000"],
            "hosts": ["n2.redis.internal", "*.eu.redis.internal", "n3.redis.internal"],
            "bind": { "mode": "both", "dns_name": "*.redis.internal",
                "loopback": { "ip": "127.0.0.2", "port": 16379 } } }),
    );
    leads_to(
        &["resources", "update", "orders-db", "--ports", "", "--hosts", ""],
        &format!("PATCH /api/v1/resources/{RES}"),
        json!({ "ports": [], "hosts": [] }),
    );
    leads_to(
        &["resources", "update", "orders-db", "--bind-port", "16000", "--strict", "false", "--untag", "pci"],
        &format!("PATCH /api/v1/resources/{RES}"),
        json!({ "bind": { "port": 16000 }, "strict": false, "tags": { "env": "prod" } }),
    );
    let fake = control();
    fake.run(&["admin", "resources", "create", "x"]).ends(2).warns("--host");
    fake.run(&["admin", "resources", "create", "x", "--host", "h", "--ports", "80-x"]).ends(2).warns("is neither");
    fake.run(&["admin", "resources", "create", "x", "--host", "h", "--kind", "gopher"])
        .ends(2)
        .warns("known kinds are");
    let ran = fake.run(&["admin", "resources", "list"]).ends(0);
    ran.says("10.0.0.7:5432  127.0.0.1:15432").says("unhealthy: refused").says("env=prod pci");
}

#[test]
fn where_a_resource_appears_is_told_with_every_port_and_address() {
    let fake = control();
    let resource = |mode: &str| {
        json!({ "id": RES, "name": "cluster", "kind": "redis", "host": "n1", "port": 6379, "ports": ["7000-7005"],
            "tags": {}, "health": { "state": "unknown" },
            "bind": { "mode": mode, "ip": "100.72.1.0", "port": 6379, "dns_name": "*.redis.internal",
                "loopback": { "ip": "127.0.0.1", "port": 10000 } } })
    };
    fake.answer("POST /api/v1/resources", 201, resource("vnm"));
    let create = ["admin", "resources", "create", "cluster", "--host", "n1"];
    fake.run(&create).ends(0).says(
        "it appears at 100.72.1.0:6379 as *.redis.internal, or at 127.0.0.1:10000 where there is no virtual network\n",
    );
    fake.answer("POST /api/v1/resources", 201, resource("both"));
    fake.run(&create).ends(0).says("it appears at 100.72.1.0:6379 as *.redis.internal, and at 127.0.0.1:10000\n");
    let list = json!({ "items": [resource("both")], "next_cursor": null });
    fake.answer("GET /api/v1/resources", 200, list);
    let ran = fake.run(&["admin", "resources", "list"]).ends(0);
    ran.says("n1:6379,7000-7005").says("100.72.1.0:6379, 127.0.0.1:10000").says("*.redis.internal");
}

#[test]
fn a_broken_rule_is_named_with_field_value_and_rule() {
    let fake = control();
    let problem = json!({ "status": 422, "code": "invalid", "title": "The request breaks rules", "detail": "bind.port: …",
        "violations": [{ "field": "bind.port", "value": "80", "rule": "must be from 1024 to 64999 in loopback mode" }] });
    fake.answer("POST /api/v1/resources", 422, problem);
    let ran = fake.run(&["admin", "resources", "create", "x", "--host", "h", "--bind-port", "80"]).ends(8);
    assert_eq!(
        ran.err,
        "error: cannot create resource x: the request breaks rules\n  \
         why:  bind.port = \"80\": must be from 1024 to 64999 in loopback mode\n"
    );
}

#[test]
fn maintenance_windows_are_made_changed_and_listed() {
    let fake = control();
    fake.run(&["admin", "maintenance", "create", "nightly", "--schedule", "0 2 * * *", "--duration", "90m"])
        .ends(0)
        .says("Created maintenance window nightly");
    let strict = ["--schedule", "0 2 * * *", "--duration", "1h", "--require-idleness", "--nodes", "role:gateway"];
    fake.run(&[&["admin", "maintenance", "create", "strict"], &strict[..]].concat()).ends(0);
    fake.run(&["admin", "window", "update", "nightly", "--require-idleness", "false", "--nodes", ""]).ends(0);
    fake.run(&["admin", "maintenance", "update", "nightly"]).ends(2);
    fake.run(&["admin", "maintenance", "create", "x", "--schedule", "0 2 * * *"]).ends(2).warns("--duration");
    let listed = fake.run(&["admin", "maintenance", "list"]).ends(0);
    listed.says("nightly  0 2 * * *  1 h 30 min").says("2026-11-21 01:20:00Z  2026-11-21 02:50:00Z    3  role:gateway");
    fake.run(&["admin", "maintenance", "show", "nightly"]).ends(0).says("duration          1 h 30 min\n");
    let shown = fake.run(&["admin", "maintenance", "show", "nightly", "--json"]).ends(0).json();
    assert_eq!((&shown["bound"], &shown["duration"]), (&json!(3), &json!(5400)));
    fake.run(&["admin", "maintenance", "delete", "nightly", "--yes"])
        .ends(0)
        .says("Deleted maintenance window nightly");
    let changes: Vec<Value> = changes(&fake).into_iter().map(|(_, body)| body).collect();
    assert_eq!(changes[0], json!({ "name": "nightly", "schedule": "0 2 * * *", "duration": 5400 }));
    let strict = json!({ "name": "strict", "schedule": "0 2 * * *", "duration": 3600, "require_idleness": true,
        "nodes": "role:gateway" });
    assert_eq!(changes[1], strict);
    assert_eq!(changes[2], json!({ "require_idleness": false, "nodes": "" }));
}

#[test]
fn a_drain_that_waits_for_its_window_is_shown_with_its_time() {
    let fake = control();
    let plan = |begins_at: Value, open: bool, idle: bool| {
        json!({ "id": NOD, "name": "gw-1", "role": "gateway", "group": "", "state": "up", "version": "0.1.0", "streams": 7,
            "cpu_permille": 125, "last_seen_at": AT, "drain_planned": { "deadline": 300, "window": "nightly",
                "begins_at": begins_at, "open": open, "require_idleness": idle } })
    };
    fake.answer(&format!("POST /api/v1/nodes/{NOD}/drain"), 200, plan(json!(AT), false, false));
    fake.run(&["admin", "nodes", "drain", "gw-1", "--in-window", "--deadline", "1m"])
        .ends(0)
        .says("Will drain node gw-1")
        .warns("In window nightly: 2026-11-21 01:20:00Z")
        .warns("postern admin nodes drain gw-1 --cancel");
    fake.run(&["admin", "nodes", "drain", "gw-1", "--in-window", "--cancel"]).ends(2);
    fake.answer(&format!("GET /api/v1/nodes/{NOD}"), 200, plan(json!(AT), false, false));
    fake.run(&["admin", "nodes", "show", "gw-1"]).ends(0).says("drain planned deadline          5 min\n");
    assert_eq!(changes(&fake)[0].1, json!({ "deadline": 60, "in_window": true }));
    for (node, shown) in [
        (plan(json!(AT), false, true), "2026-11-21 01:20:00Z, when idle"),
        (plan(json!(AT), true, true), "  when idle"),
        (plan(json!(AT), true, false), "  now"),
        (plan(Value::Null, false, false), "no window is for it"),
    ] {
        fake.answer("GET /api/v1/nodes", 200, page(&json!([node])));
        fake.run(&["admin", "nodes", "list"]).ends(0).says("DRAIN PLANNED").says(shown);
    }
}

#[test]
fn gateways_are_made_with_a_token_for_stdout() {
    let fake = control();
    let made = json!({ "id": NOD, "name": "gw-2", "enrol_token": "enr_secret", "enrol_token_expires_at": AT });
    fake.answer("GET /api/v1/ca", 200, json!({ "fingerprint": "abcd" }));
    fake.answer("POST /api/v1/gateways", 201, made.clone());
    fake.answer(&format!("POST /api/v1/gateways/{NOD}/token"), 201, json!({ "enrol_token": "enr_again" }));
    let ran = fake.run(&["admin", "gateways", "create", "gw-2", "--advertise", "gw2:5000"]).ends(0);
    assert_eq!(ran.out, "enr_secret\n");
    assert_eq!(
        ran.err,
        "Gateway gw-2 enrols with this token, once, until 2026-11-21 01:20:00Z. It is shown this once. Use:\n  \
         POSTERN_ENROL_TOKEN=… postern-node gateway --control https://control.example:8443 --ca-fingerprint abcd --state DIR\n"
    );
    assert_eq!(fake.run(&["admin", "gateways", "create", "gw-2", "--json"]).ends(0).json(), made);
    assert_eq!(fake.run(&["admin", "gateways", "token", "gw-1"]).ends(0).out, "enr_again\n");
    fake.run(&["admin", "gateways", "update", "gw-1", "--advertise", "h:1"]).ends(0);
    fake.run(&["admin", "gateways", "delete", "gw-1", "--yes"]).ends(0);
    fake.run(&["admin", "gateways", "list"])
        .ends(0)
        .says("gw:5000  connected  2026-11-21 01:20:00Z")
        .says("gw-1  gateway");
    assert_eq!(changes(&fake)[0].1, json!({ "name": "gw-2", "advertise": "gw2:5000" }));
}

#[test]
fn a_node_is_taken_out_of_service_and_put_back() {
    let fake = control();
    fake.run(&["admin", "nodes", "list"])
        .ends(0)
        .says("ROLE")
        .says("gw-1  gateway")
        .says("draining        7  12.5 %  0.1.0    2026-11-21 01:20:00Z  2026-11-21 01:20:00Z");
    fake.run(&["admin", "nodes", "show", "gw-1"]).ends(0).says("cpu         12.5 %\n");
    assert_eq!(fake.run(&["admin", "nodes", "show", "gw-1", "--json"]).ends(0).json()["cpu_permille"], 125);
    let drained = json!({ "id": NOD, "name": "gw-1", "drain_ends_at": AT });
    fake.answer(&format!("POST /api/v1/nodes/{NOD}/drain"), 200, drained);
    fake.answer(&format!("DELETE /api/v1/nodes/{NOD}/drain"), 204, Value::Null);
    fake.run(&["admin", "nodes", "drain", "gw-1", "--deadline", "10m"])
        .ends(0)
        .says("Draining node gw-1")
        .warns("cut at 2026-11-21 01:20:00Z")
        .warns("postern admin nodes drain gw-1 --cancel");
    fake.run(&["admin", "nodes", "drain", "gw-1", "--cancel"]).ends(0).says("Put back into service: node gw-1");
    fake.run(&["admin", "nodes", "drain", "gw-1", "--cancel", "--deadline", "1"]).ends(2);
    let changes = changes(&fake);
    assert_eq!(changes[0].1, json!({ "deadline": 600 }));
    assert!(changes[1].0.starts_with("DELETE "), "{changes:?}");
}

#[test]
fn clusters_are_made_and_their_key_pairs_shown_once_as_what_workers_take() {
    let fake = control();
    fake.run(&["admin", "clusters", "list"]).ends(0).says("eu.example.org:443  direct ");
    fake.run(&["admin", "clusters", "create", "eu", "--advertise", "eu.example.org:443", "--tag", "env=prod"])
        .ends(0)
        .says("Created cluster eu")
        .warns("postern admin cluster-keys create eu");
    let pair = json!({ "id": KEY, "access_key": KEY, "secret_key": "postern_cluster_s3cret", "created_at": AT });
    fake.answer(&format!("POST /api/v1/clusters/{CLU}/keys"), 201, pair.clone());
    fake.answer(&format!("POST /api/v1/clusters/{CLU}/keys/{KEY}/rotate"), 200, pair);
    fake.answer(&format!("DELETE /api/v1/clusters/{CLU}/keys/{KEY}"), 204, Value::Null);
    let kept = json!([{ "id": KEY, "created_at": AT, "rotated_at": null, "last_used_at": AT }]);
    fake.answer(&format!("GET /api/v1/clusters/{CLU}/keys"), 200, page(&kept));
    for made in [&["create", "eu"][..], &["rotate", "eu", KEY]] {
        fake.run(&[&["admin", "cluster-keys"], made].concat())
            .ends(0)
            .says(&format!("POSTERN_PROXY_CLUSTER_ACCESS_KEY={KEY}"))
            .says("POSTERN_PROXY_CLUSTER_SECRET_KEY=postern_cluster_s3cret")
            .warns("not shown again");
    }
    fake.run(&["admin", "cluster-keys", "create", "eu", "--json"]).ends(0).says("\"secret_key\"");
    fake.run(&["admin", "cluster-keys", "list", "eu"]).ends(0).says("LAST USED").says(KEY);
    fake.run(&["admin", "cluster-keys", "revoke", "eu", KEY, "--yes"]).ends(0).says("Deleted key pair");
    fake.run(&["admin", "resources", "update", "orders-db", "--cluster", "eu"]).ends(0);
    fake.run(&["admin", "resources", "update", "orders-db", "--cluster", ""]).ends(0);
    let changes = changes(&fake);
    let (made, bound) = (&changes[0].1, &changes[changes.len() - 2..]);
    assert_eq!(*made, json!({ "name": "eu", "advertise": "eu.example.org:443", "tags": { "env": "prod" } }));
    assert_eq!((&bound[0].1, &bound[1].1), (&json!({ "cluster": CLU }), &json!({ "cluster": null })));
}

#[test]
fn network_settings_are_changed_one_by_one() {
    let fake = control();
    let settings = json!({ "loopback_range": "127.0.0.1/32", "multi_loopback": false, "vnm_subnet": "100.72.0.0/16" });
    fake.answer("GET /api/v1/network", 200, settings.clone());
    fake.answer("PUT /api/v1/network", 200, settings.clone());
    fake.run(&["admin", "network", "show"]).ends(0).says("loopback range  127.0.0.1/32\n").says("multi loopback  no\n");
    assert_eq!(fake.run(&["admin", "network", "show", "--json"]).ends(0).json(), settings);
    fake.run(&["admin", "network", "update", "--multi-loopback", "true"]).ends(0);
    let expected = json!({ "loopback_range": "127.0.0.1/32", "multi_loopback": true, "vnm_subnet": "100.72.0.0/16" });
    assert_eq!(changes(&fake), [("PUT /api/v1/network".to_owned(), expected)]);
    fake.run(&["admin", "network", "update", "--dns-zone", "acme", "--vnm-ipv6", "true"]).ends(0);
    assert_eq!((&changes(&fake)[1].1["dns_zone"], &changes(&fake)[1].1["vnm_ipv6"]), (&json!("acme"), &json!(true)));
    fake.run(&["admin", "network", "update"]).ends(2);
}

#[test]
fn devices_are_listed_and_shut_out() {
    let fake = control();
    fake.run(&["admin", "devices", "list"]).ends(0).says("laptop  Linux  ana@example.com");
    leads_to(&["devices", "revoke", "laptop", "--yes"], &format!("DELETE /api/v1/devices/{DEV}"), Value::Null);
}

#[test]
fn long_lists_are_read_page_by_page_up_to_the_limit() {
    let fake = control();
    let items = |from: usize, to: usize| -> Vec<Value> {
        (from..to).map(|n| json!({ "id": format!("rol_{n:04}"), "name": format!("role-{n:04}") })).collect()
    };
    let roles = "GET /api/v1/roles?limit";
    fake.answer(&format!("{roles}=1000"), 200, json!({ "items": items(0, 1000), "next_cursor": "a/b" }));
    fake.answer(&format!("{roles}=1000&cursor=a%2Fb"), 200, json!({ "items": items(1000, 1500), "next_cursor": null }));
    fake.answer(&format!("{roles}=200&cursor=a%2Fb"), 200, json!({ "items": items(1000, 1200), "next_cursor": "c" }));
    let lines = |ran: &Ran| ran.out.lines().count() - 1;
    let all = fake.run(&["admin", "roles", "list", "--limit", "0"]).ends(0);
    assert_eq!((lines(&all), all.err.as_str()), (1500, ""));
    let some = fake.run(&["admin", "roles", "list", "--limit", "1200"]).ends(0).warns("There are more roles");
    assert_eq!(lines(&some), 1200);
    let json = fake.run(&["admin", "roles", "list", "-n", "1200", "--json"]).ends(0).json();
    assert_eq!((json["items"].as_array().unwrap().len(), json["next_cursor"].as_str()), (1200, Some("c")));
}

#[test]
fn a_server_that_gives_the_same_page_for_ever_is_not_followed() {
    let fake = control();
    fake.answer("GET /api/v1/roles", 200, json!({ "items": [], "next_cursor": "again" }));
    fake.run(&["admin", "roles", "list", "--limit", "0"]).ends(0);
    assert!(fake.control_calls().len() < 5);
}

#[test]
fn an_empty_page_in_the_middle_does_not_end_a_list() {
    let fake = control();
    let roles = "GET /api/v1/roles?limit=1000&filter=name%3Ax";
    let found = json!([{ "id": ROL, "name": "x" }]);
    fake.answer(roles, 200, json!({ "items": [], "next_cursor": "b" }));
    fake.answer(&format!("{roles}&cursor=b"), 200, json!({ "items": found, "next_cursor": null }));
    fake.run(&["admin", "roles", "list", "-f", "name:x"]).ends(0).says(ROL);
}

#[test]
fn records_are_listed_shown_and_exported() {
    let fake = control();
    let activity = |n: u64| {
        json!({ "id": format!("act_{n}"), "seq": n, "at": AT, "revision": n, "verb": "role.created",
            "actor": { "kind": "account", "id": ACC, "name": "ana@example.com" },
            "subject": { "kind": "role", "id": ROL, "name": "ops" }, "before": null, "after": { "name": "ops" },
            "from": { "address": "192.0.2.1", "agent": "posternd" } })
    };
    fake.answer("GET /api/v1/activities?limit=1", 200, json!({ "items": [activity(2)], "next_cursor": "c" }));
    let ran = fake.run(&["admin", "activities", "list", "-n", "1"]).ends(0);
    ran.says("2026-11-21 01:20:00Z  ana@example.com  role.created  ops").warns("There are more activities");
    fake.answer("GET /api/v1/activities/act_2", 200, activity(2));
    let ran = fake.run(&["admin", "activities", "show", "act_2"]).ends(0);
    ran.says("actor name    ana@example.com\n")
        .says("after name    ops\n")
        .says("at            2026-11-21 01:20:00Z\n");
    fake.refuse("GET /api/v1/activities/act_9", 404, "not_found", "There is no activity act_9");
    fake.run(&["admin", "activities", "show", "act_9"]).ends(5).warns("there is no activity act_9");
    fake.answer("GET /api/v1/activities?limit=1000", 200, json!({ "items": [activity(2)], "next_cursor": "c" }));
    fake.answer("GET /api/v1/activities?limit=1000&cursor=c", 200, page(&json!([activity(1)])));
    let lines: Vec<Value> = fake
        .run(&["admin", "activities", "export"])
        .ends(0)
        .out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines, [activity(2), activity(1)]);
}

#[test]
fn the_health_of_a_resource_is_shown_with_its_past() {
    let fake = control();
    let seen = json!([{ "id": NOD, "name": "gw-1", "health": { "state": "healthy" }, "checked_at": AT, "connect_micros": 900 }]);
    let turn = |health: Value| json!({ "at": AT, "node": NOD, "node_name": "gw-1", "health": health });
    let down = json!({ "state": "unhealthy", "error": "connection refused" });
    let gone =
        json!({ "at": AT, "node": NOD, "node_name": "gw-1", "health": { "state": "unknown" }, "node_state": "away" });
    let history = [turn(json!({ "state": "healthy" })), gone, turn(down)];
    let answer = json!({ "id": RES, "name": "orders-db", "health": { "state": "healthy" }, "gateways": seen, "history": history });
    fake.answer(&format!("GET /api/v1/resources/{RES}/health"), 200, answer.clone());
    fake.run(&["admin", "resources", "health", "orders-db"])
        .ends(0)
        .says("gw-1     healthy")
        .says("2026-11-21 01:20:00Z  gw-1  node away")
        .says("2026-11-21 01:20:00Z  gw-1  unhealthy: connection refused");
    assert_eq!(fake.run(&["admin", "resources", "health", "orders-db", "--json"]).ends(0).json(), answer);
}

#[test]
fn a_node_is_shown_with_when_it_was_there() {
    let fake = control();
    let history = json!([{ "at": AT, "state": "away" }, { "at": AT - 60_000, "state": "up" }]);
    let node = json!({ "id": NOD, "name": "gw-1", "role": "gateway", "state": "away", "history": history });
    fake.answer(&format!("GET /api/v1/nodes/{NOD}"), 200, node.clone());
    let ran = fake.run(&["admin", "nodes", "show", NOD]).ends(0);
    ran.says("role   gateway")
        .says("SINCE                 STATE\n2026-11-21 01:20:00Z  away\n2026-11-21 01:19:00Z  up\n");
    assert_eq!(fake.run(&["admin", "nodes", "show", NOD, "--json"]).ends(0).json(), node);
}

#[test]
fn sessions_are_listed_with_names_sizes_and_ends() {
    let fake = control();
    let session = json!({ "id": "str_1", "account": ACC, "account_email": "ana@example.com", "device_name": "laptop",
        "resource": RES, "resource_name": "orders-db", "resource_tags": { "env": "prod" }, "node": NOD, "node_name": "gw-1",
        "started_at": AT, "ended_at": AT, "bytes_up": 2048, "bytes_down": 5_u64 << 30, "reason": "closed" });
    fake.answer("GET /api/v1/sessions", 200, page(&json!([session])));
    fake.answer("GET /api/v1/sessions/str_1", 200, session.clone());
    let ran = fake.run(&["admin", "sessions", "list"]).ends(0);
    ran.says("ana@example.com  orders-db  gw-1     2026-11-21 01:20:00Z  2.0 KiB  5.0 GiB  closed  str_1");
    let ran = fake.run(&["admin", "sessions", "show", "str_1"]).ends(0);
    ran.says("bytes down     5368709120 (5.0 GiB)\n").says("resource tags  env=prod\n");
    let ran = fake.run(&["admin", "sessions", "export", "-f", "email:ana*"]).ends(0);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), session);
}

#[test]
fn the_audit_says_by_its_exit_code_whether_the_records_are_whole() {
    let fake = control();
    let chain = |ok: bool, broken: Value| json!({ "ok": ok, "nodes": [{ "node": NOD, "node_name": "gw-1", "records": 12, "ok": ok, "broken": broken }] });
    fake.answer("GET /api/v1/audit/verify", 200, chain(true, Value::Null));
    let ran = fake.run(&["admin", "audit", "verify"]).ends(0);
    ran.says("gw-1          12  whole").says("No record was changed, removed or moved.");
    fake.answer("GET /api/v1/audit/verify", 200, chain(false, json!({ "seq": 7, "why": "changed" })));
    let ran = fake.run(&["admin", "audit", "verify"]).ends(1);
    ran.says("broken at record 7: changed").says("not as the gateways wrote them");
    assert_eq!(fake.run(&["admin", "audit", "verify", "--json"]).ends(1).json()["ok"], false);
}

#[test]
fn a_check_says_by_its_exit_code_whether_the_resource_is_healthy() {
    let fake = control();
    let check = |health: Value| {
        json!({ "id": RES, "name": "orders-db", "health": health,
            "gateways": [{ "id": NOD, "name": "gw-1", "health": health, "checked_at": AT, "connect_micros": 1234 }] })
    };
    let call = format!("POST /api/v1/resources/{RES}/check");
    fake.answer(&call, 200, check(json!({ "state": "healthy" })));
    fake.run(&["admin", "resources", "check", "orders-db"]).ends(0).says("gw-1     healthy   1.2 ms  2026-11-21");
    fake.answer(&call, 200, check(json!({ "state": "unhealthy", "error": "connection refused" })));
    fake.run(&["admin", "resources", "check", "orders-db"]).ends(7).says("unhealthy: connection refused");
    fake.answer(&call, 200, json!({ "health": { "state": "unknown" }, "gateways": [] }));
    fake.run(&["admin", "resources", "check", "orders-db"]).ends(7).says("No gateway is connected");
}

#[test]
fn filters_reach_the_control_plane_as_they_are() {
    let fake = control();
    fake.answer("GET /api/v1/accounts", 200, page(&json!([])));
    let ran = fake.run(&["admin", "accounts", "list", "-f", "email:*@x.com tags:a&b"]).ends(0);
    ran.says("There are no matching accounts.");
    assert_eq!(fake.control_calls()[0].0, "GET /api/v1/accounts?limit=1000&filter=email%3A%2A%40x.com%20tags%3Aa%26b");
}

#[test]
fn a_name_that_is_not_there_is_met_with_what_was_meant() {
    let fake = control();
    not_found(&fake, "roles");
    fake.run(&["admin", "roles", "show", "opps"])
        .ends(5)
        .warns("there is no role \"opps\"")
        .warns("did you mean \"ops\"?");
    fake.refuse("GET /api/v1/roles/rol_01JABCDEFGHJKMNPQRSTVWXYZ9", 404, "not_found", "There is no role rol_01…");
    fake.run(&["admin", "roles", "show", "rol_01JABCDEFGHJKMNPQRSTVWXYZ9"]).ends(5).warns("there is no role rol_01…");
}

#[test]
fn deleting_without_a_terminal_needs_yes_and_all_names_are_looked_up_first() {
    let fake = control();
    not_found(&fake, "roles");
    fake.run(&["admin", "roles", "delete", "ops"]).ends(2).warns("say it with --yes");
    fake.run(&["admin", "roles", "delete", "ops", "opps", "--yes"]).ends(5);
    assert!(changes(&fake).is_empty());
}

#[test]
fn who_may_not_administer_is_told_whom_to_ask() {
    let fake = control();
    fake.refuse("GET /api/v1/accounts", 403, "not_admin", "Only administrators may do this");
    fake.run(&["admin", "accounts", "list"]).ends(6).warns("error: only administrators may do this").warns("next: ask");
    fake.refuse("GET /api/v1/accounts", 401, "not_signed_in", "The request is not signed in");
    fake.run(&["admin", "accounts", "list"]).ends(4).warns("`postern login`");
    fake.refuse("GET /api/v1/accounts", 503, "busy", "The control plane is busy");
    fake.run(&["admin", "accounts", "list"]).ends(7);
}
