use proptest::prelude::*;

use super::*;
use crate::problem::Violation;

const TEXT: &str = "CONNECT res_01JABCDEFGHJKMNPQRSTVWXYZ0:0 HTTP/1.1\r\n\
    Host: gw.example\r\n\
    Postern-Lease: v4.public.abc-DEF_123\r\n\
    Postern-Stream: 01JABCDEFGHJKMNPQRSTVWXYZ1\r\n\r\n";

fn request() -> Request {
    Request::read(TEXT.as_bytes()).unwrap()
}

#[test]
fn a_request_is_written_as_the_design_says() {
    assert_eq!(String::from_utf8(request().write()).unwrap(), TEXT);
}

#[test]
fn a_request_for_another_port_and_host_says_so() {
    let wanted = Wanted { port: 7003, host: Some("n3.redis.internal".parse().unwrap()) };
    let text = String::from_utf8(request().wanting(wanted.clone()).write()).unwrap();
    assert_eq!(
        text,
        TEXT.replacen(":0 ", ":7003 ", 1).replace("\r\n\r\n", "\r\nPostern-Host: n3.redis.internal\r\n\r\n")
    );
    assert_eq!(Request::read(text.as_bytes()).unwrap().wanted(), &wanted);
    assert_eq!(request().wanted(), &Wanted::default());
}

#[test]
fn a_request_says_how_old_its_stream_is_in_whole_milliseconds_that_are_not_too_few() {
    let first = request().aged(Duration::ZERO);
    let text = String::from_utf8(first.write()).unwrap();
    assert_eq!(text, TEXT.replace("\r\n\r\n", "\r\nPostern-Age: 0\r\n\r\n"));
    assert_eq!(Request::read(text.as_bytes()).unwrap(), first);
    assert_eq!(request().aged(Duration::from_nanos(1)).age(), Some(Duration::from_millis(1)));
    assert_eq!(request().aged(Duration::from_millis(7)).age(), Some(Duration::from_millis(7)));
    let longest = request().aged(Duration::MAX);
    assert_eq!(Request::read(&longest.write()), Ok(longest));
    assert_eq!(request().age(), None);
}

#[test]
fn headers_that_are_not_known_are_passed_over() {
    let text = TEXT.replace("Host:", "X-Later: something new\r\nhOST:");
    assert_eq!(Request::read(text.as_bytes()), Ok(request()));
}

#[test]
fn a_request_that_could_be_read_in_two_ways_is_refused() {
    let change = |from: &str, to: &str| Request::read(TEXT.replacen(from, to, 1).as_bytes());
    let cases = [
        (change("CONNECT", "GET"), HeadError::NotConnect),
        (change("HTTP/1.1", "HTTP/1.0"), HeadError::NotConnect),
        (change("HTTP/1.1", "HTTP/2"), HeadError::NotHttp),
        (change("CONNECT", "\r\nCONNECT"), HeadError::NotHttp),
        (change(":0 ", ":01 "), HeadError::BadResource),
        (change(":0 ", ":+1 "), HeadError::BadResource),
        (change(":0 ", ":65536 "), HeadError::BadResource),
        (change(":0 ", ": "), HeadError::BadResource),
        (change(":0 ", " "), HeadError::BadResource),
        (change("Host:", "Postern-Host: A.internal\r\nHost:"), HeadError::BadValue(ASKED_HOST)),
        (change("Host:", "Postern-Host: a.internal.\r\nHost:"), HeadError::BadValue(ASKED_HOST)),
        (change("Host:", "Postern-Host: 10.0.0.1\r\nHost:"), HeadError::BadValue(ASKED_HOST)),
        (change("Host:", "Postern-Host: *.internal\r\nHost:"), HeadError::BadValue(ASKED_HOST)),
        (change("Host:", "Postern-Host:\r\nHost:"), HeadError::BadValue(ASKED_HOST)),
        (change("Host:", "Postern-Host: a\r\nPostern-Host: a\r\nHost:"), HeadError::Repeated(ASKED_HOST)),
        (change("Host:", "Postern-Age: -1\r\nHost:"), HeadError::BadValue(AGE)),
        (change("Host:", "Postern-Age:\r\nHost:"), HeadError::BadValue(AGE)),
        (change("Host:", "Postern-Age: 1000000000000\r\nHost:"), HeadError::BadValue(AGE)),
        (change("Host:", "Postern-Age: 1\r\nPostern-Age: 2\r\nHost:"), HeadError::Repeated(AGE)),
        (change("res_", "dev_"), HeadError::BadResource),
        (change("res_", "RES_"), HeadError::BadResource),
        (change("res_01JABC", "res_01jabc"), HeadError::BadResource),
        (change("Host: gw.example\r\n", ""), HeadError::Missing(HOST)),
        (change("Host:", "Host: other\r\nHost:"), HeadError::Repeated(HOST)),
        (change("Postern-Lease", "Postern-Stream"), HeadError::Repeated(STREAM)),
        (change("gw.example", "gw example"), HeadError::BadValue(HOST)),
        (change("gw.example", "gw.exämple"), HeadError::BadValue(HOST)),
        (change("gw.example", ""), HeadError::BadValue(HOST)),
        (change("v4.public.", "v4.public/"), HeadError::BadValue(LEASE)),
        (change("XYZ1", "XYZ"), HeadError::BadValue(STREAM)),
        (change("01JABCDEFGHJKMNPQRSTVWXYZ1", "01jabcdefghjkmnpqrstvwxyz1"), HeadError::BadValue(STREAM)),
        (change("Host:", "Content-Length: 0\r\nHost:"), HeadError::BadValue(LENGTH)),
        (change("Host:", "Transfer-Encoding: chunked\r\nHost:"), HeadError::BadValue(CODING)),
        (change("gw.example\r\n", "gw.example\n"), HeadError::BareLineEnd),
        (change("\r\n\r\n", "\r\n\n"), HeadError::BareLineEnd),
        (change("\r\n\r\n", "\r\n\r\nmore"), HeadError::Trailing),
        (change("\r\n\r\n", "\r\n"), HeadError::Incomplete),
        (change("Host:", "Host :"), HeadError::NotHttp),
        (change("Host: gw", "Host:\r\n gw"), HeadError::NotHttp),
        (change("gw.example", "gw\0example"), HeadError::NotHttp),
    ];
    for (index, (result, expected)) in cases.into_iter().enumerate() {
        assert_eq!(result, Err(expected), "case {index}");
    }
    let long = TEXT.replace("Host:", &format!("X: {}\r\nHost:", "x".repeat(MAX_TEXT)));
    assert_eq!(Request::read(long.as_bytes()), Err(HeadError::TooLong));
    let many = TEXT.replace("Host:", &format!("{}Host:", "X: y\r\n".repeat(MAX_HEADERS)));
    assert_eq!(Request::read(many.as_bytes()), Err(HeadError::NotHttp));
}

#[test]
fn control_characters_never_get_into_a_request() {
    for bad in ["a\r\nPostern-Lease: stolen", "a\nb", "a\u{1b}[2J", "a b", "", "\0", &"x".repeat(MAX_NAME + 1)] {
        assert!(Request::new(request().resource(), bad, "v4.public.x", request().stream()).is_err(), "{bad:?}");
        assert!(Route::new("nod_01JABCDEFGHJKMNPQRSTVWXYZ0".parse().unwrap(), bad).is_err(), "{bad:?}");
    }
    for bad in ["a\r\nHost: b", "a b", "", &"x".repeat(lease::MAX_TOKEN + 1)] {
        assert!(Request::new(request().resource(), "gw", bad, request().stream()).is_err(), "{bad:?}");
    }
}

#[test]
fn the_lease_is_not_in_the_debug_form() {
    assert!(!format!("{:?}", request()).contains("v4.public"));
}

#[test]
fn a_reply_that_is_not_understood_is_refused() {
    let problem = Problem::new(403, "denied", "Denied");
    let good = String::from_utf8(Reply::Refused(problem.into()).write()).unwrap();
    assert!(Reply::read(good.as_bytes()).is_ok());
    let change = |from: &str, to: &str| Reply::read(good.replacen(from, to, 1).as_bytes());
    let cases = [
        (change("HTTP/1.1 403", "HTTP/1.1 404"), HeadError::NoProblem),
        (change("HTTP/1.1 403", "HTTP/1.1 302"), HeadError::BadStatus),
        (change("HTTP/1.1 403", "HTTP/1.1 200"), HeadError::BadStatus),
        (change("HTTP/1.1", "HTTP/1.0"), HeadError::NotHttp),
        (change("Content-Length: ", "Content-Length: +"), HeadError::BadValue(LENGTH)),
        (change("Content-Length: ", "Content-Length: 1"), HeadError::Incomplete),
        (change("Content-Length", "Content-Size"), HeadError::Trailing),
        (change("Content-Type", "Transfer-Encoding"), HeadError::BadValue(CODING)),
        (change("{", "["), HeadError::NoProblem),
        (change("\r\n", "\n"), HeadError::BareLineEnd),
        (Reply::read(b"HTTP/1.1 200 OK\r\n\r\nx"), HeadError::Trailing),
        (Reply::read(b"HTTP/1.1 200 OK\r\n"), HeadError::Incomplete),
        (Reply::read(b"HTTP/1.1 100 Continue\r\n\r\n"), HeadError::BadStatus),
        (Reply::read(b"HTTP/1.1 403 Forbidden\r\n\r\n"), HeadError::NoProblem),
        (Reply::read(b""), HeadError::Incomplete),
    ];
    for (index, (result, expected)) in cases.into_iter().enumerate() {
        assert_eq!(result, Err(expected), "case {index}");
    }
}

#[test]
fn control_characters_of_a_problem_reach_neither_the_wire_nor_the_user() {
    let problem = Problem::new(502, "x\r\ny", "\u{1b}[2Jcleared").with_detail("a\nb");
    let text = Reply::Refused(problem.into()).write();
    let (head, body) = text.split_at(text.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4);
    assert!(!body.iter().any(u8::is_ascii_control));
    assert_eq!(head.iter().filter(|byte| **byte == b'\n').count(), 4);
    let Reply::Refused(refused) = Reply::read(&text).unwrap() else { panic!("opened") };
    assert!(!format!("{refused}{}", refused.problem.code).contains(char::is_control));
}

#[test]
fn a_status_that_does_not_refuse_is_written_as_an_internal_error() {
    let text = Reply::Refused(Problem::new(200, "odd", "Odd").into()).write();
    assert!(matches!(Reply::read(&text), Ok(Reply::Refused(refused)) if refused.problem.status == 500));
}

fn problems() -> impl Strategy<Value = Problem> {
    let text = || "[^\\p{Cc}]{0,80}";
    let violation = (text(), text(), text()).prop_map(|(field, value, rule)| Violation { field, value, rule });
    (400u16..600, text(), text(), prop::option::of("[^\\p{Cc}]{0,6000}"), prop::collection::vec(violation, 0..3))
        .prop_map(|(status, code, title, detail, violations)| Problem { status, code, title, detail, violations })
}

proptest! {
    #[test]
    fn a_request_survives_the_wire(
        (resource, stream) in any::<(u128, u128)>(),
        (host, lease) in ("[a-z0-9.:-]{1,255}", "[A-Za-z0-9._-]{1,2048}"),
        port in any::<u16>(),
        asked in prop::option::of("([a-z0-9]{1,20}\\.){0,9}[a-z]{1,20}"),
        age: Option<u32>,
    ) {
        let resource = ResourceId::from_ulid(Ulid(resource));
        let wanted = Wanted { port, host: asked.map(|host| host.parse().unwrap()) };
        let request = Request::new(resource, host, lease, StreamId::from_ulid(Ulid(stream))).unwrap().wanting(wanted);
        let request = match age {
            Some(millis) => request.aged(Duration::from_millis(millis.into())),
            None => request,
        };
        prop_assert_eq!(Request::read(&request.write()), Ok(request));
    }

    #[test]
    fn a_reply_survives_the_wire_and_fits_a_frame(problem in problems(), route: Option<u128>) {
        let route = route.map(|node| Route::new(NodeId::from_ulid(Ulid(node)), "gw.example:5000").unwrap());
        let reply = Reply::Refused(Refused { problem: problem.clone(), route: route.clone() });
        let text = reply.write();
        prop_assert!(text.len() <= MAX_TEXT);
        let Ok(Reply::Refused(read)) = Reply::read(&text) else { panic!("not read") };
        prop_assert_eq!(&read.problem.code, &problem.code);
        prop_assert_eq!(&read.problem.title, &problem.title);
        prop_assert_eq!(read.problem.status, problem.status);
        prop_assert_eq!(read.route, route);
        if serde_json::to_vec(&problem).unwrap().len() <= MAX_BODY {
            prop_assert!(read.problem == problem);
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Request::read(&text);
        let _ = Reply::read(&text);
    }

    #[test]
    fn a_request_with_one_byte_changed_is_refused_or_means_what_it_says(at in 0..TEXT.len(), byte: u8) {
        let mut text = TEXT.as_bytes().to_vec();
        text[at] = byte;
        if let Ok(read) = Request::read(&text) {
            prop_assert_eq!(Request::read(&read.write()), Ok(read));
        }
    }
}
