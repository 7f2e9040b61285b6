//! What a user does: sign in, look, connect.

use postern_local_api::{cause::Cause, message::*};
use postern_proto::{
    resource::{Health, Kind},
    time::UnixMillis,
};
use serde_json::json;

use crate::support::*;

const CONTROL: &str = "https://control.example:8443";

#[test]
fn without_a_service_every_command_says_how_to_start_it() {
    let home = tempfile::tempdir().unwrap();
    for command in [
        &["status"][..],
        &["resources"],
        &["connect", "x"],
        &["disconnect", "--all"],
        &["sessions"],
        &["lock"],
        &["unlock"],
        &["logout"],
        &["password"],
        &["ready"],
        &["service", "stop"],
        &["admin", "accounts", "list"],
    ] {
        let ran = Invocation::new(home.path(), command).run("").ends(3);
        assert!(ran.err.starts_with("error: posternd is not running\n"), "{command:?}: {}", ran.err);
        assert!(ran.err.contains("next: start it with `postern service run`"), "{command:?}: {}", ran.err);
        assert_eq!(ran.out, "");
    }
}

#[test]
fn a_socket_path_that_is_too_long_is_explained() {
    let home = tempfile::tempdir().unwrap();
    let deep = home.path().join("x".repeat(120));
    Invocation::new(&deep, &["status"]).run("").ends(1).warns("bytes, the system allows").warns("POSTERN_HOME");
}

#[test]
fn a_service_of_another_version_is_named_in_a_sentence() {
    let fake = Fake::start();
    fake.answer("GET /v1/hello", 200, json!({ "version": 9, "service": "9.9.9" }));
    fake.run(&["status"])
        .ends(3)
        .warns("speaks version 1 of the local API, but the running posternd 9.9.9 speaks version 9");
}

#[test]
fn a_service_that_talks_nonsense_is_told_apart_from_one_that_refuses() {
    let fake = Fake::start();
    fake.answer("GET /v1/status", 200, json!({ "surprise": true }));
    fake.run(&["status"]).ends(1).warns("makes no sense");
    fake.refuse("GET /v1/status", 503, "starting", "The service is starting");
    fake.run(&["status"]).ends(7).warns("error: the service is starting");
}

#[test]
fn login_sends_the_password_from_stdin_and_greets() {
    let fake = Fake::start();
    fake.answer("POST /v1/login", 200, json!(status()));
    let fingerprint = "AB:".repeat(31) + "AB";
    let ran = fake.run_with_input(
        &[
            "login",
            "--email",
            "ana@example.com",
            "--password-stdin",
            "--control",
            CONTROL,
            "--ca-fingerprint",
            &fingerprint,
        ],
        "correct horse battery\n",
    );
    let ran = ran.ends(0).says("Signed in as ana@example.com (Example)").says("3 resources, 1 connected");
    assert!(!ran.out.contains("horse") && !ran.err.contains("horse"));
    let expected = json!({
        "control": CONTROL,
        "trust": { "trust": "fingerprint", "sha256": "ab".repeat(32) },
        "credential": { "method": "password", "email": "ana@example.com", "password": "correct horse battery" },
    });
    assert_eq!(fake.calls(), [("POST /v1/login".to_owned(), expected)]);
}

#[test]
fn login_tells_what_may_be_reached_although_it_arrives_later() {
    let fake = Fake::start();
    let mut early = status();
    early.resources.clear();
    early.control = ControlLink::Connecting { url: CONTROL.to_owned() };
    fake.answer("POST /v1/login", 200, json!(early));
    fake.stream(vec![
        json!({ "seq": 1, "event": "snapshot", "status": early }),
        json!({ "seq": 2, "event": "service", "status": Status { resources: Vec::new(), ..status() } }),
        json!({ "seq": 3, "event": "resource_changed", "resource": status().resources[0] }),
        json!({ "seq": 4, "event": "resource_changed", "resource": status().resources[1] }),
    ]);
    fake.run_with_input(&["login", "--service-token=-"], "t").ends(0).says("2 resources, 1 connected");
    // One who may reach nothing is told so, soon.
    fake.set_status(&Status { resources: Vec::new(), ..status() });
    fake.run_with_input(&["login", "--service-token=-"], "t").ends(0).says("nothing you may reach yet");
}

#[test]
fn a_service_account_without_an_address_is_called_by_its_name() {
    let fake = Fake::start();
    let mut status = status();
    if let SignIn::SignedIn { account, .. } = &mut status.sign_in {
        account.email = "01jabc@service.invalid".to_owned();
        account.name = "ci".to_owned();
        account.service = true;
    }
    fake.answer("POST /v1/login", 200, json!(status));
    fake.set_status(&status);
    fake.run_with_input(&["login", "--service-token=-"], "t").ends(0).says("Signed in as ci (Example)");
    fake.run(&["status"]).ends(0).says("Signed in      ci (Example)");
    fake.run(&["password"]).ends(2).warns("a service account has no password");
    let SignIn::SignedIn { account, org, .. } = status.sign_in.clone() else { panic!() };
    fake.set_status(&Status { sign_in: SignIn::Locked { account, org }, ..status.clone() });
    fake.answer("POST /v1/unlock", 200, json!(status));
    fake.command(&["unlock"]).env("POSTERN_SERVICE_TOKEN", "ptk_1").run("").ends(0).says("Unlocked");
    assert_eq!(fake.calls().last().unwrap().1, json!({ "password": "ptk_1" }));
}

#[test]
fn login_takes_the_ca_from_a_file_and_refuses_what_is_none() {
    let fake = Fake::start();
    fake.answer("POST /v1/login", 200, json!(status()));
    let good = fake.home.path().join("ca.pem");
    std::fs::write(&good, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n").unwrap();
    let login = |ca: &str| fake.command(&["login", "--ca", ca]).env("POSTERN_SERVICE_TOKEN", "ptk_1").run("");
    login(good.to_str().unwrap()).ends(0);
    let (_, body) = fake.calls().remove(0);
    assert_eq!(body["trust"]["trust"], "ca");
    assert_eq!(body["credential"], json!({ "method": "service_token", "token": "ptk_1" }));

    let bad = fake.home.path().join("notes.txt");
    std::fs::write(&bad, "hello").unwrap();
    login(bad.to_str().unwrap()).ends(1).warns("holds no certificate in PEM form");
    login("/nowhere/ca.pem").ends(1).warns("cannot use the CA file /nowhere/ca.pem").warns("No such file");
    assert_eq!(fake.calls().len(), 1);
}

#[test]
fn a_service_token_comes_from_stdin_or_the_environment_and_never_from_an_argument() {
    let fake = Fake::start();
    fake.answer("POST /v1/login", 200, json!(status()));
    fake.run_with_input(&["login", "--service-token=-"], "ptk_stdin\r\n").ends(0);
    fake.command(&["login", "--service-token"]).env("POSTERN_SERVICE_TOKEN", " ptk_env ").run("").ends(0);
    let tokens: Vec<_> = fake.calls().iter().map(|(_, body)| body["credential"]["token"].clone()).collect();
    assert_eq!(tokens, ["ptk_stdin", "ptk_env"]);
    fake.run(&["login", "--service-token=ptk_argument"]).ends(2).warns("can be read by everybody on this machine");
    // An e-mail address that is given goes before a token that happens to be in the environment.
    let mixed =
        fake.command(&["login", "--email", "a@b.example", "--password-stdin"]).env("POSTERN_SERVICE_TOKEN", "t");
    mixed.run("pw").ends(0);
    assert_eq!(fake.calls().last().unwrap().1["credential"]["method"], "password");
}

#[test]
fn login_without_a_terminal_says_what_to_use_instead() {
    let fake = Fake::start();
    fake.run(&["login"]).ends(2).warns("there is no terminal to ask").warns("--password-stdin");
    fake.run(&["login", "--service-token"]).ends(2).warns("--service-token=-");
    fake.run(&["login", "--email", "a@b.example", "--password-stdin"]).ends(2).warns("nothing on standard input");
    fake.run(&["login", "--password-stdin"]).ends(2).warns("--email");
    fake.run(&["login", "--ca-fingerprint", "abc"]).ends(2).warns("64 hexadecimal digits");
    assert!(fake.calls().is_empty());
}

#[test]
fn a_refused_login_says_why_and_does_not_advise_to_log_in() {
    let fake = Fake::start();
    fake.refuse("POST /v1/login", 401, "login_failed", "E-mail address or password is not right");
    let ran = fake.run_with_input(&["login", "--email", "a@b.example", "--password-stdin"], "wrong");
    let ran = ran.ends(4).warns("error: cannot sign in: e-mail address or password is not right");
    assert!(!ran.err.contains("next:"), "{}", ran.err);
    fake.refuse("POST /v1/login", 502, "control_untrusted", "The server is not the trusted control plane");
    fake.run_with_input(&["login", "--service-token=-"], "t").ends(1);
}

#[test]
fn a_login_with_a_one_time_password_says_that_it_must_be_changed() {
    let fake = Fake::start();
    let mut status = status();
    if let SignIn::SignedIn { must_change_password, .. } = &mut status.sign_in {
        *must_change_password = true;
    }
    fake.answer("POST /v1/login", 200, json!(status));
    fake.set_status(&status);
    let ran = fake.run_with_input(&["login", "--email", "a@b.example", "--password-stdin"], "one-time");
    ran.ends(0).warns("choose a new one soon: `postern password`");
    fake.run(&["status"]).ends(0).says("choose a new password");
    fake.run(&["ready"]).ends(0);
}

#[test]
fn logout_lock_and_unlock_say_what_is_now() {
    let fake = Fake::start();
    fake.answer("POST /v1/lock", 200, json!(locked()));
    fake.answer("POST /v1/unlock", 200, json!(status()));
    fake.answer("POST /v1/logout", 200, json!(signed_out()));
    fake.run(&["lock"]).ends(0).says("Locked");
    fake.run(&["unlock"]).ends(0).says("Nothing is locked");
    fake.set_status(&locked());
    fake.run(&["ready"]).ends(4).warns("`postern unlock`");
    fake.run(&["status"]).ends(0).says("locked – open with `postern unlock`");
    fake.run(&["unlock"]).ends(2).warns("no terminal");
    fake.run_with_input(&["unlock", "--password-stdin"], "pw\n").ends(0).says("Unlocked");
    fake.refuse("POST /v1/unlock", 401, "wrong_password", "The password is not right");
    fake.run_with_input(&["unlock", "--password-stdin"], "pw")
        .ends(4)
        .warns("cannot unlock: the password is not right");
    fake.run(&["logout"]).ends(0).says("Signed out");
    fake.set_status(&signed_out());
    fake.run(&["logout"]).ends(0).says("You were not signed in");
    let unlocks: Vec<_> = fake.calls().into_iter().filter(|(call, _)| call.contains("unlock")).collect();
    assert_eq!(unlocks[0].1, json!({ "password": "pw" }));
}

#[test]
fn the_password_is_changed_through_the_control_plane() {
    let fake = Fake::start();
    fake.answer("POST /api/v1/password", 204, json!(null));
    fake.run_with_input(&["password", "--stdin"], "old one\nnew and longer\n").ends(0).says("changed");
    let expected = json!({ "current": "old one", "new": "new and longer" });
    assert_eq!(fake.calls(), [("POST /api/v1/password".to_owned(), expected)]);
    fake.run_with_input(&["password", "--stdin"], "only one\n").ends(2);
    let broken = json!({ "status": 422, "code": "invalid", "title": "The request breaks rules", "detail": "new: too short",
        "violations": [{ "field": "new", "value": "(hidden)", "rule": "must have 12 characters or more" }] });
    fake.answer("POST /api/v1/password", 422, broken);
    let ran = fake.run_with_input(&["password", "--stdin"], "old\nnew\n").ends(8);
    assert_eq!(
        ran.err,
        "error: cannot change the password: the request breaks rules\n  \
         why:  new = \"(hidden)\": must have 12 characters or more\n"
    );
}

#[test]
fn status_shows_everything_at_a_glance() {
    let fake = Fake::start();
    let ran = fake.run(&["status"]).ends(0);
    for text in [
        "Signed in      ana@example.com (Example), for ",
        "Control plane  https://control.example:8443 connected for ",
        "Gateways       gw-1 at gw.example:5000, reachable in 2.3 ms",
        "Device key     in the file /state/device.key, open to you alone",
        "Resources      3 that you may reach, 1 connected",
        "NAME     KIND  ADDRESS          STATE      HEALTH   OPEN   UP  DOWN",
        "grafana  http  127.0.0.1:18080  connected  healthy     0  0 B   0 B",
    ] {
        assert!(ran.out.contains(text), "no {text:?} in {}", ran.out);
    }
    assert!(!ran.out.contains("orders-db"));
}

#[test]
fn status_shows_what_is_wrong() {
    let fake = Fake::start();
    let mut sick = status();
    sick.control = ControlLink::Away {
        url: CONTROL.to_owned(),
        since: UnixMillis(1),
        error: format!("the control plane at {CONTROL} cannot be reached: connection refused (os error 111)"),
        retry_at: UnixMillis(2),
    };
    sick.gateways[0].state = GatewayState::Unreachable { error: "no route to host".to_owned() };
    sick.certificate_ends = Some(UnixMillis(1));
    sick.status_api = StatusApi::Failed { error: "port 65220 is in use".to_owned() };
    sick.health = vec![Cause::ClockSkew { minutes: 7, slow: true }.health(None, UnixMillis(1))];
    let holder = PortHolder { uid: 0, pid: Some(812), program: Some("nginx".to_owned()) };
    let address = ([127, 0, 0, 1], 18080).into();
    let held = Cause::PortTaken { resource: "grafana".to_owned(), address, holder: Some(holder.clone()) };
    let connection = Connection::PortInUse { address, holder: Some(holder), retry_at: UnixMillis(2) };
    sick.resources[0] = ResourceStatus {
        trouble: Some(held.trouble(UnixMillis(1), None)),
        ..resource(0, "grafana", Kind::Http, 18080, connection)
    };
    sick.health.push(held.health(Some(sick.resources[0].resource.id), UnixMillis(1)));
    let silent = Cause::TargetUnhealthy { detail: "refused".to_owned() };
    sick.health.push(silent.health(Some(sick.resources[0].resource.id), UnixMillis(1)));
    fake.set_status(&sick);
    let ran = fake.run(&["status"]).ends(0);
    for text in [
        ": cannot be reached: connection refused – what is connected goes on",
        "unreachable: no route to host",
        "port 65220 is in use",
        "warning: This computer's clock is 7\u{2009}min slow. (clock_skew)",
        "Turn on automatic time, then try again.",
        "unhealthy",
        "warning: grafana could not open port 18080. (port_taken)",
        "warning: grafana: The target does not answer. (target_unhealthy)",
        "nginx (pid 812) holds 127.0.0.1:18080. Stop nginx, or choose another port.",
        "ended ",
    ] {
        assert!(ran.out.contains(text), "no {text:?} in {}", ran.out);
    }
}

#[test]
fn status_of_somebody_who_is_not_signed_in_is_no_failure() {
    let fake = Fake::start();
    fake.set_status(&signed_out());
    fake.run(&["status"]).ends(0).says("no – sign in with `postern login`").says("none yet – name it");
    let url = CONTROL.to_owned();
    fake.set_status(&Status { control: ControlLink::Known { url }, ..signed_out() });
    let ran = fake.run(&["status"]).ends(0).says(&format!("{CONTROL}, asked when you sign in"));
    assert!(!ran.out.contains("that you may reach"), "that is not known: {}", ran.out);
    let lost = KeyStorage::Unreadable {
        name: "keyring".to_owned(),
        reason: "No such file or directory (os error 2)".to_owned(),
        missing: true,
    };
    fake.set_status(&Status { key_storage: lost, ..signed_out() });
    fake.run(&["status"]).ends(0).says("there is no keyring: No such file or directory. Choose:");
    for command in [&["resources"][..], &["sessions"], &["connect", "--all"], &["lock"], &["admin", "roles", "list"]] {
        fake.run(command).ends(4).warns("you are not signed in").warns("next: sign in: `postern login`");
    }
}

#[test]
fn resources_are_listed_and_filtered() {
    let fake = Fake::start();
    let ran = fake.run(&["resources"]).ends(0);
    assert_eq!(
        ran.out,
        "NAME       KIND      ADDRESS          STATE      HEALTH   TAGS\n\
         grafana    http      127.0.0.1:18080  connected  healthy  env=dev\n\
         orders-db  postgres  127.0.0.1:15432  -          healthy  env=prod\n\
         shell      ssh       127.0.0.1:10022  -          healthy  env=prod\n"
    );
    let ran = fake.run(&["resources", "--filter", "tags:env=prod kind:ssh"]).ends(0).says("shell");
    assert!(!ran.out.contains("orders-db"));
    fake.run(&["resources", "-f", "name:nothing*"]).ends(0).says("matches the filter");
    fake.run(&["resources", "-f", "colour:red"]).ends(2).warns("is not a field here");
    let mut changed = status();
    changed.resources[1].grant_ends = Some(UnixMillis(4_000_000_000_000));
    let unhealthy = Cause::TargetUnhealthy { detail: "connection refused".to_owned() };
    changed.resources[1].trouble = Some(unhealthy.trouble(UnixMillis(1), None));
    fake.set_status(&changed);
    fake.run(&["resources"]).ends(0).says("ENDS").says(" d").says("PROBLEM").says("The target does not answer.");
    changed.resources.clear();
    fake.set_status(&changed);
    fake.run(&["resources"]).ends(0).says("nothing that you may reach yet");
}

pub(crate) fn report(resources: &[ResourceStatus], changed: u32) -> serde_json::Value {
    json!(ChangeReport { resources: resources.to_vec(), changed })
}

#[test]
fn connect_prints_the_address_and_an_example_that_can_be_pasted() {
    let fake = Fake::start();
    for (kind, port, example) in [
        (Kind::Postgres, 15432, "psql -h 127.0.0.1 -p 15432"),
        (Kind::Mysql, 13306, "mysql -h 127.0.0.1 -P 13306 --protocol=tcp"),
        (Kind::Redis, 16379, "redis-cli -h 127.0.0.1 -p 16379"),
        (Kind::Ssh, 10022, "ssh -p 10022 127.0.0.1"),
        (Kind::Http, 18080, "curl http://127.0.0.1:18080/"),
        (Kind::Tcp, 14000, "nc 127.0.0.1 14000"),
    ] {
        let connected = resource(1, "orders-db", kind, port, listening(port));
        fake.answer("POST /v1/connect", 200, report(&[connected], 1));
        let ran = fake.run(&["connect", "orders-db"]).ends(0);
        assert_eq!(ran.out, format!("orders-db is at 127.0.0.1:{port}\n  try: {example}\n"));
    }
    let expected = json!({ "select": "name", "name": RESOURCE_IDS[1] });
    assert!(fake.calls().iter().all(|(_, body)| *body == expected));
}

#[test]
fn several_resources_are_connected_by_names_by_filter_and_all_at_once() {
    let fake = Fake::start();
    let two = [
        resource(1, "orders-db", Kind::Postgres, 15432, listening(15432)),
        resource(2, "shell", Kind::Ssh, 10022, listening(10022)),
    ];
    fake.answer("POST /v1/connect", 200, report(&two, 2));
    let ran = fake.run(&["connect", "--filter", "tags:env=prod"]).ends(0);
    assert_eq!(
        ran.out,
        "NAME       ADDRESS          TRY\n\
         orders-db  127.0.0.1:15432  psql -h 127.0.0.1 -p 15432\n\
         shell      127.0.0.1:10022  ssh -p 10022 127.0.0.1\n"
    );
    fake.run(&["connect", "--all"]).ends(0);
    fake.run(&["connect", RESOURCE_IDS[2], "Orders-DB"]).ends(0);
    let bodies: Vec<_> = fake.calls().into_iter().map(|(_, body)| body).collect();
    assert_eq!(
        bodies,
        [
            json!({ "select": "filter", "filter": "tags:env=prod" }),
            json!({ "select": "all" }),
            json!({ "select": "name", "name": RESOURCE_IDS[2] }),
            json!({ "select": "name", "name": RESOURCE_IDS[1] }),
        ]
    );
}

#[test]
fn one_wrong_name_changes_nothing_and_is_met_with_what_was_meant() {
    let fake = Fake::start();
    let ran = fake.run(&["connect", "grafana", "ordersdb"]).ends(5);
    let ran = ran.warns("error: there is no resource \"ordersdb\"");
    ran.warns("next: did you mean \"orders-db\"?");
    fake.run(&["disconnect", "zzz"]).ends(5);
    fake.run(&["connect", "--filter", "name:zzz"]).ends(5).warns("matches");
    fake.run(&["connect"]).ends(2);
    fake.run(&["connect", "x", "--all"]).ends(2);
    assert!(fake.calls().is_empty());
}

#[test]
fn a_port_that_is_taken_is_explained_and_what_did_connect_is_shown() {
    let fake = Fake::start();
    let address = ([127, 0, 0, 1], 15432).into();
    let holder = Some(PortHolder { uid: 0, pid: Some(812), program: Some("postgres".to_owned()) });
    let held = Cause::PortTaken { resource: "orders-db".to_owned(), address, holder: holder.clone() };
    let taken = Connection::PortInUse { address, holder, retry_at: UnixMillis(1) };
    let two = [
        ResourceStatus {
            trouble: Some(held.trouble(UnixMillis(1), None)),
            ..resource(1, "orders-db", Kind::Postgres, 15432, taken)
        },
        resource(2, "shell", Kind::Ssh, 10022, listening(10022)),
    ];
    fake.answer("POST /v1/connect", 200, report(&two, 2));
    let ran = fake.run(&["connect", "--all"]).ends(7).says("shell is at 127.0.0.1:10022");
    assert_eq!(
        ran.err,
        "error: 1 of 2 resources is not connected\n  \
         why:  orders-db could not open port 15432. postgres (pid 812) holds 127.0.0.1:15432. (port_taken)\n  \
         next: it is tried again by itself; follow it with `postern status --watch`\n"
    );
}

#[test]
fn the_command_of_a_resource_stands_alone_on_standard_output() {
    let fake = Fake::start();
    let ran = fake.run(&["command", "grafana"]).ends(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("curl http://127.0.0.1:18080/\n", ""));
    let ran = fake.run(&["command", "orders-db"]).ends(0).warns("orders-db is off; connect it first");
    assert_eq!(ran.out, "psql -h 127.0.0.1 -p 15432\n");
    fake.run(&["command", "ordersdb"]).ends(5).warns("did you mean \"orders-db\"?");
}

#[test]
fn connecting_warns_when_nothing_can_be_carried() {
    let fake = Fake::start();
    let mut connected = resource(1, "orders-db", Kind::Postgres, 15432, listening(15432));
    connected.resource.health = Health::unhealthy("connection refused");
    fake.answer("POST /v1/connect", 200, report(&[connected], 1));
    let ran = fake.run(&["connect", "orders-db"]).ends(0);
    assert_eq!(ran.err, "warning: orders-db does not answer the gateways: connection refused\n");
    let mut alone = status();
    alone.gateways[0].state = GatewayState::Unreachable { error: "no route to host".to_owned() };
    fake.set_status(&alone);
    fake.run(&["connect", "orders-db"]).ends(0).warns("no gateway can be reached (no route to host), so");
    alone.gateways.clear();
    fake.set_status(&alone);
    fake.run(&["connect", "orders-db"]).ends(0).warns("warning: no gateway is known, so connections fail for now");
    fake.run(&["status"]).ends(0).says("Gateways       none is known");
}

#[test]
fn connecting_while_locked_says_how_to_unlock() {
    let fake = Fake::start();
    fake.set_status(&locked());
    let held = resource(1, "orders-db", Kind::Postgres, 15432, Connection::Suspended);
    fake.answer("POST /v1/connect", 200, report(&[held], 0));
    fake.run(&["connect", "orders-db"]).ends(4).warns("`postern unlock`");
}

#[test]
fn disconnect_says_what_it_did() {
    let fake = Fake::start();
    let gone = resource(1, "orders-db", Kind::Postgres, 15432, Connection::Disconnected);
    fake.answer("POST /v1/disconnect", 200, report(std::slice::from_ref(&gone), 1));
    fake.run(&["disconnect", "orders-db"]).ends(0).says("Disconnected orders-db.");
    fake.answer("POST /v1/disconnect", 200, report(std::slice::from_ref(&gone), 0));
    fake.run(&["disconnect", "orders-db"]).ends(0).says("orders-db was not connected.");
    fake.answer("POST /v1/disconnect", 200, report(&[gone.clone(), gone], 2));
    fake.run(&["disconnect", "--all"]).ends(0).says("Disconnected 2 resources.");
}

#[test]
fn ready_answers_in_its_exit_code() {
    let fake = Fake::start();
    let quiet = fake.run(&["ready", "-q"]).ends(0);
    assert_eq!((quiet.out, quiet.err), (String::new(), String::new()));
    fake.run(&["ready", "grafana"]).ends(0).says("ready");
    fake.run(&["ready", "orders-db"]).ends(7).warns("orders-db is not connected").warns("`postern connect orders-db`");
    fake.run(&["ready", "nothing"]).ends(5);
    fake.set_status(&signed_out());
    let quiet = fake.run(&["ready", "-q"]).ends(4);
    assert_eq!((quiet.out, quiet.err), (String::new(), String::new()));
    let mut connecting = status();
    connecting.control = ControlLink::Connecting { url: CONTROL.to_owned() };
    connecting.resources.clear();
    fake.set_status(&connecting);
    fake.run(&["ready"]).ends(7).warns("still connecting");
    let home = tempfile::tempdir().unwrap();
    let quiet = Invocation::new(home.path(), &["ready", "-q"]).run("").ends(3);
    assert_eq!(quiet.err, "");
}

#[test]
fn ready_can_wait_for_what_comes() {
    let fake = Fake::start();
    let connected = resource(1, "orders-db", Kind::Postgres, 15432, listening(15432));
    fake.stream(vec![
        json!({ "seq": 7, "event": "snapshot", "status": signed_out() }),
        json!({ "seq": 8, "event": "service", "status": status() }),
        json!({ "seq": 9, "event": "resource_changed", "resource": connected }),
    ]);
    fake.run(&["ready", "orders-db", "--wait", "30s"]).ends(0).says("ready");
    let ran = fake.run(&["ready", "shell", "--wait", "1"]).ends(7);
    ran.warns("shell is not connected").warns("waited 1 s");
    let home = tempfile::tempdir().unwrap();
    Invocation::new(home.path(), &["ready", "--wait", "1s"]).run("").ends(3).warns("posternd is not running");
}

#[test]
fn open_connections_are_listed() {
    let fake = Fake::start();
    fake.answer("GET /v1/sessions", 200, json!([]));
    fake.run(&["sessions"]).ends(0).says("No connection is open.");
    let session = LiveSession {
        stream: "str_01JABCDEFGHJKMNPQRSTVWXYZ0".parse().unwrap(),
        resource: RESOURCE_IDS[0].parse().unwrap(),
        resource_name: "grafana".to_owned(),
        peer: ([127, 0, 0, 1], 40000).into(),
        gateway: Some("nod_01JABCDEFGHJKMNPQRSTVWXYZ0".parse().unwrap()),
        route: None,
        started_at: UnixMillis(1),
        ends_at: None,
        bytes_up: 2048,
        bytes_down: 5 << 30,
    };
    fake.answer("GET /v1/sessions", 200, json!([session]));
    fake.run(&["sessions"]).ends(0).says("RESOURCE").says("grafana   127.0.0.1:40000  gw-1").says("2.0 KiB  5.0 GiB");
    assert_eq!(fake.run(&["sessions", "--json"]).ends(0).json(), json!([session]));
    assert!(!fake.run(&["sessions"]).ends(0).out.contains("ENDS IN"));
    let ends_at = Some(UnixMillis(u64::MAX / 1_000_000));
    fake.answer("GET /v1/sessions", 200, json!([LiveSession { ends_at, ..session }]));
    fake.run(&["sessions"]).ends(0).says("ENDS IN");
}

#[test]
fn doctor_lists_its_own_and_the_services_checks() {
    let fake = Fake::start();
    let check = |id: &str, verdict, advice: Option<&str>| Check {
        id: id.to_owned(),
        title: format!("Check of {id}"),
        verdict,
        detail: format!("seen at {id}"),
        advice: advice.map(str::to_owned),
        commands: advice.map(|_| format!("look-at {id}")).into_iter().collect(),
        group: CheckGroup::ThisComputer,
        took_micros: None,
    };
    fake.set_doctor(&[check("clock", Verdict::Ok, None), check("x", Verdict::Skipped, None)]);
    let ran = fake.run(&["doctor"]).ends(0);
    let ran = ran.says("ok  Background service").says("posternd 0.1.0 runs as process 42").says("--  Check of x");
    ran.says("All is well.");
    let sick = [check("clock", Verdict::Failed, Some("set the clock")), check("files", Verdict::Ok, None)];
    fake.set_doctor(&sick);
    fake.run(&["doctor"])
        .ends(1)
        .says("XX  Check of clock")
        .says("do: set the clock")
        .says("look: look-at clock")
        .says("1 check failed.");
    let json = fake.run(&["doctor", "--json"]).ends(1).json();
    let ids: Vec<_> = json["checks"].as_array().unwrap().iter().map(|check| check["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["service", "autostart", "clock", "files"]);
    assert_eq!(json["checks"][2], json!(sick[0]));
}

#[test]
fn doctor_says_what_is_wrong_with_the_service_itself() {
    let fake = Fake::start();
    fake.refuse("POST /v1/doctor/stream", 503, "stopping", "posternd is stopping");
    fake.run(&["doctor"]).ends(1).says("ok  Background service").says("posternd is stopping");
}

#[test]
fn another_port_is_chosen_and_the_assigned_one_is_taken_again() {
    let fake = Fake::start();
    let mut chosen = resource(1, "orders-db", Kind::Postgres, 5433, listening(5433));
    (chosen.port_override, chosen.assigned_port) = (Some(5433), Some(15432));
    fake.answer("POST /v1/override", 200, json!(chosen));
    let ran = fake.run(&["override", "orders-db", "5433"]).ends(0);
    assert_eq!(ran.out, "orders-db is at 127.0.0.1:5433 instead of port 15432\n  try: psql -h 127.0.0.1 -p 5433\n");
    let assigned = resource(1, "orders-db", Kind::Postgres, 15432, Connection::Disconnected);
    fake.answer("POST /v1/override", 200, json!(assigned));
    fake.run(&["override", "orders-db", "--clear"]).ends(0).says("orders-db will be at 127.0.0.1:15432, as assigned");
    let calls: Vec<_> = fake.calls().into_iter().map(|(_, body)| body).collect();
    assert_eq!(calls, [json!({ "resource": RESOURCE_IDS[1], "port": 5433 }), json!({ "resource": RESOURCE_IDS[1] })]);
    for usage in [&["override", "orders-db"][..], &["override", "orders-db", "1", "--clear"], &["override"]] {
        fake.run(usage).ends(2);
    }
    fake.run(&["override", "orders-db", "70000"]).ends(8).warns("70000 cannot be used in loopback mode");
    for bad in ["abc", "1.5", "", "99999999999999999999"] {
        let ran = fake.run(&["override", "orders-db", bad]).ends(2).warns(&format!("'{bad}' for '[PORT]'"));
        ran.warns("a port is a number: from 1024 to 64999").warns("--clear");
    }
    let problem = json!({ "status": 409, "code": "port_taken", "title": "Port 10022 is taken by shell",
        "violations": [{ "field": "port", "value": "10022", "rule": "must be free at 127.0.0.1: resource shell has it" }] });
    fake.answer("POST /v1/override", 409, problem);
    let ran = fake.run(&["override", "orders-db", "10022"]).ends(8);
    assert!(ran.err.contains("port = \"10022\": must be free at 127.0.0.1: resource shell has it"), "{}", ran.err);
}

#[test]
fn the_key_is_kept_where_it_is_said() {
    let fake = Fake::start();
    fake.answer("POST /v1/key-storage", 200, json!(Status { key_storage: KeyStorage::Memory, ..status() }));
    fake.run(&["key-storage", "memory"]).ends(0).says("in memory only");
    assert_eq!(fake.calls(), [("POST /v1/key-storage".to_owned(), json!({ "storage": "memory" }))]);
    let missing = Cause::KeyringMissing { reason: "no session bus".to_owned() }.problem(409);
    fake.answer("POST /v1/key-storage", 409, json!(missing));
    fake.run(&["key-storage", "keyring"]).ends(8).warns("there is no keyring");
    fake.run(&["key-storage", "cloud"]).ends(2);
}

#[test]
fn the_log_is_printed_or_written_into_a_new_private_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let fake = Fake::start();
    let lines = vec!["one res-1".to_owned(), "two".to_owned()];
    let export = LogExport { redaction: Redaction::Pseudonyms, lines, replaced: 1, forgotten: 0 };
    fake.answer("POST /v1/logs", 200, json!(export));
    assert_eq!(fake.run(&["logs"]).ends(0).out, "one res-1\ntwo\n");
    fake.run(&["logs", "--redact", "strict"]).ends(0);
    fake.run(&["logs", "--redact", "all"]).ends(2);
    let redactions: Vec<_> = fake.calls().into_iter().map(|(_, body)| body["redaction"].clone()).collect();
    assert_eq!(redactions, [json!("pseudonyms"), json!("strict")]);
    let file = fake.home.path().join("export.log");
    let path = file.to_str().unwrap();
    fake.run(&["logs", "--output", path]).ends(0).says("export.log holds 2 lines; 1 words replaced");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one res-1\ntwo\n");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    fake.run(&["logs", "--output", path]).ends(1).warns("cannot write");
}

#[test]
fn doctor_is_of_use_without_a_service() {
    let home = tempfile::tempdir().unwrap();
    let ran = Invocation::new(home.path(), &["doctor"]).run("").ends(3);
    ran.says("XX  Background service").says("do: start it with `postern service run`");
    let json = Invocation::new(home.path(), &["doctor", "--json"]).run("").ends(3).json();
    assert_eq!(json["checks"][0]["verdict"], "failed");
}

#[test]
fn both_versions_are_shown() {
    let fake = Fake::start();
    let ours = env!("CARGO_PKG_VERSION");
    fake.run(&["version"]).ends(0).says(&format!("postern   {ours}\n")).says("posternd  0.1.0 (process 42)");
    let json = fake.run(&["version", "--json"]).ends(0).json();
    assert_eq!(json, json!({ "postern": ours, "posternd": "0.1.0", "local_api": 1 }));
    let home = tempfile::tempdir().unwrap();
    Invocation::new(home.path(), &["version"]).run("").ends(0).says("posternd  is not running");
}

#[test]
fn nobody_elses_service_is_spoken_to() {
    use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: becoming another user needs root");
        return;
    }
    let fake = Fake::start();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // The program must be where another user can run it.
    let folder = tempfile::tempdir().unwrap();
    let postern = folder.path().join("postern");
    std::fs::copy(POSTERN, &postern).unwrap();
    open(folder.path(), 0o755);
    let as_nobody = || {
        let mut invocation = fake.command(&["connect", "--all"]);
        let mut command = std::process::Command::new(&postern);
        command.args(["connect", "--all"]).env_clear().env("POSTERN_HOME", fake.home.path()).uid(65534).gid(65534);
        invocation.command = command;
        invocation.run("")
    };
    open(fake.home.path(), 0o700);
    as_nobody().ends(3).warns("is not yours").warns("you may not open it");
    open(fake.home.path(), 0o755);
    open(&fake.paths.socket(), 0o777);
    as_nobody().ends(3).warns("runs as uid 0, you are uid 65534; nothing was sent to it");
    assert!(fake.calls().is_empty());
}
