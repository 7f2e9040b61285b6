//! Signing in and out, trust, locking, and what is kept on disk.

use std::{path::Path, sync::Arc, time::Duration};

use postern_local_api::message::{
    Connection, ControlLink, KeyPlace, KeyStorage, KeyStorageChoice, Login, SignIn, Status, Trust, Unlock,
};
use postern_proto::{api::Credential, problem::Problem};
use rustix::process::Signal;

use crate::{
    control::{Control, EMAIL, PASSWORD, SERVICE_TOKEN, TOKEN_CANARY},
    daemon::{Daemon, NAME, World, expect_reset, free_port, is_listening, ping, problem, resource},
    org::Org,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_in_the_words_of_the_control_plane() {
    let control = Control::start().await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &[]);
    let refused = problem(daemon.try_login(&control, EMAIL, "wrong").await);
    assert_eq!((refused.status, refused.title.as_str()), (401, "E-mail address or password is not right"));
    assert_eq!(daemon.status().await.sign_in, SignIn::SignedOut);
    assert!(!home.path().join("state/login.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_that_is_configured_is_told_of_before_anybody_signs_in() {
    let home = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(home.path(), &[]);
    assert_eq!(daemon.status().await.control, ControlLink::None);
    drop(daemon);
    daemon = Daemon::start(home.path(), &["--control", "https://one.example,https://two.example"]);
    let known = ControlLink::Known { url: "https://one.example".to_owned() };
    assert_eq!(daemon.status().await.control, known);
    daemon.restart(Signal::TERM);
    assert_eq!(daemon.status().await.control, known, "it is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fingerprint_is_enough_to_trust_and_a_wrong_one_sends_nothing() {
    let control = Control::start().await;
    let home = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(home.path(), &[]);
    let wrong = Trust::Fingerprint { sha256: "ab".repeat(32) };
    assert_eq!(problem(daemon.login_by(&control, wrong, EMAIL, PASSWORD).await).code, "control_untrusted");
    assert!(control.state().requests.iter().all(|(_, secret)| !secret));
    let right = Trust::Fingerprint { sha256: control.org.fingerprint() };
    daemon.login_by(&control, right, EMAIL, PASSWORD).await.unwrap();
    // From now on the CA itself is pinned.
    daemon.restart(Signal::TERM);
    daemon.until("connected", |status| matches!(status.control, ControlLink::Connected { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_prove_itself_sees_no_request_at_all() {
    let real = Control::start().await;
    let rogue = Control::start_for(Arc::new(Org::new())).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &[]);
    // Not by the CA of another, not by the roots of this machine, and not where something else was pinned.
    let of_another = Trust::Ca { pem: real.org.pem.clone() };
    for trust in [of_another, Trust::Known] {
        assert_eq!(problem(daemon.login_by(&rogue, trust, EMAIL, PASSWORD).await).code, "control_untrusted");
    }
    daemon.login(&real).await;
    assert_eq!(problem(daemon.login_by(&rogue, Trust::Known, EMAIL, PASSWORD).await).code, "control_untrusted");
    assert!(rogue.state().requests.is_empty(), "{:?}", rogue.state().requests);
    assert!(matches!(daemon.status().await.sign_in, SignIn::SignedIn { .. }), "the old sign-in is untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rogue_in_the_place_of_the_control_plane_gets_no_token() {
    let mut world = World::start().await;
    world.open().await;
    world.control.stop();
    world.daemon.until("away", |status| matches!(status.control, ControlLink::Away { .. })).await;
    let mut rogue = Control::start_for(Arc::new(Org::new())).await;
    rogue.stop();
    rogue.address = world.control.address;
    rogue.restart().await;
    world
        .daemon
        .until(
            "distrusted",
            |status| matches!(&status.control, ControlLink::Away { error, .. } if error.contains("not the trusted")),
        )
        .await;
    assert!(rogue.state().requests.is_empty());
    world.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_service_is_still_signed_in() {
    let mut world = World::start().await;
    let logins = world.control.state().logins;
    world.daemon.restart(Signal::TERM);
    world.daemon.until("connected", |status| matches!(status.control, ControlLink::Connected { .. })).await;
    assert_eq!(world.control.state().logins, logins);
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_cuts_everything_and_leaves_no_secret_on_disk() {
    let mut world = World::start().await;
    let mut stream = world.open().await;
    assert!(holds(world.home.path(), TOKEN_CANARY));
    let status = world.daemon.client.logout().await.unwrap();
    assert_eq!(status.sign_in, SignIn::SignedOut);
    assert!(status.resources.is_empty() && status.gateways.is_empty());
    expect_reset(&mut stream).await;
    assert!(std::net::TcpStream::connect(("127.0.0.1", world.port)).is_err());
    for secret in [TOKEN_CANARY, "PRIVATE KEY", "v4.public", "BEGIN CERTIFICATE\\n", PASSWORD] {
        let left = world.home.path().join("state");
        assert!(!holds(&left, secret), "{secret} is still there");
    }
    while world.control.state().logouts == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The same account finds its connections again; the control plane is known and pinned.
    let credential = Credential::Password { email: EMAIL.to_owned(), password: PASSWORD.to_owned() };
    world.daemon.client.login(&Login { control: None, trust: Trust::Known, credential }).await.unwrap();
    world.daemon.until("listening", |status| is_listening(status, world.id)).await;
    world.daemon.end(Signal::TERM);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_never_reach_the_log() {
    let mut world = World::start().await;
    world.open().await;
    let _ = world.daemon.try_login(&world.control, EMAIL, "WRONG-PASSWORD-CANARY").await;
    world.daemon.client.lock().await.unwrap();
    world.daemon.client.unlock(&Unlock { password: PASSWORD.to_owned() }).await.unwrap();
    world.daemon.client.doctor().await.unwrap();
    world.daemon.end(Signal::TERM);
    let log = std::fs::read_to_string(&world.daemon.log).unwrap();
    assert!(log.len() > 1000, "the log is at trace level");
    for secret in [TOKEN_CANARY, PASSWORD, "WRONG-PASSWORD-CANARY", "PRIVATE KEY", "v4.public"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    let arguments = std::fs::read(format!("/proc/{}/cmdline", std::process::id())).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(TOKEN_CANARY));
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_nothing_works_until_the_control_plane_has_checked_the_password() {
    let mut world = World::start().await;
    let mut stream = world.open().await;
    let status = world.daemon.client.lock().await.unwrap();
    assert!(matches!(&status.sign_in, SignIn::Locked { account, .. } if account.email == EMAIL));
    assert_eq!(resource(&status, world.id).unwrap().connection, Connection::Suspended);
    expect_reset(&mut stream).await;
    assert!(std::net::TcpStream::connect(("127.0.0.1", world.port)).is_err());
    let all = postern_local_api::message::Selection::All;
    assert_eq!(problem(world.daemon.client.connect(&all).await).code, "locked");
    // Not by a restart, not by a wrong password, not without the control plane.
    world.daemon.restart(Signal::KILL);
    let status = world.daemon.until("listed", |status| resource(status, world.id).is_some()).await;
    assert!(matches!(status.sign_in, SignIn::Locked { .. }));
    assert!(std::net::TcpStream::connect(("127.0.0.1", world.port)).is_err());
    let wrong = Unlock { password: "wrong".to_owned() };
    assert_eq!(problem(world.daemon.client.unlock(&wrong).await).status, 401);
    let right = Unlock { password: PASSWORD.to_owned() };
    world.control.stop();
    assert_eq!(problem(world.daemon.client.unlock(&right).await).code, "control_unreachable");
    world.control.restart().await;
    let status = world.daemon.client.unlock(&right).await.unwrap();
    assert!(matches!(status.sign_in, SignIn::SignedIn { .. }));
    world.daemon.until("listening", |status| is_listening(status, world.id)).await;
    world.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_again_keeps_the_device_and_the_running_streams() {
    let world = World::start().await;
    let mut stream = world.open().await;
    let device = |status: &Status| match &status.sign_in {
        SignIn::SignedIn { device, .. } => *device,
        other => panic!("{other:?}"),
    };
    let before = device(&world.daemon.status().await);
    let after = world.daemon.login(&world.control).await;
    assert_eq!(device(&after), before);
    ping(&mut stream).await.unwrap();
    world.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_signs_in_by_itself_and_has_everything_connected() {
    let mut control = Control::start().await;
    let ports = [free_port(), free_port()];
    let ids = [control.grant("a", ports[0]), control.grant("b", ports[1])];
    control.stop();
    let home = tempfile::tempdir().unwrap();
    let (ca, token) = (home.path().join("ca.pem"), home.path().join("token"));
    std::fs::write(&ca, &control.org.pem).unwrap();
    let (ca, token_file) = (ca.to_str().unwrap(), token.to_str().unwrap());
    let url = control.url();
    let options = ["--control", url.as_str(), "--ca", ca, "--service-token-file", token_file];
    let mut daemon = Daemon::start(home.path(), &options);
    // Nothing is there yet: it goes on trying.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(daemon.status().await.sign_in, SignIn::SignedOut);
    std::fs::write(&token, "wrong\n").unwrap();
    control.restart().await;
    while control.state().requests.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::fs::write(&token, format!("{SERVICE_TOKEN}\n")).unwrap();
    daemon.until("all connected", |status| ids.iter().all(|id| is_listening(status, *id))).await;
    // What comes later is connected too; what was disconnected stays so.
    daemon.disconnect("a").await;
    let later = control.grant("c", free_port());
    daemon.until("c connected", |status| is_listening(status, later)).await;
    daemon.restart(Signal::TERM);
    let status = daemon.until("connected", |status| is_listening(status, later)).await;
    assert!(!is_listening(&status, ids[0]) && is_listening(&status, ids[1]));
    assert!(!holds(&home.path().join("state"), SERVICE_TOKEN), "the token stays in its file");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sign_in_of_a_service_account_is_renewed_before_it_ends() {
    let control = Control::start().await;
    control.state().login_life = Duration::from_secs(3600);
    let home = tempfile::tempdir().unwrap();
    let (ca, token) = (home.path().join("ca.pem"), home.path().join("token"));
    std::fs::write(&ca, &control.org.pem).unwrap();
    std::fs::write(&token, SERVICE_TOKEN).unwrap();
    let url = control.url();
    let options =
        ["--control", url.as_str(), "--ca", ca.to_str().unwrap(), "--service-token-file", token.to_str().unwrap()];
    let mut daemon = Daemon::start(home.path(), &options);
    daemon.until("signed in", |status| matches!(status.sign_in, SignIn::SignedIn { .. })).await;
    daemon.end(Signal::TERM);
    // As if most of its hour were over.
    let file = home.path().join("state/login.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for time in ["signed_in_at", "expires_at"] {
        record[time] = (record[time].as_u64().unwrap() - 50 * 60_000).into();
    }
    std::fs::write(&file, record.to_string()).unwrap();
    let logins = control.state().logins;
    let _daemon = Daemon::start(home.path(), &options);
    while control.state().logins == logins {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_sign_in_ends_everything_by_itself() {
    let world = World::start().await;
    let mut stream = world.open().await;
    // Once everything is there: the next sign-in is a short one.
    world.control.state().login_life = Duration::from_secs(2);
    world.daemon.login(&world.control).await;
    let status = world.daemon.until("signed out", |status| status.sign_in == SignIn::SignedOut).await;
    assert!(status.warnings.iter().any(|warning| warning.contains("sign-in has ended")), "{:?}", status.warnings);
    expect_reset(&mut stream).await;
    assert!(std::net::TcpStream::connect(("127.0.0.1", world.port)).is_err());
    assert!(!world.home.path().join("state/device-key.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_the_control_plane_ended_is_forgotten_and_said_so() {
    let mut world = World::start().await;
    let mut stream = world.open().await;
    world.control.state().refuse = Some(Problem::new(401, "login_ended", "The device is signed out"));
    world.control.restart().await;
    let status = world.daemon.until("signed out", |status| status.sign_in == SignIn::SignedOut).await;
    assert!(status.warnings.iter().any(|warning| warning.contains("The device is signed out")));
    expect_reset(&mut stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_made_elsewhere_is_told_of_until_the_next_one() {
    let control = Control::start().await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &[]);
    daemon.login(&control).await;
    drop(daemon);
    let daemon = Daemon::start(home.path(), &["--control", "https://other.example"]);
    let told = |status: &Status| status.health.iter().any(|item| item.why.contains("not at https://other.example"));
    let status = daemon.status().await;
    assert!(status.sign_in == SignIn::SignedOut && told(&status), "{:?}", status.health);
    daemon.login(&control).await;
    let status = daemon.status().await;
    assert!(!told(&status) && status.health.iter().all(|item| item.code != "at_start"), "{:?}", status.health);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_is_not_the_end_keeps_the_sign_in() {
    let mut world = World::start().await;
    let due = Problem::new(403, "password_change_required", "The account must choose a new password");
    world.control.state().refuse = Some(due);
    world.control.restart().await;
    world.daemon.until("refused", |status| matches!(status.control, ControlLink::Away { .. })).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(world.daemon.status().await.sign_in, SignIn::SignedIn { .. }));
    world.control.state().refuse = None;
    world.daemon.until("connected", |status| matches!(status.control, ControlLink::Connected { .. })).await;
    world.daemon.disconnect(NAME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_renewed_ahead_and_streams_go_on() {
    let world = World::start().await;
    world.control.state().certificate_life = Duration::from_secs(6);
    world.daemon.login(&world.control).await;
    let mut stream = world.open().await;
    let first = world.daemon.status().await.certificate_ends.unwrap();
    let status = world
        .daemon
        .until("renewed twice", |status| status.certificate_ends.is_some_and(|end| end.0 > first.0 + 6000))
        .await;
    assert!(status.warnings.is_empty(), "{:?}", status.warnings);
    ping(&mut stream).await.unwrap();
    world.open().await;
    assert!(world.control.state().certificates >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_is_due_only_until_it_was_chosen() {
    let control = Control::start().await;
    control.state().must_change_password = true;
    let home = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(home.path(), &[]);
    let status = daemon.login(&control).await;
    assert!(matches!(status.sign_in, SignIn::SignedIn { must_change_password: true, .. }));
    let call = postern_local_api::message::ControlCall {
        method: "POST".to_owned(),
        path: "/api/v1/password".to_owned(),
        body: Some(serde_json::json!({"current": PASSWORD, "new": "a new and longer password"})),
    };
    assert_eq!(daemon.client.control(&call).await.unwrap().status, 204);
    assert_eq!(control.state().passwords_changed, 1);
    daemon.restart(Signal::TERM);
    let status = daemon.status().await;
    assert!(matches!(status.sign_in, SignIn::SignedIn { must_change_password: false, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_files_are_set_aside_and_told_of_and_never_keep_the_service_from_starting() {
    let mut world = World::start().await;
    // By then there is a lease to keep.
    world.open().await;
    world.daemon.end(Signal::TERM);
    let state = world.home.path().join("state");
    let files = [
        "replica.json",
        "leases.json",
        "connections.json",
        "lock.json",
        "certificate.json",
        "device-key.json",
        "login.json",
    ];
    for name in files {
        for content in [&b"\xff\x00"[..], b"{", b"", b"[1,2"] {
            let file = state.join(name);
            let good = std::fs::read(&file).unwrap_or_else(|_| panic!("{name} is not there"));
            std::fs::write(&file, content).unwrap();
            let mut daemon = Daemon::start(world.home.path(), &[]);
            let warnings = daemon.status().await.warnings;
            assert!(warnings.iter().any(|warning| warning.contains(name)), "{name}: {warnings:?}");
            daemon.end(Signal::TERM);
            std::fs::write(&file, good).unwrap();
        }
    }
    let daemon = Daemon::start(world.home.path(), &[]);
    daemon.until("as before", |status| is_listening(status, world.id)).await;
}

/// Whether a file under the folder holds the text.
fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let content = std::fs::read(&path).unwrap_or_default();
        content.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_memory_only_leaves_nothing_on_disk_and_ends_with_the_service() {
    let mut world = World::start().await;
    let secrets = ["device-key.json", "login.json"].map(|file| world.home.path().join("state").join(file));
    let there = || secrets.iter().filter(|path| path.exists()).count();
    assert_eq!(there(), 2);
    let choose = async |daemon: &Daemon, storage| daemon.client.set_key_storage(&KeyStorageChoice { storage }).await;
    let status = choose(&world.daemon, KeyPlace::Memory).await.unwrap();
    assert_eq!((status.key_storage, there()), (KeyStorage::Memory, 0));
    world.open().await;
    // Back on disk, it outlives a restart.
    choose(&world.daemon, KeyPlace::File).await.unwrap();
    assert_eq!(there(), 2);
    world.daemon.restart(Signal::KILL);
    world.daemon.until("back", |status| matches!(status.sign_in, SignIn::SignedIn { .. })).await;
    choose(&world.daemon, KeyPlace::Memory).await.unwrap();
    world.daemon.restart(Signal::KILL);
    let status = world.daemon.status().await;
    assert_eq!((status.sign_in, status.key_storage), (SignIn::SignedOut, KeyStorage::Memory));
    // The choice holds for the next sign-in too.
    world.daemon.login(&world.control).await;
    assert_eq!(there(), 0);
    assert_eq!(problem(choose(&world.daemon, KeyPlace::Keyring).await).code, "keyring_missing");
}
