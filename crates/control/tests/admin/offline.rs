//! The commands that work on the data folder itself, and starts and stops.

use std::{path::Path, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::support::{ADMIN, World, column};

/// Runs the real program.
fn control(data: &Path, args: &[&str]) -> Result<Value, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-control"));
    let folder = data.parent().unwrap();
    if let Ok(url) = std::fs::read_to_string(folder.join("database-url")) {
        command.env("POSTERN_DATABASE_URL", url).env("POSTERN_CONTROL_KEY_FILE", crate::choice::key_file(folder));
    }
    let output = command.args([args[0], "--data", data.to_str().unwrap()]).args(&args[1..]).output().unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_token_made_offline_is_known_to_the_control_plane_that_runs() {
    let world = World::start().await;
    let mut changes = world.follow();
    let made = control(&world.data(), &["gateway-token", "--name", "gw-1", "--advertise", "GW.example:5000"]).unwrap();
    assert!(made["enrol_token"].as_str().unwrap().starts_with("postern_enrol_"));
    let change = tokio::time::timeout(Duration::from_secs(20), changes.recv()).await.unwrap().unwrap();
    assert_eq!(change.revision, world.store().catalogue().revision);
    let gateways = world.admin.get("/gateways").await;
    assert_eq!(column(&gateways, "name"), ["gw-1"]);
    assert_eq!((&gateways["items"][0]["id"], &gateways["items"][0]["state"]), (&made["id"], &json!("waiting")));
    assert_eq!(gateways["items"][0]["advertise"], "gw.example:5000");
    let again = control(&world.data(), &["gateway-token", "--name", "GW-1"]).unwrap();
    assert_eq!(again["id"], made["id"], "one name, one gateway");
    assert_ne!(again["enrol_token"], made["enrol_token"]);
    world.create_resource("after", json!({})).await;
    let refused = control(&world.data(), &["gateway-token", "--name", "<gw>"]).unwrap_err();
    assert!(refused.contains("angle brackets"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_gives_an_administrator_a_new_password() {
    let world = World::start().await;
    let old = world.first_password.clone().unwrap();
    let signed_in = world.sign_in(ADMIN, &old).await.unwrap();
    let admin = world.admin.get(&format!("/accounts?filter=email:{ADMIN}")).await["items"][0]["id"].clone();
    world.admin.patch(&format!("/accounts/{}", admin.as_str().unwrap()), json!({"suspended": true})).await;
    let revision = world.store().catalogue().revision;
    let made = control(&world.data(), &["admin-reset", "--email", "Admin@Example.org"]).unwrap();
    let caught_up = async {
        while world.store().catalogue().revision == revision {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), caught_up).await.unwrap();
    assert!(world.sign_in(ADMIN, &old).await.is_err());
    world.sign_in(ADMIN, made["password"].as_str().unwrap()).await.unwrap().get("/accounts").await;
    assert_eq!(signed_in.refused("GET", "/accounts", None).await.status, 401);
    let unknown = control(&world.data(), &["admin-reset", "--email", "nobody@example.org"]).unwrap_err();
    assert!(unknown.contains("there is no account nobody@example.org"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_an_organisation_is_told_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let refused = control(folder.path(), &["gateway-token", "--name", "gw"]).unwrap_err();
    assert!(refused.contains("holds no organisation"), "{refused}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_control_plane_on_one_folder_says_so() {
    let world = World::start().await;
    let refused = control(&world.data(), &["serve", "--listen", "127.0.0.1:0"]).unwrap_err();
    assert!(refused.contains("another postern-control already serves"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_tells_when_it_is_ready_and_ends_on_sigterm() {
    use std::io::{BufRead as _, BufReader, Read as _};
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_postern-control"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-email", "Root@Example.org", "--data"])
        .arg(folder.path().join("a/b"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["ready"], true);
    assert_eq!(ready["admin"]["email"], "root@example.org");
    assert!(ready["url"].as_str().unwrap().starts_with("https://127.0.0.1:"));
    assert!(Path::new(ready["ca_file"].as_str().unwrap()).is_file());
    assert_eq!(ready["ca_fingerprint"].as_str().unwrap().len(), 64);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "one line and no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything() {
    let mut world = World::start().await;
    let db = world.create_resource("db", json!({"env": "prod"})).await;
    let user = world.create_user("ada@example.org").await;
    let role = world.admin.post("/roles", json!({"name": "r", "tags": {"a": "b"}})).await;
    let role = role["id"].as_str().unwrap();
    world.admin.post(&format!("/roles/{role}/rules"), json!({"query": "tags:env=prod"})).await;
    world.admin.post(&format!("/roles/{role}/members"), json!({"account": user})).await;
    world.admin.post("/grants", json!({"account": user, "resource": db, "ends_at": world.now().0 + 1_000_000})).await;
    world.admin.post("/gateways", json!({"name": "gw"})).await;
    let lists = ["/accounts", "/resources", "/roles", "/grants", "/gateways", "/network", "/activities"];
    let mut before = Vec::new();
    for list in lists {
        before.push(world.admin.get(list).await);
    }
    let (catalogue, fingerprint) = (world.store().catalogue(), world.running().ready.ca_fingerprint.clone());
    world.restart().await;
    for (list, before) in lists.into_iter().zip(before) {
        assert_eq!(world.admin.get(list).await, before, "{list}");
    }
    let now = world.store().catalogue();
    assert_eq!((now.revision, &now.index, &now.org), (catalogue.revision, &catalogue.index, &catalogue.org));
    assert_eq!(world.running().ready.ca_fingerprint, fingerprint);
}
