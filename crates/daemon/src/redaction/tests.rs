use postern_proto::time::UnixMillis;
use proptest::prelude::*;
use tracing::Level;

use super::*;

fn line(message: &str, fields: &[(&'static str, &str)]) -> Line {
    Line {
        at: UnixMillis(1_795_224_000_123),
        level: Level::INFO,
        target: "postern_daemon::shell",
        line: Some(7),
        message: message.to_owned(),
        fields: fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
    }
}

fn names() -> Names {
    let mut names = Names::default();
    names.add("res", &["orders db", "res_01JABCDEFGHJKMNPQRSTVWXYZ0"]);
    names.add("gw", &["gw-fra-1", "gw.example"]);
    names.add("user", &["Ana@example.com", "Ana"]);
    names
}

fn pseudonyms(message: &str) -> String {
    let export = export(&[line(message, &[])], 0, names(), Redaction::Pseudonyms);
    export.lines[0].split_once("shell: ").unwrap().1.to_owned()
}

#[test]
fn a_thing_has_one_stand_in_whatever_it_is_called() {
    assert_eq!(pseudonyms("Orders DB is res_01JABCDEFGHJKMNPQRSTVWXYZ0"), "res-1 is res-1");
    assert_eq!(pseudonyms("gw-fra-1 at gw.example:5000 refused"), "gw-1 at gw-1:5000 refused");
    assert_eq!(pseudonyms("Ana (ana@example.com), not Anand"), "user-1 (user-1), not Anand");
}

#[test]
fn addresses_ids_paths_and_secrets_are_known_by_their_form() {
    assert_eq!(pseudonyms("10.20.4.18:3306 and 10.20.4.18, [fd00::1]:80"), "ip-1:3306 and ip-1, ip-2:80");
    assert_eq!(pseudonyms("bo@example.org at https://control.example:8443/x"), "user-2 at https://url-1");
    assert_eq!(pseudonyms("nod_01JABCDEFGHJKMNPQRSTVWXYZ9 of uid 1000."), "gw-2 of uid uid-1.");
    let folder = concat!("/ho", "me/ana/.local/state");
    assert_eq!(pseudonyms(&format!("cannot write {folder}: full")), "cannot write path-1: full");
    assert_eq!(pseudonyms("token v4.public.eyJhbGciOiJFZERTQSJ9 in 100.64.0.0/10"), "token secret-1 in ip-1/10");
    assert_eq!(pseudonyms("db.internal.example:5432 is gone"), "host-1:5432 is gone");
    assert_eq!(pseudonyms("ana.internal.example and resource=gw-fra-1."), "host-1 and resource=gw-1.");
    assert_eq!(pseudonyms("retry 3 of 5 in 250 ms: refused"), "retry 3 of 5 in 250 ms: refused");
}

#[test]
fn fields_are_redacted_like_text() {
    let lines = [line("refused", &[("address", "10.0.0.1:80"), ("uid", "1000")]), line("10.0.0.1", &[("uid", "1000")])];
    let export = export(&lines, 3, Names::default(), Redaction::Pseudonyms);
    assert!(export.lines[0].ends_with("shell: refused address=ip-1:80 uid=uid-1"), "{}", export.lines[0]);
    assert!(export.lines[1].ends_with("shell: ip-1 uid=uid-1"), "{}", export.lines[1]);
    assert_eq!((export.replaced, export.forgotten), (4, 3));
}

#[test]
fn names_kept_means_the_line_as_it_was() {
    let line = line("Ana came", &[("count", "3")]);
    let export = export(std::slice::from_ref(&line), 0, names(), Redaction::Names);
    assert_eq!(export.lines, [line.to_string()]);
}

#[test]
fn the_strict_form_keeps_counts_and_codes() {
    let fields = [("count", "3"), ("code", "target_refused"), ("resource", "res_1"), ("cut", "x1"), ("uid", "1000")];
    let export = export(&[line("Ana came", &fields)], 0, names(), Redaction::Strict);
    assert_eq!(export.lines, ["2026-11-21T01:20:00.123Z INFO  postern_daemon::shell:7 count=3 code=target_refused"]);
}

proptest! {
    /// Whatever a line says, and whatever stands in its fields.
    #[test]
    fn nothing_of_anybody_survives_the_strict_form(
        secrets in prop::collection::vec("[a-zA-Z0-9@._:/-]{4,30}", 1..5),
        fields in prop::collection::vec((prop::sample::select(vec!["code", "count", "uid", "address", "resource"]), 0_usize..5), 0..5),
        noise in "\\PC{0,40}",
    ) {
        // What is a word of ours, or a number that is told, is no secret.
        let ours = strict(&line("", &[("code", "target_refused")]));
        let secrets: Vec<_> = secrets
            .into_iter()
            .filter(|secret| !ours.contains(secret.as_str()) && !secret.bytes().all(|byte| byte.is_ascii_digit()))
            .filter(|secret| !CODES.iter().any(|code| code.contains(secret.as_str())))
            .collect();
        let fields: Vec<_> = fields
            .iter()
            .filter_map(|(name, n)| Some((*name, secrets.get(*n)?.as_str())))
            .collect();
        let line = line(&format!("{noise} {}", secrets.join(" ")), &fields);
        let export = export(&[line], 0, Names::default(), Redaction::Strict);
        for secret in &secrets {
            prop_assert!(!export.lines[0].contains(secret.as_str()), "{secret} in {}", export.lines[0]);
        }
    }

    #[test]
    fn addresses_and_mail_addresses_and_ids_never_survive_pseudonyms(
        ip: std::net::IpAddr, user in "[a-z]{1,8}@[a-z]{1,8}\\.[a-z]{2,3}", ulid in "[0-9A-HJKMNP-TV-Z]{26}", noise in "[ a-zA-Z0-9.,]{0,30}",
    ) {
        let text = format!("{noise} {ip} {user} res_{ulid} {noise}");
        let export = export(&[line(&text, &[("peer", &format!("{ip}"))])], 0, Names::default(), Redaction::Pseudonyms);
        let told = &export.lines[0];
        prop_assert!(!told.contains(&format!(" {ip} ")) && !told.contains(&user) && !told.contains(&ulid), "{told}");
        prop_assert!(told.contains("res-1"));
    }

    #[test]
    fn the_same_name_has_the_same_stand_in_within_one_export(texts in prop::collection::vec("[a-c]{1,2}\\.internal", 1..20)) {
        let lines: Vec<_> = texts.iter().map(|text| line(text, &[])).collect();
        let export = export(&lines, 0, Names::default(), Redaction::Pseudonyms);
        let told: Vec<_> = export.lines.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
        for (a, x) in texts.iter().zip(&told) {
            for (b, y) in texts.iter().zip(&told) {
                prop_assert_eq!(a == b, x == y);
            }
        }
    }
}
