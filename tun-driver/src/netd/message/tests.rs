use super::*;
use crate::interface::{MAX_QUEUES, MAX_ZONES, Zone};

fn config() -> InterfaceConfig {
    InterfaceConfig {
        subnet: "100.72.0.0/16".parse().unwrap(),
        ipv6: Some("fd12:3456:789a::/48".parse().unwrap()),
        zones: vec![Zone::new("my-org").unwrap()],
        kept_out: vec![Zone::new("control.example").unwrap()],
        queues: 2,
        mtu: 65_535,
    }
}

#[test]
fn messages_survive_the_way() {
    for body in [Request::Hello { protocol: 1 }, Request::Configure { interface: config() }, Request::Release {}] {
        let message = Message { id: 7, body };
        assert_eq!(Message::parse(&message.encode().unwrap()).unwrap(), message);
    }
}

#[test]
fn the_written_form_is_the_documented_one() {
    let text = Message { id: 1, body: Request::Hello { protocol: 1 } }.encode().unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), r#"{"id":1,"body":{"request":"hello","protocol":1}}"#);
}

#[test]
fn the_largest_wish_fits_into_a_message() {
    let label = "a".repeat(63);
    let zones = (0..MAX_ZONES).map(|number| Zone::new(&format!("{label}.{label}.{label}.{number:060}a")).ok());
    let zones: Vec<Zone> = zones.collect::<Option<_>>().unwrap();
    let interface = InterfaceConfig { zones, queues: MAX_QUEUES, ..config() };
    assert!(Message { id: u64::MAX, body: Request::Configure { interface } }.encode().is_ok());
}

#[test]
fn what_is_no_request_is_refused() {
    let cases = [
        "",
        "{}",
        "[]",
        "null",
        r#"{"id":1}"#,
        r#"{"id":-1,"body":{"request":"release"}}"#,
        r#"{"id":1,"body":{"request":"delete_everything"}}"#,
        r#"{"id":1,"body":{"request":"release","more":1}}"#,
        r#"{"id":1,"body":{"request":"release"},"more":1}"#,
        r#"{"id":1,"body":{"request":"hello","protocol":"1"}}"#,
        r#"{"id":1,"body":{"request":"configure","interface":{"subnet":"100.72.0.0","queues":1,"mtu":1500}}}"#,
        r#"{"id":1,"body":{"request":"configure","interface":{"subnet":"10.0.0.0/8","zones":["."],"queues":1,"mtu":1500}}}"#,
        r#"{"id":1,"body":{"request":"configure","interface":{"subnet":"10.0.0.0/8","queues":256,"mtu":1500}}}"#,
        r#"{"id":1,"body":{"request":"configure","interface":{"subnet":"10.0.0.0/8","queues":1,"mtu":1500,"up":"sh"}}}"#,
    ];
    for case in cases {
        assert!(Message::<Request>::parse(case.as_bytes()).is_err(), "{case}");
    }
    let long = format!(r#"{{"id":1,"body":{{"request":"release"}}}}{}"#, " ".repeat(MAX_MESSAGE));
    assert!(matches!(Message::<Request>::parse(long.as_bytes()), Err(MessageError::TooLong)));
    let deep = "[".repeat(MAX_MESSAGE - 10);
    assert!(Message::<Request>::parse(deep.as_bytes()).is_err());
}
