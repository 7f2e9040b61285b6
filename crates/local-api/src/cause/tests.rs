use super::*;

#[test]
fn each_cause_says_what_failed_why_and_what_to_do() {
    for cause in Cause::examples() {
        let Explanation { what, why, remedy } = cause.explain();
        for said in [&what, &why, &remedy] {
            assert!(said.ends_with('.') && !said.ends_with(".."), "{}: {said:?}", cause.code());
            assert!(
                said.len() > 4 && !said.contains("  ") && !said.contains(['!', '\n']),
                "{}: {said:?}",
                cause.code()
            );
            let lower = said.to_lowercase();
            assert!(
                !["please", "oops", "went wrong", "unknown error"].iter().any(|word| lower.contains(word)),
                "{said:?}"
            );
        }
        let is_refusal = matches!(cause, Cause::Refused(_));
        assert!(is_refusal || !what.contains("not foreseen"), "{} has no words", cause.code());
        assert!(cause.code().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", cause.code());
    }
}

#[test]
fn a_port_that_somebody_holds_is_told_with_its_holder() {
    let holder = PortHolder { uid: 1000, pid: Some(4127), program: Some("java".to_owned()) };
    let address = "127.0.0.1:18300".parse().unwrap();
    let cause = Cause::PortTaken { resource: "grafana".to_owned(), address, holder: Some(holder) };
    let Explanation { what, why, remedy } = cause.explain();
    assert_eq!(what, "grafana could not open port 18300.");
    assert_eq!(why, "java (pid 4127) holds 127.0.0.1:18300.");
    assert!(remedy.starts_with("Stop java, or choose another port."));
}

#[test]
fn what_a_gateway_said_becomes_a_cause_by_its_code() {
    let of = |status, code: &str| {
        let problem = Problem::new(status, code, "Title").with_detail("10.0.0.1:5432 does not accept the connection.");
        Cause::of_problem(&problem, "db", Some("gw-1".to_owned()), true)
    };
    assert_eq!(of(504, "target_timed_out").code(), "target_timeout");
    assert_eq!(of(403, "no_lease").code(), "denied");
    assert_eq!(of(502, "no_lease"), Cause::LeaseExpired { control_away: true });
    assert_eq!(of(502, "gateway_unreachable").code(), "gateway_away");
    assert_eq!(of(418, "teapot").code(), "teapot");
    for code in ["target_unroutable", "target_not_permitted", "dial_failed", "target_of_next_year"] {
        let cause = of(502, code);
        assert_eq!(cause.code(), code);
        let why = cause.explain().why;
        assert!(why.contains("10.0.0.1:5432") && !why.contains("Nothing listens"), "{why}");
    }
    for (code, cause) in [
        (Some("target_unroutable"), "target_unroutable"),
        (Some("target_unresolvable"), "target_unresolvable"),
        (Some("target_not_permitted"), "target_not_permitted"),
        (Some("target_refused"), "target_unhealthy"),
        (Some("target_of_next_year"), "target_unhealthy"),
        (None, "target_unhealthy"),
    ] {
        assert_eq!(Cause::of_check(code, "no way".to_owned()).code(), cause);
    }
    let refused = of(502, "target_refused").explain();
    assert_eq!(refused.what, "The target refused the connection.");
    assert_eq!(
        refused.why,
        "gw-1 says: 10.0.0.1:5432 does not accept the connection. Nothing listens there. Your access is fine."
    );
}

#[test]
fn one_definite_answer_counts_and_an_accident_does_not() {
    assert!(Cause::TargetRefused { gateway: None, detail: String::new() }.is_verdict());
    assert!(!Cause::ConnectionLost { gateway: None, detail: String::new() }.is_verdict());
}

#[test]
fn ports_are_checked_by_the_rules_of_their_mode() {
    assert_eq!(check_port(1024, false), Ok(1024));
    assert_eq!(check_port(64_999, false), Ok(64_999));
    for bad in [i64::MIN, -1, 0, 80, 1023, 65_000, 65_535, 65_536, i64::MAX] {
        assert_eq!(check_port(bad, false), Err(Cause::PortRange { port: bad, network: false }));
    }
    assert_eq!(check_port(80, true), Ok(80));
    assert!(check_port(0, true).is_err());
    assert!(check_port(65_536, true).is_err());
    let below = check_port(80, false).unwrap_err().explain();
    assert_eq!(below.what, "80 cannot be used in loopback mode.");
    assert_eq!(below.why, "Ports below 1024 belong to the system.");
    assert_eq!(below.remedy, "Use 1024 to 64999, or Virtual Networking.");
}

#[test]
fn words_of_others_become_sentences() {
    let why = |error: &str| Cause::StatusApi { error: error.to_owned() }.explain().why;
    assert_eq!(why("address in use (os error 98)"), "Address in use.");
    assert_eq!(why("https://a.example does not answer."), "https://a.example does not answer.");
    assert_eq!(why(""), "No reason was given.");
}

#[test]
fn the_sign_in_matters_more_the_less_is_left() {
    assert_eq!(Cause::SignInEnds { minutes: 15 }.severity(), Severity::Info);
    assert_eq!(Cause::SignInEnds { minutes: 10 }.severity(), Severity::Warn);
    assert!(Severity::Error > Severity::Warn && Severity::Warn > Severity::Info);
}
