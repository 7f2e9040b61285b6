//! What was done is on record: sessions and administrative changes, listable, exportable, and chained.

use std::time::Duration;

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client,
    stack::{EMAIL, PASSWORD, Stack},
    target::{Behaviour, Target},
};
use serde_json::{Value, json};

/// The JSON lines of an export.
async fn export(stack: &Stack, what: &str) -> anyhow::Result<Vec<Value>> {
    let body = stack.api().get(&format!("/api/v1/{what}/export")).await?;
    // One line is a JSON document of its own, which the caller has read as one.
    let Value::String(lines) = body else { return Ok(vec![body]) };
    lines.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_record_says_who_what_where_how_much_and_why_it_ended() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let resource = stack.resource("echo").await?;
    stack.api().patch(&format!("/api/v1/resources/{resource}"), json!({"tags": {"env": "then"}})).await?;
    stack.user().resource_when("echo", |status| status.resource.tags.contains_key("env")).await?;
    let address = stack.user().connect("echo").await?;
    assert_eq!(client::exchange(address, &[7; 12_345]).await?.len(), 12_345);
    let second = client::exchange(address, b"second").await?;
    assert_eq!(second, b"second");
    let whole = |sessions: &[Value]| sessions.iter().filter(|session| !session["ended_at"].is_null()).count() == 2;
    let sessions = stack.sessions_when(whole).await?;
    assert_eq!(sessions.len(), 2);
    stack.api().patch(&format!("/api/v1/resources/{resource}"), json!({"tags": {"env": "now"}})).await?;
    let session = sessions.iter().find(|session| session["bytes_up"] == 12_345).context("no record with the bytes")?;
    let text = session.to_string();
    assert_eq!(session["bytes_down"], 12_345);
    assert_eq!(session["reason"], "closed");
    let SignedIn { device } = signed_in(&stack).await?;
    for (what, value) in [
        ("the account", stack.account.to_string()),
        ("the device", device),
        ("the resource", resource.to_string()),
        ("its name", "echo".to_owned()),
        ("its tags then", "then".to_owned()),
        ("the gateway", stack.gateways[0].id().to_string()),
        ("the target", target.address().to_string()),
    ] {
        assert!(text.contains(&value), "the record does not name {what} ({value}): {text}");
    }
    let filtered = stack.api().list("/api/v1/sessions").await?;
    assert!(
        filtered.iter().all(|session| session.to_string().contains("then")),
        "tags are those of then: {filtered:?}"
    );
    let exported = export(&stack, "sessions").await?;
    assert_eq!(exported.len(), 2, "{exported:?}");
    stack.api().get("/api/v1/audit/verify").await?;
    stack.stop().await
}

struct SignedIn {
    device: String,
}

async fn signed_in(stack: &Stack) -> anyhow::Result<SignedIn> {
    match stack.user().status().await?.sign_in {
        postern_local_api::message::SignIn::SignedIn { device, .. } => Ok(SignedIn { device: device.to_string() }),
        other => anyhow::bail!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_administrative_change_is_an_activity() -> anyhow::Result<()> {
    let stack = Stack::builder().gateways(0).without_user().start().await?;
    let api = stack.api();
    let before = api.list("/api/v1/activities").await?.len();
    let mut changes = 0;
    let account = stack.create_account("grace@example.org").await?;
    let resource = stack.create_resource("db", Kind::Postgres, "127.0.0.1:1".parse()?).await?;
    let rule = stack.add_rule(stack.role, &[resource]).await?;
    let grant = stack.grant(account, resource, Some(Duration::from_secs(3600))).await?;
    changes += 4;
    for (path, change) in [
        (format!("/api/v1/accounts/{account}"), json!({"name": "Grace"})),
        (format!("/api/v1/resources/{resource}"), json!({"name": "db2"})),
        (format!("/api/v1/roles/{}", stack.role), json!({"name": "all"})),
    ] {
        api.patch(&path, change).await.with_context(|| path.clone())?;
        changes += 1;
    }
    api.post(&format!("/api/v1/roles/{}/members", stack.role), json!({"account": account})).await?;
    let gateway = api.post("/api/v1/gateways", json!({"name": "g"})).await?;
    let gateway = gateway["id"].as_str().context("no id")?.to_owned();
    changes += 2;
    for path in [
        format!("/api/v1/grants/{grant}"),
        format!("/api/v1/roles/{}/rules/{rule}", stack.role),
        format!("/api/v1/gateways/{gateway}"),
        format!("/api/v1/resources/{resource}"),
        format!("/api/v1/accounts/{account}"),
        format!("/api/v1/roles/{}", stack.role),
    ] {
        api.delete(&path).await.with_context(|| path.clone())?;
        changes += 1;
    }
    let activities = api.list("/api/v1/activities").await?;
    assert!(activities.len() - before >= changes, "{} activities for {changes} changes", activities.len() - before);
    let admin = stack.admin.account.to_string();
    let by_admin = activities.iter().filter(|activity| activity.to_string().contains(&admin)).count();
    assert!(by_admin >= changes, "activities do not say who: {activities:?}");
    let exported = export(&stack, "activities").await?;
    assert_eq!(exported.len(), activities.len());
    stack.stop().await
}

/// Whoever may not administer may not read the records either.
#[tokio::test(flavor = "multi_thread")]
async fn records_are_for_administrators() -> anyhow::Result<()> {
    let stack = Stack::builder().gateways(0).without_user().start().await?;
    let device = postern_tests::device::Device::with_password(stack.control.address(), EMAIL, PASSWORD).await?;
    let stranger = device.api().with_token(None);
    for path in [
        "accounts",
        "roles",
        "grants",
        "resources",
        "gateways",
        "network",
        "sessions",
        "activities",
        "sessions/export",
        "activities/export",
        "devices",
        "audit/verify",
    ] {
        let path = format!("/api/v1/{path}");
        let answer = device.api().call("GET", &path, None).await?;
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
        let answer = stranger.call("GET", &path, None).await?;
        assert_eq!(answer.status, 401, "{path}: {}", answer.body);
    }
    let body = json!({"email": "eve@example.org", "name": "eve", "admin": true, "password": "long enough for anybody"});
    let answer = device.api().call("POST", "/api/v1/accounts", Some(body)).await?;
    assert_eq!(answer.status, 403, "{}", answer.body);
    // A login is bound to the device it was made on.
    let second = postern_tests::device::Device::with_password(stack.control.address(), EMAIL, PASSWORD).await?;
    let stolen = stack.admin.token.clone();
    let answer = second.api().with_token(Some(&stolen)).call("GET", "/api/v1/accounts", None).await?;
    assert!([401, 403].contains(&answer.status), "an administrator's token works on another device: {}", answer.body);
    stack.stop().await
}
