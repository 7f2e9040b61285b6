//! `postern` as people and scripts use it, against a whole Postern.

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client,
    command::{Output, PATIENCE, run, run_with_input},
    stack::{EMAIL, PASSWORD, Stack, User},
    target::{Behaviour, Target},
};
use serde_json::Value;

/// What an administrator gives an account at first.
const FIRST_PASSWORD: &str = "a password for the first day";

/// Runs `postern` with something on its standard input.
async fn typed(user: &User, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
    run_with_input(&mut user.cli(arguments), input, PATIENCE).await
}

async fn json(user: &User, arguments: &[&str]) -> anyhow::Result<Value> {
    let output = user.postern(arguments).await?;
    serde_json::from_str(&output).with_context(|| format!("postern {arguments:?} printed no JSON: {output}"))
}

/// How `postern` ended, with what it said about it.
async fn code(user: &User, arguments: &[&str]) -> anyhow::Result<(i32, String)> {
    let output = run(&mut user.cli(arguments), PATIENCE).await?;
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(!said.contains('\u{1b}'), "escapes although nothing is a terminal: {said:?}");
    Ok((output.status.code().unwrap_or(-1), said))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_gives_and_a_user_takes_with_the_command_line_alone() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().start().await?;
    let mut admin = stack.add_user("admin", None, &[]).await?;
    let (email, _) = stack.control.first_admin().context("no administrator")?;
    admin.login_with_cli(email, PASSWORD).await?;

    let (host, port) = (target.address().ip().to_string(), target.address().port().to_string());
    let create = ["admin", "resources", "create", "orders", "--host", &host, "--port", &port, "--tag", "env=prod"];
    admin.postern(&[&create[..], &["--allow-local"]].concat()).await?;
    let new = ["admin", "accounts", "create", "grace@example.org", "--name", "Grace", "--password-stdin"];
    typed(&admin, &new, &format!("{FIRST_PASSWORD}\n")).await?.success()?;
    admin.postern(&["admin", "roles", "create", "orders team"]).await?;
    admin.postern(&["admin", "rules", "create", "orders team", "--query", "tags:env=prod kind:tcp"]).await?;
    admin.postern(&["admin", "members", "add", "orders team", "grace@example.org"]).await?;

    let mut grace = stack.add_user("grace", None, &[]).await?;
    grace.login_with_cli("grace@example.org", FIRST_PASSWORD).await?;
    typed(&grace, &["password", "--stdin"], &format!("{FIRST_PASSWORD}\n{PASSWORD}\n")).await?.success()?;
    grace.knows("orders").await?;
    let table = grace.postern(&["resources"]).await?;
    assert!(table.contains("orders") && table.contains("tcp"), "{table}");
    let filtered = json(&grace, &["resources", "--filter", "name:ord* tags:env=prod", "--json"]).await?;
    assert!(filtered.to_string().contains("orders"), "{filtered}");
    assert_eq!(code(&grace, &["ready", "-q", "orders"]).await?, (7, String::new()));
    grace.postern(&["connect", "orders"]).await?;
    let address = grace.listens("orders").await?;
    let ready = code(&grace, &["ready", "-q", "--wait", "20s", "orders"]).await?;
    assert_eq!(ready, (0, String::new()));
    let mut stream = client::open(address).await?;
    let sessions = grace.postern(&["sessions", "--json"]).await?;
    assert!(sessions.contains("orders"), "{sessions}");
    let status = json(&grace, &["status", "--json"]).await?;
    assert_eq!(status["sign_in"]["account"]["email"], "grace@example.org", "{status}");
    grace.postern(&["disconnect", "--all"]).await?;
    assert_eq!(client::end(&mut stream).await?, client::End::Reset);

    let shown = json(&admin, &["admin", "resources", "show", "orders", "--json"]).await?;
    assert_eq!(shown["tags"]["env"], "prod", "{shown}");
    let exported = admin.postern(&["admin", "activities", "export"]).await?;
    for line in exported.lines() {
        serde_json::from_str::<Value>(line).with_context(|| line.to_owned())?;
    }
    admin.postern(&["admin", "audit", "verify"]).await?;
    admin.postern(&["admin", "members", "remove", "orders team", "grace@example.org"]).await?;
    grace.status_when(|status| status.resources.is_empty()).await?;
    admin.postern(&["admin", "resources", "delete", "orders", "--yes"]).await?;
    grace.postern(&["logout"]).await?;
    admin.stop().await?;
    grace.stop().await?;
    stack.stop().await
}

/// Every call goes through `posternd`, which passes on what people may ask and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_can_be_listed_is_listed_and_a_node_is_drained_with_the_command_line() -> anyhow::Result<()> {
    let stack = Stack::builder().start().await?;
    let mut admin = stack.add_user("admin", None, &[]).await?;
    let (email, _) = stack.control.first_admin().context("no administrator")?;
    admin.login_with_cli(email, PASSWORD).await?;

    let help = admin.postern(&["admin", "--help"]).await?;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut listed = Vec::new();
    for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        let verbs = admin.postern(&["admin", name, "--help"]).await?;
        let list = verbs.lines().find(|line| line.starts_with("  list "));
        // What belongs to one account, role or cluster asks for its name.
        if list.is_none() || admin.postern(&["admin", name, "list", "--help"]).await?.contains("Arguments:") {
            continue;
        }
        json(&admin, &["admin", name, "list", "--json"]).await.with_context(|| format!("admin {name} list"))?;
        listed.push(name.to_owned());
    }
    for name in ["accounts", "roles", "resources", "gateways", "nodes", "clusters", "devices", "sessions", "activities"]
    {
        assert!(listed.iter().any(|listed| listed == name), "{name} was not listed: {listed:?}");
    }

    let nodes = json(&admin, &["admin", "nodes", "list", "--json"]).await?;
    let node = nodes["items"][0]["name"].as_str().with_context(|| format!("no node: {nodes}"))?.to_owned();
    admin.postern(&["admin", "nodes", "drain", &node, "--deadline", "60"]).await?;
    let shown = json(&admin, &["admin", "nodes", "show", &node, "--json"]).await?;
    assert!(shown["drain_ends_at"].as_u64().is_some(), "{shown}");
    admin.postern(&["admin", "nodes", "drain", &node, "--cancel"]).await?;
    let shown = json(&admin, &["admin", "nodes", "show", &node, "--json"]).await?;
    assert!(shown["drain_ends_at"].is_null(), "{shown}");
    admin.stop().await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_failed_and_what_to_do_and_have_codes_of_their_own() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let user = stack.user();
    let (exit, said) = code(user, &["connect", "nothing-of-that-name"]).await?;
    assert_eq!(exit, 5, "{said}");
    assert!(said.contains("nothing-of-that-name"), "{said}");
    let (exit, said) = code(user, &["connect"]).await?;
    assert_eq!(exit, 2, "{said}");
    let (exit, said) = code(user, &["admin", "accounts", "list"]).await?;
    assert_eq!(exit, 6, "{said}");
    let (exit, said) = code(user, &["resources", "--filter", "nofield:x"]).await?;
    assert_eq!(exit, 2, "{said}");
    assert!(said.contains("nofield") && said.contains("kind"), "neither the fault nor what is possible: {said}");
    let wrong = typed(user, &["login", "--email", EMAIL, "--password-stdin"], "wrong password\n").await?;
    assert_eq!(wrong.status.code(), Some(4), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("wrong password\n"), "{}", wrong.stderr);
    let doctor = json(user, &["doctor", "--json"]).await?;
    assert!(doctor["checks"].as_array().is_some_and(|checks| checks.len() >= 3), "{doctor}");

    stack.user_mut().stop().await?;
    let (exit, said) = code(stack.user(), &["status"]).await?;
    assert_eq!(exit, 3, "{said}");
    assert!(said.contains("posternd"), "{said}");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_man_pages_need_no_service() -> anyhow::Result<()> {
    let stack = Stack::builder().gateways(0).start().await?;
    let out = stack.folder().join("man");
    for shell in ["bash", "zsh", "fish"] {
        let script = stack.user().postern(&["completions", shell]).await?;
        assert!(script.contains("postern") && script.len() > 1000, "{shell}");
    }
    let folder = out.to_str().context("a path that is text")?;
    stack.user().postern(&["man", "--out", folder]).await?;
    let pages = std::fs::read_dir(&out)?.count();
    assert!(pages > 10, "{pages} man pages");
    stack.stop().await
}
