use postern_proto::time::UnixMillis;
use ulid::Ulid;

use super::*;

fn node(n: u64) -> NodeId {
    NodeId::from_ulid(Ulid::from_parts(n, 1))
}

fn resource(n: u64) -> ResourceId {
    ResourceId::from_ulid(Ulid::from_parts(n, 2))
}

fn unhealthy(error: &str) -> Health {
    Health::unhealthy(error)
}

fn report(board: &mut HealthBoard, from: u64, health: Health, now: Instant) -> bool {
    let report = HealthReport { resource: resource(1), health, checked_at: UnixMillis(0), connect_micros: None };
    !board.report(node(from), vec![report], |_| true, now).is_empty()
}

#[test]
fn one_gateway_that_reaches_it_makes_a_resource_healthy() {
    let (mut board, now) = (HealthBoard::default(), Instant::now());
    assert_eq!(board.health(resource(1)), Health::Unknown);
    assert!(report(&mut board, 1, unhealthy("refused"), now));
    assert_eq!(board.health(resource(1)), unhealthy("refused"));
    assert!(report(&mut board, 2, Health::Healthy, now));
    assert!(!report(&mut board, 1, unhealthy("timed out"), now + Duration::from_secs(1)));
    assert_eq!(board.health(resource(1)), Health::Healthy);
    assert!(report(&mut board, 2, unhealthy("no route"), now + Duration::from_secs(2)));
    assert_eq!(board.health(resource(1)), unhealthy("no route"));
}

#[test]
fn a_resource_is_unknown_once_its_gateway_is_gone_but_not_while_it_restarts() {
    let (mut board, now) = (HealthBoard::default(), Instant::now());
    report(&mut board, 1, Health::Healthy, now);
    board.node_went(node(1), now);
    assert!(board.sweep(|_| true, now + GRACE / 2).is_empty());
    board.node_came(node(1));
    assert!(board.sweep(|_| true, now + GRACE).is_empty());
    board.node_went(node(1), now + GRACE);
    assert_eq!(board.sweep(|_| true, now + GRACE * 2), BTreeSet::from([resource(1)]));
    assert_eq!(board.health(resource(1)), Health::Unknown);
}

#[test]
fn a_report_that_is_not_repeated_loses_its_weight() {
    let (mut board, now) = (HealthBoard::default(), Instant::now());
    report(&mut board, 1, Health::Healthy, now);
    assert!(board.sweep(|_| true, now + FRESH / 2).is_empty());
    assert_eq!(board.sweep(|_| true, now + FRESH).len(), 1);
}

#[test]
fn what_a_node_says_again_in_its_own_time_never_becomes_unknown() {
    let (mut board, begin) = (HealthBoard::default(), Instant::now());
    // A round of checks later at most: 30 s with jitter, and five to get an answer.
    let again = HEALTH_AGAIN + Duration::from_secs(40);
    for round in 0..10 {
        let now = begin + again * round;
        let changed = report(&mut board, 1, Health::Healthy, now);
        assert_eq!(changed, round == 0);
        for second in (0..again.as_secs()).step_by(5) {
            assert!(board.sweep(|_| true, now + Duration::from_secs(second)).is_empty(), "{second} s after a report");
        }
    }
}

#[test]
fn reports_on_resources_that_are_not_there_are_dropped() {
    let (mut board, now) = (HealthBoard::default(), Instant::now());
    let foreign = HealthReport {
        resource: resource(9),
        health: Health::Healthy,
        checked_at: UnixMillis(0),
        connect_micros: None,
    };
    assert!(board.report(node(1), vec![foreign], |known| known != resource(9), now).is_empty());
    assert_eq!(board.reports(resource(9)).count(), 0);
    report(&mut board, 1, Health::Healthy, now);
    board.sweep(|known| known != resource(1), now);
    assert_eq!(board.reports(resource(1)).count(), 0);
}

#[test]
fn an_error_is_short_and_holds_no_control_characters() {
    let (mut board, now) = (HealthBoard::default(), Instant::now());
    report(&mut board, 1, unhealthy(&format!("\u{1b}[31m{}", "x".repeat(1000))), now);
    let Health::Unhealthy { error, .. } = board.health(resource(1)) else { panic!("healthy") };
    assert!(error.len() <= MAX_ERROR && error.starts_with("[31m"));
}

#[test]
fn a_fresh_report_is_told_from_one_before_the_question() {
    let (mut board, asked) = (HealthBoard::default(), Instant::now());
    report(&mut board, 1, Health::Healthy, asked - Duration::from_secs(1));
    assert!(!board.has_reported(node(1), resource(1), asked));
    report(&mut board, 1, Health::Healthy, asked);
    assert!(board.has_reported(node(1), resource(1), asked));
}
