//! Accounts, passwords and tokens.

use std::os::unix::fs::PermissionsExt as _;

use postern_proto::{api::Credential, lease::RevokedSubject};
use serde_json::{Value, json};

use crate::support::{ADMIN, World, column, fields, text};

const PASSWORD: &str = "correct horse battery";

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_an_administrator_whose_one_time_password_works_until_it_is_changed() {
    let mut world = World::start().await;
    let first = world.first_password.clone().unwrap();
    let admin = world.sign_in(ADMIN, &first).await.unwrap();
    assert!(admin.login.as_ref().unwrap().must_change_password);
    assert_eq!(column(&admin.get("/accounts?filter=kind:user").await, "email"), [ADMIN]);

    let changed = admin.send("POST", "/password", Some(json!({"current": first, "new": PASSWORD}))).await;
    assert_eq!(changed.status, 204);
    assert!(world.sign_in(ADMIN, &first).await.is_err());
    assert!(!world.sign_in(ADMIN, PASSWORD).await.unwrap().login.unwrap().must_change_password);

    world.restart().await;
    assert!(world.running().ready.admin.is_none());
    assert!(world.sign_in(ADMIN, PASSWORD).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_counts_only_on_its_device_and_for_what_its_account_may() {
    let world = World::start().await;
    world.admin.post("/accounts", json!({"email": "eve@example.org", "password": PASSWORD})).await;
    let eve = world.sign_in("Eve@Example.ORG ", PASSWORD).await.unwrap();
    assert_eq!(eve.refused("GET", "/accounts", None).await.code, "not_admin");
    assert_eq!(eve.refused("POST", "/resources", Some(json!({}))).await.status, 403);
    assert_eq!(eve.without_certificate().refused("GET", "/accounts", None).await.code, "not_signed_in");
    let other = world.sign_in("eve@example.org", PASSWORD).await.unwrap();
    assert_eq!(other.with_token_of(&eve).refused("GET", "/accounts", None).await.code, "not_signed_in");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_with_an_account_is_told_at_once() {
    let world = World::start().await;
    let broken = world
        .admin
        .broken(
            "POST",
            "/accounts",
            json!({"email": "no address", "name": "<b>", "password": "short", "kind": "robot"}),
        )
        .await;
    assert_eq!(fields(&broken), ["kind", "email", "name", "password"]);
    let broken = world.admin.broken("POST", "/accounts", json!({"email": "notanemail"})).await;
    assert_eq!(fields(&broken), ["email"], "nothing is said of a name that nobody gave");
    assert!(broken[0].1.contains("name@host"), "{broken:?}");
    assert_eq!(fields(&world.admin.broken("POST", "/accounts", json!({})).await), ["email"]);
    let nameless = json!({"email": "notanemail", "name": ""});
    assert_eq!(fields(&world.admin.broken("POST", "/accounts", nameless).await), ["email", "name"]);
    let same = json!({"email": "carol.long@example.org", "password": "Carol.Long@Example.org"});
    assert_eq!(fields(&world.admin.broken("POST", "/accounts", same).await), ["password"]);
    let service = json!({"kind": "service", "name": "ci", "password": PASSWORD});
    assert_eq!(fields(&world.admin.broken("POST", "/accounts", service).await), ["password"]);

    let problem =
        world.admin.refused("POST", "/accounts", Some(json!({"email": "a@b.org", "password": "hunter2"}))).await;
    assert!(!serde_json::to_string(&problem).unwrap().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_one_account_in_every_spelling() {
    let world = World::start().await;
    let id = world.create_user("Ada@Example.org").await;
    assert_eq!(world.admin.get(&format!("/accounts/{id}")).await["email"], "ada@example.org");
    for same in ["ada@example.org", "ADA@EXAMPLE.ORG", " ada@example.org "] {
        assert_eq!(fields(&world.admin.broken("POST", "/accounts", json!({"email": same})).await), ["email"]);
    }
    let other = world.create_user("bob@example.org").await;
    let broken = world.admin.broken("PATCH", &format!("/accounts/{other}"), json!({"email": "Ada@example.org"})).await;
    assert_eq!(fields(&broken), ["email"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_keeps_what_it_leaves_out() {
    let world = World::start().await;
    let body = json!({"email": "ada@example.org", "name": "Ada", "tags": {"team": "db"}});
    let before = world.admin.post("/accounts", body).await;
    let path = format!("/accounts/{}", text(&before, "id"));
    let after = world.admin.patch(&path, json!({"name": "Ada L."})).await;
    assert_eq!((&after["email"], &after["tags"]), (&before["email"], &before["tags"]));
    assert_eq!(after["name"], "Ada L.");
    assert!(after["revision"].as_u64() > before["revision"].as_u64());
    let same = world.admin.patch(&path, json!({"name": "Ada L."})).await;
    assert_eq!(same["revision"], after["revision"], "a change of nothing is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_administrator_stays() {
    let world = World::start().await;
    let person = column(&world.admin.get("/accounts?filter=admin:true%20kind:user").await, "id");
    let robot = column(&world.admin.get("/accounts?filter=admin:true%20kind:service").await, "id");
    world.admin.patch(&format!("/accounts/{}", person[0]), json!({"suspended": true})).await;
    let last = format!("/accounts/{}", robot[0]);
    for (method, body) in
        [("DELETE", None), ("PATCH", Some(json!({"admin": false}))), ("PATCH", Some(json!({"suspended": true})))]
    {
        assert_eq!(world.admin.refused(method, &last, body).await.code, "last_admin");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_account_can_do_nothing_and_what_it_does_is_cut() {
    let world = World::start().await;
    let body = json!({"email": "eve@example.org", "password": PASSWORD, "admin": true});
    let id = text(&world.admin.post("/accounts", body).await, "id");
    let eve = world.sign_in("eve@example.org", PASSWORD).await.unwrap();
    eve.get("/accounts").await;
    let mut changes = world.follow();
    world.admin.patch(&format!("/accounts/{id}"), json!({"suspended": true})).await;
    let revoked: Vec<_> = changes.recv().await.unwrap().revocations.iter().map(|r| r.subject.clone()).collect();
    assert!(revoked.contains(&RevokedSubject::Account { account: id.parse().unwrap() }), "{revoked:?}");
    assert_eq!(eve.refused("GET", "/accounts", None).await.code, "not_signed_in");
    assert!(world.sign_in("eve@example.org", PASSWORD).await.is_err());

    world.admin.patch(&format!("/accounts/{id}"), json!({"suspended": false})).await;
    assert_eq!(eve.refused("GET", "/accounts", None).await.code, "not_signed_in", "old logins stay ended");
    world.sign_in("eve@example.org", PASSWORD).await.unwrap().get("/accounts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_ends_at_its_time_and_is_worth_nothing_when_deleted() {
    let world = World::start().await;
    let robot = world.admin.post("/accounts", json!({"kind": "service", "name": "ci", "admin": true})).await;
    let tokens = format!("/accounts/{}/tokens", text(&robot, "id"));
    let end = world.now().0 + 60_000;
    let short = world.admin.post(&tokens, json!({"name": "short", "expires_at": end})).await;
    let long = world.admin.post(&tokens, json!({"name": "long"})).await;
    let listed = world.admin.get(&tokens).await;
    assert_eq!(column(&listed, "name"), ["short", "long"]);
    assert!(!listed.to_string().contains(&text(&long, "token")));

    let (by_short, by_long) = (world.with_token(&text(&short, "token")), world.with_token(&text(&long, "token")));
    by_short.get("/accounts").await;
    by_long.get("/accounts").await;
    let used = world.admin.get(&tokens).await;
    assert!(used["items"][0]["last_used_at"].is_u64());
    world.pass(std::time::Duration::from_secs(61));
    assert_eq!(by_short.refused("GET", "/accounts", None).await.code, "not_signed_in");

    let signed_in = world.sign_in_with(Credential::ServiceToken { token: text(&long, "token") }).await.unwrap();
    signed_in.get("/accounts").await;
    world.admin.delete(&format!("{tokens}/{}", text(&long, "id"))).await;
    for client in [&by_long, &signed_in] {
        assert_eq!(client.refused("GET", "/accounts", None).await.code, "not_signed_in");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_have_no_tokens_and_ends_lie_ahead() {
    let world = World::start().await;
    let user = world.create_user("ada@example.org").await;
    let broken = world.admin.broken("POST", &format!("/accounts/{user}/tokens"), json!({"expires_at": 12})).await;
    assert_eq!(fields(&broken), ["id", "expires_at"]);
    let broken =
        world.admin.broken("POST", &format!("/accounts/{user}/tokens"), json!({"expires_at": "tomorrow"})).await;
    assert!(broken.iter().any(|(field, rule)| field == "expires_at" && rule.contains("2026-11-20T18:00:00Z")));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_lies_in_the_database_in_clear() {
    let mut world = World::start().await;
    let robot = world.admin.post("/accounts", json!({"kind": "service", "name": "ci"})).await;
    let token = world.admin.post(&format!("/accounts/{}/tokens", text(&robot, "id")), json!({})).await;
    let gateway = world.admin.post("/gateways", json!({"name": "gw"})).await;
    world.admin.post("/accounts", json!({"email": "eve@example.org", "password": PASSWORD})).await;
    let eve = world.sign_in("eve@example.org", PASSWORD).await.unwrap();
    let secrets = [
        text(&token, "token"),
        text(&gateway, "enrol_token"),
        PASSWORD.to_owned(),
        world.first_password.clone().unwrap(),
        eve.login.unwrap().token.clone(),
    ];
    let activities = world.admin.send("GET", "/activities/export", None).await.body;
    world.restart().await;
    let mut looked = vec![activities];
    for entry in std::fs::read_dir(world.data()).unwrap() {
        let path = entry.unwrap().path();
        looked.push(std::fs::read(&path).unwrap());
        if path.file_name().unwrap().to_str().unwrap().starts_with("postern.db") {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
    }
    for secret in &secrets {
        for bytes in &looked {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_revoked_can_do_nothing() {
    let world = World::start().await;
    let body = json!({"email": "eve@example.org", "password": PASSWORD, "admin": true});
    world.admin.post("/accounts", body).await;
    let eve = world.sign_in("eve@example.org", PASSWORD).await.unwrap();
    let devices = world.admin.get("/devices?filter=email:eve*").await;
    let device: Value = devices["items"][0].clone();
    assert_eq!((&device["name"], &device["os"]), (&json!("laptop"), &json!("test")));
    let path = format!("/devices/{}", text(&device, "id"));
    let mut changes = world.follow();
    world.admin.delete(&path).await;
    let revoked = changes.recv().await.unwrap().revocations[0].subject.clone();
    assert_eq!(revoked, RevokedSubject::Device { device: text(&device, "id").parse().unwrap() });
    assert_eq!(eve.refused("GET", "/accounts", None).await.code, "not_signed_in");
    assert!(world.admin.get(&path).await["revoked_at"].is_u64());
    world.admin.delete(&path).await;
    assert_eq!(world.admin.refused("GET", &path, None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_and_by_filter() {
    let world = World::start().await;
    for n in 0..25 {
        world.create_user(&format!("user{n:02}@example.org")).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.admin.get(&format!("/accounts?limit=10&filter=email:user*{cursor}")).await;
        seen.extend(column(&page, "email"));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, (0..25).map(|n| format!("user{n:02}@example.org")).collect::<Vec<_>>());
}
