use std::time::Duration;

use axum::http::Method;
use postern_proto::{
    api::{CertificateResponse, Credential, LoginResponse},
    lease::RevokedSubject,
    sync::ServerFrame,
};
use postern_tunnel::control::{Bearer, ClientIdentity};
use serde_json::{Value, json};

use crate::support::{PASSWORD, World, key_and_request, problem, status};

/// A path that any signed-in administrator may read, as the others get 403.
const ADMIN_ONLY: &str = "/api/v1/accounts";

#[tokio::test(flavor = "multi_thread")]
async fn an_account_signs_in_with_its_password_in_any_spelling_of_its_address() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let device = world.sign_in("  ADA@Example.Org ").await;
    let login = &device.given;
    assert_eq!(login.account.email, "ada@example.org");
    assert!(!login.must_change_password && !login.account.admin);
    assert_eq!(login.certificate.not_after.0 / 60_000, login.expires_at.min(login.certificate.not_after).0 / 60_000);
    assert_eq!(device.get::<Value>(ADMIN_ONLY).await.unwrap_err().code, "not_admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_no_such_account_are_answered_alike_also_when_locked() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let mut answers = Vec::new();
    for email in ["ada@example.org", "nobody@example.org"] {
        let mut told = Vec::new();
        for spelling in [email, &email.to_uppercase(), email, &format!(" {email}"), email, email] {
            told.push(problem(world.try_sign_in(spelling, "wrong password here").await));
        }
        told.push(problem(world.try_sign_in(email, PASSWORD).await));
        answers.push(told);
    }
    assert_eq!(answers[0], answers[1]);
    let codes: Vec<&str> = answers[0].iter().map(|problem| problem.code.as_str()).collect();
    assert_eq!(codes, [["login_failed"; 5].as_slice(), ["login_locked"; 2].as_slice()].concat());
    world.create_account("bob@example.org").await;
    world.sign_in("bob@example.org").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_worth_nothing_without_the_key_of_its_device() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    world.update_account(world.sign_in("ada@example.org").await.given.account.id, |account| account.admin = true).await;
    let (device, other) = (world.sign_in("ada@example.org").await, world.sign_in("ada@example.org").await);
    device.get::<Value>(ADMIN_ONLY).await.unwrap();

    let bare = world.client();
    bare.set_bearer(Some(Bearer::new(device.given.token.clone())));
    let refused = problem(bare.call::<(), Value>(Method::GET, ADMIN_ONLY, None).await);
    assert_eq!(refused.code, "not_signed_in");

    other.client.set_bearer(Some(Bearer::new(device.given.token.clone())));
    assert_eq!(other.get::<Value>(ADMIN_ONLY).await.unwrap_err(), refused);
    device.client.set_bearer(Some(Bearer::new("nonsense")));
    assert_eq!(device.get::<Value>(ADMIN_ONLY).await.unwrap_err(), refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_signing_out_neither_token_nor_certificate_opens_anything() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let gateway = world.enrol_gateway("gw").await;
    let mut node = gateway.follow().await;
    node.settle().await;
    let device = world.sign_in("ada@example.org").await;
    let mut socket = device.follow().await;
    socket.settle().await;

    device.post::<()>("/api/v1/logout", &()).await.unwrap();
    let revoked = node.until(|frame| matches!(frame, ServerFrame::Revoke { .. })).await;
    let ServerFrame::Revoke { revocations } = revoked else { unreachable!() };
    assert_eq!(revocations[0].subject, RevokedSubject::Device { device: device.given.device });
    let bye = socket.until(|frame| matches!(frame, ServerFrame::Bye { .. })).await;
    assert!(matches!(bye, ServerFrame::Bye { code, .. } if code == "login_ended"));
    assert!(socket.next().await.is_err());

    assert_eq!(device.get::<Value>(ADMIN_ONLY).await.unwrap_err().code, "not_signed_in");
    assert_eq!(device.leases(&[]).await.unwrap_err().code, "login_ended");
    let renewal = json!({"csr": device.request()});
    let refused = device.post::<CertificateResponse>("/api/v1/devices/certificate", &renewal).await;
    assert_eq!(refused.unwrap_err().code, "login_ended");
    assert_eq!(device.get::<Value>("/api/v1/sync?version=1").await.unwrap_err().code, "login_ended");
    world.sign_in("ada@example.org").await;
    assert_eq!(world.state().store.catalogue().accounts[&account].id, account);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_account_is_refused_at_once_everywhere() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let device = world.sign_in("ada@example.org").await;
    let mut socket = device.follow().await;
    socket.settle().await;
    world.update_account(account, |account| account.suspended = true).await;

    let bye = socket.until(|frame| matches!(frame, ServerFrame::Bye { .. })).await;
    assert!(matches!(bye, ServerFrame::Bye { code, .. } if code == "account_revoked"));
    assert_eq!(device.get::<Value>(ADMIN_ONLY).await.unwrap_err().code, "not_signed_in");
    assert_eq!(device.leases(&[]).await.unwrap_err().code, "account_suspended");
    assert_eq!(problem(world.try_sign_in("ada@example.org", PASSWORD).await).code, "account_suspended");
    assert_eq!(problem(world.try_sign_in("ada@example.org", "wrong password here").await).code, "login_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_ends_after_twelve_hours_and_the_certificate_with_it() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let device = world.sign_in("ada@example.org").await;
    world.pass(Duration::from_secs(8 * 3600));
    let renewal = json!({"csr": device.request()});
    let renewed: CertificateResponse = device.post("/api/v1/devices/certificate", &renewal).await.unwrap();
    assert_eq!(renewed.not_after.0, device.given.expires_at.0 / 1000 * 1000);
    device.leases(&[]).await.unwrap();
    world.pass(Duration::from_secs(4 * 3600));
    assert_eq!(device.get::<Value>(ADMIN_ONLY).await.unwrap_err().code, "not_signed_in");
    assert_eq!(status(&device.leases(&[]).await.unwrap_err()), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_only_for_the_key_that_signed_in() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let device = world.sign_in("ada@example.org").await;
    let (_, other) = key_and_request();
    let refused = device.post::<CertificateResponse>("/api/v1/devices/certificate", &json!({"csr": other})).await;
    let refused = refused.unwrap_err();
    assert_eq!((refused.status, refused.violations[0].field.as_str()), (422, "csr"));
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_again_on_a_device_takes_the_place_of_the_login_before() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let first = world.sign_in("ada@example.org").await;
    let credential = || Credential::Password { email: "ada@example.org".to_owned(), password: PASSWORD.to_owned() };
    let again = (rcgen::KeyPair::from_pem(&first.key.serialize_pem()).unwrap(), first.request());
    let second = world.sign_in_with(credential(), again).await.unwrap();
    assert_eq!(second.given.device, first.given.device);
    assert_eq!(first.get::<Value>(ADMIN_ONLY).await.unwrap_err().code, "not_signed_in");
    assert_eq!(second.get::<Value>(ADMIN_ONLY).await.unwrap_err().code, "not_admin");
    first.leases(&[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_signs_in_with_its_token_and_not_with_a_password() {
    let world = World::start().await;
    let (account, token) = world.create_service_account("robot@example.org").await;
    let sign_in =
        |token: &str| world.sign_in_with(Credential::ServiceToken { token: token.to_owned() }, key_and_request());
    let device = sign_in(&token).await.unwrap();
    assert_eq!((device.given.account.id, device.given.account.service), (account, true));
    assert_eq!(problem(sign_in("postern_nonsense").await).code, "login_failed");
    assert_eq!(problem(world.try_sign_in("robot@example.org", PASSWORD).await).code, "login_failed");

    let direct = world.client();
    direct.set_bearer(Some(Bearer::new(token.clone())));
    let refused = problem(direct.call::<(), Value>(Method::GET, ADMIN_ONLY, None).await);
    assert_eq!(refused.code, "not_admin");
    world.update_account(account, |account| account.suspended = true).await;
    assert_eq!(problem(sign_in(&token).await).code, "account_suspended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_for_one_use_is_told_at_sign_in_and_replaced_under_the_rules() {
    let mut world = World::start().await;
    let hash = world.state().passwords.hash("one-time password".to_owned().into()).await.unwrap();
    let mut change = world.change().await;
    let account = change.catalogue().account_by_email("admin@example.org").unwrap().clone();
    postern_control::credential::set_password(&mut change, &account, &hash, true).await.unwrap();
    change.commit().await.unwrap();
    let admin = world.try_sign_in("admin@example.org", "one-time password").await.unwrap();
    assert!(admin.given.must_change_password);

    let change = |current: &str, new: &str| json!({"current": current, "new": new});
    for weak in ["short", "admin@EXAMPLE.org", "one-time password"] {
        let body = change("one-time password", weak);
        let refused = admin.post::<()>("/api/v1/password", &body).await.unwrap_err();
        assert_eq!((refused.status, refused.violations[0].field.as_str()), (422, "new"));
        assert!(!format!("{refused:?}").contains("one-time password"));
    }
    let refused = admin.post::<()>("/api/v1/password", &change("no it is not", PASSWORD)).await.unwrap_err();
    assert_eq!(refused.code, "wrong_password");
    admin.post::<()>("/api/v1/password", &change("one-time password", PASSWORD)).await.unwrap();
    admin.get::<Value>(ADMIN_ONLY).await.unwrap();

    world.restart().await;
    assert_eq!(problem(world.try_sign_in("admin@example.org", "one-time password").await).code, "login_failed");
    assert!(!world.sign_in("admin@example.org").await.given.must_change_password);
    admin.get::<Value>(ADMIN_ONLY).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_good_and_bad_are_activities_without_the_password() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    world.update_account(account, |account| account.admin = true).await;
    problem(world.try_sign_in("ada@example.org", "not the password").await);
    problem(world.try_sign_in("nobody@example.org", "not the password").await);
    let device = world.sign_in("ada@example.org").await;
    loop {
        let page: Value = device.get("/api/v1/activities?filter=verb:account.login*").await.unwrap();
        let text = page.to_string();
        assert!(!text.contains("not the password") && !text.contains("nobody@example.org"));
        let mut verbs: Vec<&str> =
            page["items"].as_array().unwrap().iter().map(|item| item["verb"].as_str().unwrap()).collect();
        verbs.sort_unstable();
        if verbs == ["account.login", "account.login_failed"] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_signs_the_account_out_on_its_other_devices() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let (here, there) = (world.sign_in("ada@example.org").await, world.sign_in("ada@example.org").await);
    let mut socket = there.follow().await;
    socket.settle().await;
    here.post::<()>("/api/v1/password", &json!({"current": PASSWORD, "new": "another horse battery"})).await.unwrap();
    socket.until(|frame| matches!(frame, ServerFrame::Bye { .. })).await;
    assert_eq!(there.leases(&[]).await.unwrap_err().code, "login_ended");
    here.leases(&[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_never_signs_in_again() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let device = world.sign_in("ada@example.org").await;
    let mut change = world.change().await;
    postern_control::sql::query("UPDATE device SET revoked_at = 1 WHERE id = $1")
        .bind(device.given.device.to_string())
        .execute(change.connection())
        .await
        .unwrap();
    change.revoke(RevokedSubject::Device { device: device.given.device }, "lost");
    change.commit().await.unwrap();
    assert_eq!(device.leases(&[]).await.unwrap_err().code, "device_revoked");
    assert_eq!(device.get::<Value>(ADMIN_ONLY).await.unwrap_err().code, "not_signed_in");
    let credential = Credential::Password { email: "ada@example.org".to_owned(), password: PASSWORD.to_owned() };
    let again = (rcgen::KeyPair::from_pem(&device.key.serialize_pem()).unwrap(), device.request());
    assert_eq!(problem(world.sign_in_with(credential, again).await).code, "device_revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_usable_key_is_refused_before_the_password_is_looked_at() {
    let world = World::start().await;
    let request = json!({
        "method": "password", "email": "a@example.org", "password": "x", "csr": "nonsense",
        "device": {"name": "laptop", "os": "test"},
    });
    let refused = problem(world.client().call::<_, LoginResponse>(Method::POST, "/api/v1/login", Some(&request)).await);
    assert_eq!((refused.status, refused.violations[0].field.as_str()), (422, "csr"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_is_not_told_back_with_its_password() {
    let world = World::start().await;
    let request = json!({"method": "password", "email": "a@example.org", "password": "secret words", "csr": "x"});
    let refused = problem(world.client().call::<_, Value>(Method::POST, "/api/v1/login", Some(&request)).await);
    assert_eq!(refused.status, 422);
    assert!(!format!("{refused:?}").contains("secret words"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_organisation_opens_nothing() {
    let (ours, theirs) = (World::start().await, World::start().await);
    ours.create_account("ada@example.org").await;
    theirs.create_account("ada@example.org").await;
    let foreign = theirs.sign_in("ada@example.org").await;
    let client = ours.client();
    let identity = ClientIdentity::from_pem(&foreign.given.certificate.certificate, &foreign.key.serialize_pem());
    client.set_identity(Some(identity.unwrap()));
    let refused = client.call::<_, Value>(Method::POST, "/api/v1/leases", Some(&json!({"resources": []}))).await;
    assert!(refused.is_err(), "{refused:?}");
    client.set_identity(None);
    client.set_bearer(Some(Bearer::new(foreign.given.token.clone())));
    let refused = problem(client.call::<(), Value>(Method::GET, ADMIN_ONLY, None).await);
    assert_eq!(refused.code, "not_signed_in");
}
