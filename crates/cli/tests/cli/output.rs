//! What every command owes its reader: harmless text, stable JSON, colours only where they are wanted.

use std::{
    io::Read as _,
    process::{Command, Stdio},
};

use postern_local_api::{cause::Cause, message::*, names::*};
use postern_proto::{resource::Kind, time::UnixMillis};
use serde_json::{Value, json};

use crate::support::*;

/// A name as an attacker would like it: clears the screen, sets the title, forges a line, turns the writing.
const EVIL: &str = "db\u{1b}[2J\u{1b}]0;x\u{7}\r\nerror: all is lost\u{9b}31m\u{202e}txt";
const SHOWN: &str = r"db\u{1b}[2J\u{1b}]0;x\u{7}\r\nerror: all is lost\u{9b}31m\u{202e}txt";

fn evil_status() -> Status {
    let mut status = status();
    let account = postern_proto::api::AccountInfo { email: EVIL.to_owned(), name: EVIL.to_owned(), ..account() };
    if let SignIn::SignedIn { account: signed_in, org, .. } = &mut status.sign_in {
        *signed_in = account;
        *org = EVIL.to_owned();
    }
    status.gateways[0].state = GatewayState::Unreachable { error: EVIL.to_owned() };
    status.gateways[0].name = EVIL.to_owned();
    let evil = Cause::AtStart { sentence: EVIL.to_owned() };
    status.health = vec![evil.health(None, UnixMillis(1))];
    for resource in &mut status.resources {
        resource.resource.name = EVIL.to_owned();
        resource.resource.tags.insert(EVIL.to_owned(), EVIL.to_owned());
        resource.trouble = Some(evil.trouble(UnixMillis(1), None));
        resource.last_error = Some(EVIL.to_owned());
    }
    status
}

#[track_caller]
fn is_harmless(ran: &Ran) {
    for c in ran.out.chars().chain(ran.err.chars()) {
        assert!(c == '\n' || !c.is_control() && c != '\u{202e}', "{c:?} in {:?} {:?}", ran.out, ran.err);
    }
}

#[test]
fn control_characters_of_others_never_reach_the_terminal() {
    let fake = Fake::start();
    fake.set_status(&evil_status());
    let mut connected = resource(0, EVIL, Kind::Ssh, 10022, listening(10022));
    connected.trouble = evil_status().resources[0].trouble.clone();
    fake.answer("POST /v1/connect", 200, json!(ChangeReport { resources: vec![connected], changed: 1 }));
    let check = Check {
        id: EVIL.to_owned(),
        title: EVIL.to_owned(),
        verdict: Verdict::Warning,
        detail: EVIL.to_owned(),
        advice: Some(EVIL.to_owned()),
        commands: vec![EVIL.to_owned()],
        group: CheckGroup::ThisComputer,
        took_micros: None,
    };
    fake.set_doctor(&[check]);
    let record = NameRecord { name: EVIL.to_owned(), kind: EVIL.to_owned(), ttl: 5, data: EVIL.to_owned() };
    let answered = Asked::Answered { code: EVIL.to_owned(), records: vec![record], explanation: Some(EVIL.to_owned()) };
    let report = NameReport {
        name: EVIL.to_owned(),
        kind: EVIL.to_owned(),
        resolver: Some(ResolverAnswer { server: "100.72.0.2:53".parse().unwrap(), micros: 1, outcome: answered }),
        system: SystemAnswer::Failed { error: EVIL.to_owned() },
        commands: vec![EVIL.to_owned()],
    };
    fake.answer("POST /v1/names", 200, json!(report));
    let account = json!({ "id": EVIL, "email": EVIL, "name": EVIL, "kind": EVIL, "tags": { EVIL: EVIL } });
    fake.answer("GET /api/v1/accounts", 200, json!({ "items": [account], "next_cursor": null }));
    let export = json!({ "id": "str_1", "resource_name": EVIL });
    fake.answer("GET /api/v1/sessions", 200, json!({ "items": [export], "next_cursor": null }));
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["resources"],
        &["resources", "--json"],
        &["connect", RESOURCE_IDS[0]],
        &["connect", "zzz"],
        &["doctor"],
        &["doctor", "--json"],
        &["dns", "query", "db"],
        &["dns", "query", "db", "--json"],
        &["admin", "accounts", "list"],
        &["admin", "accounts", "list", "--json"],
        &["admin", "sessions", "list"],
        &["admin", "sessions", "export"],
    ] {
        let ran = fake.run(command);
        is_harmless(&ran);
        assert!(command.contains(&"zzz") || ran.out.contains("db\\u"), "{command:?} shows no name: {}", ran.out);
    }
    fake.run(&["status"]).says(SHOWN);
}

#[test]
fn control_characters_in_refusals_are_shown_too() {
    let fake = Fake::start();
    let problem = json!({ "status": 422, "code": EVIL, "title": EVIL, "detail": EVIL,
        "violations": [{ "field": EVIL, "value": EVIL, "rule": EVIL }] });
    fake.answer("POST /v1/connect", 422, problem.clone());
    fake.answer("GET /api/v1/roles", 422, problem);
    for command in [&["connect", "--all"][..], &["admin", "roles", "list"]] {
        let ran = fake.run(command).ends(8).warns(SHOWN);
        is_harmless(&ran);
    }
}

#[test]
fn json_with_escapes_says_what_the_service_said() {
    let fake = Fake::start();
    fake.set_status(&evil_status());
    assert_eq!(fake.run(&["status", "--json"]).ends(0).json(), json!(evil_status()));
}

#[test]
fn the_json_of_status_keeps_its_shape() {
    let fake = Fake::start();
    let expected = json!({
        "service": "0.1.0",
        "sign_in": {
            "state": "signed_in",
            "account": {
                "id": "acc_01JABCDEFGHJKMNPQRSTVWXYZ0", "email": "ana@example.com", "name": "Ana",
                "admin": true, "service": false,
            },
            "org": "Example",
            "device": "dev_01JABCDEFGHJKMNPQRSTVWXYZ0",
            "expires_at": 4_000_000_000_000_u64,
            "must_change_password": false,
        },
        "control": { "state": "connected", "url": "https://control.example:8443", "since": 1 },
        "key_storage": { "kind": "file", "path": "/state/device.key" },
        "certificate_ends": 4_000_000_000_000_u64,
        "gateways": [{
            "id": "nod_01JABCDEFGHJKMNPQRSTVWXYZ0", "name": "gw-1", "address": "gw.example:5000",
            "state": { "state": "reachable" }, "spares": 1, "handshake_micros": 2300,
        }],
        "resources": [
            resource_json(0, "grafana", "http", 18080, "dev", json!({
                "connection_state": "listening", "address": "127.0.0.1:18080",
            })),
            resource_json(1, "orders-db", "postgres", 15432, "prod", json!({ "connection_state": "disconnected" })),
            resource_json(2, "shell", "ssh", 10022, "prod", json!({ "connection_state": "disconnected" })),
        ],
        "network": { "state": "off" },
        "allowed_uids": [],
        "status_api": { "state": "off" },
        "warnings": [],
        "health": [],
    });
    assert_eq!(fake.run(&["status", "--json"]).ends(0).json(), expected);
    assert_eq!(fake.run(&["resources", "--json"]).ends(0).json(), expected["resources"]);
    let one = fake.run(&["resources", "--json", "-f", "kind:ssh"]).ends(0).json();
    assert_eq!(one, json!([expected["resources"][2]]));
}

fn resource_json(n: usize, name: &str, kind: &str, port: u16, env: &str, connection: Value) -> Value {
    let connected = connection["connection_state"] == "listening";
    json!({
        "state": if connected { "connected" } else { "off" }, "wanted": connected,
        "id": RESOURCE_IDS[n], "name": name, "kind": kind, "tags": { "env": env },
        "bind": { "mode": "loopback", "ip": "127.0.0.1", "port": port },
        "revision": 3, "health": { "state": "healthy" },
        "connection": connection, "streams": 0, "bytes_up": 0, "bytes_down": 0,
    })
}

#[test]
fn the_json_of_connect_keeps_its_shape() {
    let fake = Fake::start();
    let connected = resource(1, "orders-db", Kind::Postgres, 15432, listening(15432));
    fake.answer("POST /v1/connect", 200, json!(ChangeReport { resources: vec![connected], changed: 1 }));
    let listening = json!({ "connection_state": "listening", "address": "127.0.0.1:15432" });
    let expected =
        json!({ "resources": [resource_json(1, "orders-db", "postgres", 15432, "prod", listening)], "changed": 1 });
    assert_eq!(fake.run(&["connect", "orders-db", "--json"]).ends(0).json(), expected);
}

#[test]
fn colours_are_left_out_where_nobody_sees_them_and_put_in_where_they_are_asked_for() {
    let fake = Fake::start();
    for command in [&["status"][..], &["resources"], &["connect", "nothing"]] {
        let ran = fake.run(command);
        assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'), "{ran:?}");
        let ran = fake.command(&[command, &["--color", "always"]].concat()).env("NO_COLOR", "1").run("");
        assert!(ran.out.contains('\u{1b}') || ran.err.contains("\u{1b}["), "{ran:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fake = Fake::start();
    let mut many = status();
    many.resources =
        (0..3).cycle().take(20_000).map(|n| resource(n, "name", Kind::Tcp, 14000, listening(14000))).collect();
    fake.set_status(&many);
    for arguments in [&["resources"][..], &["resources", "--json"], &["status"]] {
        let mut command = Command::new(POSTERN);
        command.args(arguments).env_clear().env("POSTERN_HOME", fake.home.path()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0; 1]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let fake = Fake::start();
    let mut command = Command::new(POSTERN);
    command.arg("status").env_clear().env("POSTERN_HOME", fake.home.path()).stdin(Stdio::null());
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write the output"));
}

#[test]
fn watching_without_a_terminal_prints_each_state_and_survives_a_restart() {
    let fake = Fake::start();
    fake.stream(vec![json!({ "seq": 1, "event": "snapshot", "status": signed_out() })]);
    fake.stream(vec![
        json!({ "seq": 1, "event": "snapshot", "status": status() }),
        json!({ "seq": 2, "event": "notice", "level": "warning", "text": "mind \u{1b}the gap" }),
    ]);
    let child = fake.command(&["status", "--watch", "--json"]);
    let mut command = child.command;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut seen: Vec<Value> = Vec::new();
    while !seen.iter().any(|line| line["event"] == "notice")
        || !seen.iter().any(|line| line["status"] == json!(status()))
    {
        seen.push(serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap());
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let events: Vec<_> = seen.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert!(events.contains(&"lost"), "{events:?}");
    let notice = seen.iter().find(|line| line["event"] == "notice").unwrap();
    assert_eq!(*notice, json!({ "event": "notice", "level": "warning", "text": "mind \u{1b}the gap" }));
    assert!(seen.iter().all(|line| line["event"] != "status" || line["status"].is_object()));
}
