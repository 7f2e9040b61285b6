//! On a terminal: questions, colours, pictures that change, Ctrl-C. The terminal is that of `script` (bsdutils).

use std::time::Duration;

use serde_json::json;

use crate::support::*;

const CTRL_C: &str = "\u{3}";

#[test]
fn login_asks_for_what_is_missing_and_does_not_show_the_password() {
    let fake = Fake::start();
    fake.answer("POST /v1/login", 200, json!(status()));
    let ran = fake.command(&["login"]).run_on_terminal(&[
        Typed { after: "E-mail:", keys: "ana@example.com\r" },
        Typed { after: "Password:", keys: "correct horse battery\r" },
    ]);
    let ran = ran.ends(0).says("Signed in");
    assert!(!ran.out.contains("horse"), "{:?}", ran.out);
    let credential = json!({ "method": "password", "email": "ana@example.com", "password": "correct horse battery" });
    assert_eq!(fake.calls()[0].1["credential"], credential);
}

#[test]
fn a_one_time_password_is_replaced_right_after_the_login() {
    let fake = Fake::start();
    let mut status = status();
    if let postern_local_api::message::SignIn::SignedIn { must_change_password, .. } = &mut status.sign_in {
        *must_change_password = true;
    }
    fake.answer("POST /v1/login", 200, json!(status));
    fake.answer("POST /api/v1/password", 204, json!(null));
    let ran = fake.command(&["login", "--email", "ana@example.com"]).run_on_terminal(&[
        Typed { after: "Password:", keys: "one-time\r" },
        Typed { after: "New password:", keys: "a much longer one\r" },
        Typed { after: "The same again:", keys: "a much longer one\r" },
    ]);
    ran.ends(0).says("Your password is changed.");
    let expected = json!({ "current": "one-time", "new": "a much longer one" });
    assert_eq!(fake.calls()[1], ("POST /api/v1/password".to_owned(), expected));
}

#[test]
fn ctrl_c_at_a_question_ends_the_program_and_sends_nothing() {
    let fake = Fake::start();
    let ran = fake.command(&["login"]).run_on_terminal(&[
        Typed { after: "E-mail:", keys: "ana@example.com\r" },
        Typed { after: "Password:", keys: CTRL_C },
    ]);
    ran.ends(130);
    assert!(fake.calls().is_empty());
}

#[test]
fn a_question_that_is_ended_from_outside_leaves_the_terminal_as_it_was() {
    let fake = Fake::start();
    let asked = [Typed { after: "E-mail:", keys: "ana" }];
    let ran = fake.command(&["login"]).run_on_terminal_under("timeout --foreground --preserve-status 3", &asked);
    ran.ends(143);
    assert!(fake.calls().is_empty());
}

#[test]
fn what_takes_long_shows_a_spinner_on_a_terminal_only() {
    let fake = Fake::start();
    fake.delay(Duration::from_millis(700));
    fake.set_doctor(&[]);
    fake.command(&["doctor"]).run_on_terminal(&[]).ends(0).says("checking (0s)").says("All is well.");
    let piped = fake.run(&["doctor"]).ends(0);
    assert_eq!(piped.err, "");
}

#[test]
fn a_terminal_gets_colours_unless_they_are_not_wanted() {
    let fake = Fake::start();
    let coloured = fake.command(&["status"]).run_on_terminal(&[]).ends(0);
    assert!(coloured.out.contains("\u{1b}["), "{:?}", coloured.out);
    let plain = fake.command(&["status"]).env("NO_COLOR", "1").run_on_terminal(&[]).ends(0);
    assert!(!plain.out.contains('\u{1b}'), "{:?}", plain.out);
    let plain = fake.command(&["status", "--color", "never"]).run_on_terminal(&[]).ends(0);
    assert!(!plain.out.contains('\u{1b}'), "{:?}", plain.out);
    let json = fake.command(&["status", "--json"]).run_on_terminal(&[]).ends(0);
    assert!(!json.out.contains('\u{1b}'), "{:?}", json.out);
}

#[test]
fn watching_draws_over_itself_and_ends_with_ctrl_c() {
    let fake = Fake::start();
    fake.stream(vec![
        json!({ "seq": 1, "event": "snapshot", "status": signed_out() }),
        json!({ "seq": 2, "event": "notice", "level": "info", "text": "hello \u{1b}[2Jthere" }),
        // Changes that come together are drawn once: the first state must stand alone for a while to be seen.
        json!(3000),
    ]);
    let ran = fake
        .command(&["status", "--watch"])
        .env("NO_COLOR", "1")
        .run_on_terminal(&[Typed { after: "ana@example.com", keys: CTRL_C }]);
    let ran = ran.ends(130).says("sign in with `postern login`").says("hello \\u{1b}[2Jthere").says("Ctrl-C ends this");
    // Cursor movements are there without colours, the screen is never cleared, and no other mode was left on.
    assert!(ran.out.contains("\u{1b}[K"), "{:?}", ran.out);
    assert!(!ran.out.contains("\u{1b}[2J") && !ran.out.contains("\u{1b}[?1049h") && !ran.out.contains("\u{1b}[?25l"));
    assert!(!ran.out.contains("\u{1b}[1m"), "{:?}", ran.out);
}

#[test]
fn deleting_asks_first_and_no_is_the_answer_of_the_enter_key() {
    let fake = Fake::start();
    let role = json!({ "id": "rol_01JABCDEFGHJKMNPQRSTVWXYZ0", "name": "ops", "tags": {}, "revision": 1 });
    fake.answer("GET /api/v1/roles", 200, json!({ "items": [role], "next_cursor": null }));
    fake.answer("DELETE /api/v1/roles/rol_01JABCDEFGHJKMNPQRSTVWXYZ0", 204, json!(null));
    let deletes = || fake.calls().iter().filter(|(call, _)| call.starts_with("DELETE")).count();
    let delete = |keys| {
        let ask = Typed { after: "Delete role ops?", keys };
        fake.command(&["admin", "roles", "delete", "ops"]).env("NO_COLOR", "1").run_on_terminal(&[ask])
    };
    delete("\r").ends(0).says("Nothing was deleted.");
    assert_eq!(deletes(), 0);
    delete("y\r").ends(0).says("Deleted role");
    assert_eq!(deletes(), 1);
}
