use proptest::prelude::*;

use super::*;
use crate::dns::stub::sample::query;

fn zone(name: &str) -> Zone {
    Zone::new(name).unwrap()
}

#[test]
fn the_question_decides_by_whole_labels_whatever_its_case() {
    let query = Query::parse(&query(7, "Db.My-Org.Example", 1)).unwrap();
    assert_eq!(query.id, 7);
    assert_eq!(query.labels_in(&zone("my-org.example")), Some(2));
    assert_eq!(query.labels_in(&zone("db.my-org.example")), Some(3));
    assert_eq!(query.labels_in(&zone("org.example")), None);
    assert_eq!(query.labels_in(&zone("a.db.my-org.example")), None);
}

#[test]
fn an_answer_belongs_to_its_query_by_id_and_question() {
    let sent = query(7, "a.example", 1);
    let parsed = Query::parse(&sent).unwrap();
    let answer = refusal(&sent, NAME_ERROR);
    assert_eq!(parsed.answered_by(&answer, 7), Some(NAME_ERROR));
    assert_eq!(parsed.answered_by(&answer, 8), None, "another id");
    assert_eq!(parsed.answered_by(&refusal(&query(7, "A.eXample", 1), 0), 7), Some(0), "another case");
    assert_eq!(parsed.answered_by(&refusal(&query(7, "b.example", 1), 0), 7), None, "another name");
    assert_eq!(parsed.answered_by(&refusal(&query(7, "a.example", 28), 0), 7), None, "another type");
    assert_eq!(parsed.answered_by(&sent, 7), None, "a query is no answer");
}

#[test]
fn what_is_no_query_is_answered_or_ignored() {
    let good = query(7, "a.example", 1);
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Query::parse(&bytes).unwrap_err()
    };
    assert_eq!(Query::parse(&good[..11]).unwrap_err(), NoQuery::Ignore);
    assert_eq!(changed(2, 0x80), NoQuery::Ignore);
    assert_eq!(changed(2, 0x28), NoQuery::Reply(NOT_IMPLEMENTED), "an update");
    assert_eq!(changed(5, 2), NoQuery::Reply(FORMAT_ERROR));
    assert_eq!(changed(12, 0xc0), NoQuery::Reply(FORMAT_ERROR), "a compressed name");
    assert_eq!(Query::parse(&good[..20]).unwrap_err(), NoQuery::Reply(FORMAT_ERROR));
    assert!(!is_truncated(&refusal(&good, SERVER_FAILURE)));
}

#[test]
fn a_name_may_be_the_root_and_not_longer_than_names_are() {
    assert!(Query::parse(&query(1, "", 2)).is_ok());
    let label = "a".repeat(63);
    assert!(Query::parse(&query(1, &format!("{label}.{label}.{label}.{}", "b".repeat(61)), 1)).is_ok());
    assert!(Query::parse(&query(1, &format!("{label}.{label}.{label}.{}", "b".repeat(62)), 1)).is_err());
}

proptest! {
    #[test]
    fn any_bytes_can_be_read_and_refused(mut message in proptest::collection::vec(any::<u8>(), 0..300), like_a_query: bool) {
        if like_a_query && message.len() > 6 {
            message[2] &= 0x01;
            message[4..6].copy_from_slice(&[0, 1]);
        }
        check(&message);
    }
}

fn check(message: &[u8]) {
    crate::dns::stub::check_message(message);
}
