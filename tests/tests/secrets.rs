//! Secrets stay where they belong: a whole life of the system, logged at the finest level, names none of them.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use postern_proto::{api::Credential, resource::Kind};
use postern_tests::{
    client,
    device::Device,
    stack::{EMAIL, PASSWORD, Stack},
    target::{Behaviour, Target},
};
use serde_json::json;

/// Typed wrong on purpose: a failed login must not be logged with what was typed.
const WRONG: &str = "wr0ng-canary-password-typed-by-hand";
/// What goes through a stream is nobody's business either.
const CONTENT: &[u8] = b"c0ntent-canary-of-a-carried-stream";

/// Every file under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The outputs and logs of all processes that the stack started.
fn logs(stack: &Stack) -> BTreeMap<PathBuf, String> {
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    files(stack.folder())
        .into_iter()
        .filter(is_log)
        .map(|path| {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            (path, text)
        })
        .collect()
}

/// The base64 lines of PEM private keys that lie in the folder, where they may lie.
fn key_lines(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for file in files(folder) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap_or_default()).into_owned();
        let mut inside = false;
        for line in text.lines() {
            if line.starts_with("-----BEGIN") && line.contains("PRIVATE KEY") {
                inside = true;
            } else if line.starts_with("-----END") {
                inside = false;
            } else if inside && line.len() >= 20 {
                lines.push(line.to_owned());
            }
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_names_a_secret() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().log("trace").resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    assert_eq!(client::exchange(address, CONTENT).await?, CONTENT);
    let device = Device::with_password(stack.control.address(), EMAIL, PASSWORD).await?;
    assert!(Device::with_password(stack.control.address(), EMAIL, WRONG).await.is_err());
    assert!(stack.user().login(EMAIL, WRONG).await.is_err());
    let lease = device.lease(stack.resource("echo").await?).await?.token;

    let account = json!({"email": "robot@example.org", "name": "robot", "kind": "service"});
    let account = stack.api().post("/api/v1/accounts", account).await?;
    let id = account["id"].as_str().context("no id")?;
    let token = stack.api().post(&format!("/api/v1/accounts/{id}/tokens"), json!({"name": "test"})).await?;
    let service_token = token["token"].as_str().context("no token")?.to_owned();
    let credential = Credential::ServiceToken { token: service_token.clone() };
    let robot = Device::login(stack.control.address(), credential).await?;
    let enrol = stack.api().post("/api/v1/gateways", json!({"name": "unused"})).await?;
    let enrol_token = enrol["enrol_token"].as_str().context("no token")?.to_owned();

    // A crash and a restart log too.
    stack.user_mut().kill().await?;
    stack.user_mut().restart().await?;
    stack.gateways[0].kill().await?;
    stack.gateways[0].restart().await?;
    let address = stack.user().listens("echo").await?;
    let _ = client::exchange(address, CONTENT).await;
    let (_, one_time) = stack.control.first_admin().context("no first administrator")?;
    let (_, status_token) = stack.user().status_port().await?;

    let mut secrets = vec![
        ("the administrator's one-time password", one_time.to_owned()),
        ("a password", PASSWORD.to_owned()),
        ("a mistyped password", WRONG.to_owned()),
        ("a carried stream's content", String::from_utf8_lossy(CONTENT).into_owned()),
        ("a login's token", device.token.clone()),
        ("the administrator's token", stack.admin.token.clone()),
        ("a service account's token", service_token),
        ("a service account's login", robot.token.clone()),
        ("an enrolment token", enrol_token),
        ("the status port's token", status_token),
        ("a lease", lease),
    ];
    let keys = key_lines(stack.folder());
    assert!(keys.len() >= 3, "the keys of CA, gateway and device are looked for, {} lines found", keys.len());
    secrets.extend(keys.into_iter().map(|line| ("a private key", line)));
    let logs = logs(&stack);
    assert!(logs.len() >= 3, "{:?}", logs.keys());
    assert!(logs.values().map(String::len).sum::<usize>() > 10_000, "trace logs are longer than that");
    for (file, log) in &logs {
        for (what, secret) in &secrets {
            assert!(secret.len() >= 12, "{what} is too short to be looked for: {secret}");
            assert!(!log.contains(secret.as_str()), "{} names {what}", file.display());
        }
        // Leases that the service fetched itself are not known here, but all begin alike.
        assert!(!log.contains("v4.public."), "{} holds a lease", file.display());
        assert!(!log.contains("PRIVATE KEY"), "{} holds a private key", file.display());
    }
    // Nor does an argument, which every user of the machine can read, or the status.
    let status = serde_json::to_string(&stack.user().status().await?)?;
    let mut arguments = String::new();
    for pid in [stack.user().process_id(), stack.gateways[0].process_id()] {
        arguments += &String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline"))?);
    }
    for (what, secret) in &secrets {
        assert!(!status.contains(secret.as_str()), "the status names {what}");
        assert!(!arguments.contains(secret.as_str()), "an argument names {what}");
    }
    stack.stop().await
}

/// Files with keys are readable by their owner only.
#[tokio::test(flavor = "multi_thread")]
async fn files_with_keys_are_closed_to_others() -> anyhow::Result<()> {
    let stack = Stack::builder().start().await?;
    let mut keys = 0;
    for file in files(stack.folder()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        if text.contains("PRIVATE KEY") || text.contains("v4.public.") {
            keys += 1;
            let mode = std::fs::metadata(&file)?.permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", file.display());
        }
    }
    assert!(keys >= 3, "CA, gateway and device have keys, {keys} found");
    stack.stop().await
}

/// Passwords and tokens are kept as hashes.
#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_keeps_no_password_and_no_token() -> anyhow::Result<()> {
    let mut stack = Stack::builder().without_user().gateways(0).start().await?;
    let account = json!({"email": "robot@example.org", "name": "robot", "kind": "service"});
    let account = stack.api().post("/api/v1/accounts", account).await?;
    let id = account["id"].as_str().context("no id")?;
    let token = stack.api().post(&format!("/api/v1/accounts/{id}/tokens"), json!({"name": "test"})).await?;
    let token = token["token"].as_str().context("no token")?.to_owned();
    stack.control.stop().await?;
    let secrets = [PASSWORD.as_bytes(), token.as_bytes(), stack.admin.token.as_bytes()];
    for file in files(stack.control.data()) {
        let bytes = std::fs::read(&file)?;
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{} holds a password or a token", file.display());
        }
    }
    stack.stop().await
}
