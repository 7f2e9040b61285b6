use postern_local_api::proto::time::UnixMillis;

use super::*;

fn id(n: u128) -> ResourceId {
    ResourceId::from_ulid(n.into())
}

fn granted(n: u128) -> News {
    News::Granted { id: id(n), name: format!("r{n}") }
}

fn lost(n: u128) -> News {
    News::Lost { id: id(n), name: format!("r{n}") }
}

fn unreachable(n: u128) -> News {
    News::Unreachable { id: id(n), name: format!("r{n}"), why: "The target refused the connection.".to_owned() }
}

fn signed_in(ends_at: u64) -> News {
    News::SignIn { ends_at: Some(ends_at), signed_in: true }
}

fn watch() -> Watch {
    let mut watch = Watch::default();
    watch.see(0, signed_in(100_000_000));
    watch
}

fn due(watch: &mut Watch, now: u64) -> Vec<Notification> {
    watch.due(now, &[], Language::English)
}

#[test]
fn access_that_came_and_went_is_told_once_each() {
    let mut watch = watch();
    watch.see(10, granted(1));
    assert_eq!(due(&mut watch, 100), [], "it is held for a moment");
    assert_eq!(watch.next_wake(), Some(10 + GATHER));
    let shown = due(&mut watch, 10 + GATHER);
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].kind, shown[0].title.as_str()), (NotificationKind::AccessGranted, "You can reach r1"));
    assert_eq!(shown[0].place, Place::Resource { id: id(1).to_string() });
    assert_eq!(due(&mut watch, 20 + GATHER), []);
    watch.see(5_000, lost(1));
    let shown = due(&mut watch, 5_000 + GATHER);
    assert_eq!((shown[0].kind, shown[0].title.as_str()), (NotificationKind::AccessLost, "Access to r1 ended"));
}

#[test]
fn a_resource_that_is_gone_for_a_moment_is_no_news() {
    let mut watch = watch();
    watch.see(10, lost(1));
    watch.see(20, granted(1));
    watch.see(30, granted(2));
    watch.see(40, lost(2));
    assert_eq!(due(&mut watch, 10_000), []);
}

#[test]
fn signing_out_is_no_loss_of_access() {
    let mut watch = watch();
    watch.see(10, lost(1));
    watch.see(20, News::SignIn { ends_at: None, signed_in: false });
    assert_eq!(due(&mut watch, 10_000), []);
}

#[test]
fn what_differs_after_a_start_is_no_news() {
    let mut watch = watch();
    watch.be_quiet(0);
    watch.see(10, granted(1));
    watch.see(20, unreachable(1));
    assert_eq!(watch.due(10_000, &[], Language::English), []);
    watch.see(QUIET, granted(2));
    assert_eq!(due(&mut watch, QUIET + GATHER).len(), 1);
}

#[test]
fn what_belongs_together_is_told_together() {
    let mut watch = watch();
    for n in 1..=3 {
        watch.see(10 * n as u64, unreachable(n));
    }
    let shown = due(&mut watch, 10_000);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].title, "3 resources cannot be reached");
    assert_eq!(shown[0].body, "r1, r2, r3");
}

#[test]
fn the_same_fault_is_not_told_again_and_again() {
    let mut watch = watch();
    let mut told = 0;
    for minute in 0..30 {
        let now = minute * 60_000;
        watch.see(now, unreachable(1));
        told += due(&mut watch, now + GATHER).len();
        watch.see(now + 30_000, News::Usable { id: id(1) });
    }
    assert_eq!(told, 3, "once in ten minutes");
}

#[test]
fn a_fault_that_passes_at_once_is_not_told() {
    let mut watch = watch();
    watch.see(10, unreachable(1));
    watch.see(20, News::Usable { id: id(1) });
    assert_eq!(due(&mut watch, 10_000), []);
}

#[test]
fn there_are_at_most_six_in_a_minute() {
    let mut watch = watch();
    let mut told = 0;
    for n in 0..20 {
        watch.see(n * 1_000, unreachable(n.into()));
        told += due(&mut watch, n * 1_000 + GATHER).len();
    }
    assert_eq!(told, MOST);
    watch.see(100_000, unreachable(99));
    assert_eq!(due(&mut watch, 101_000).len(), 1, "a minute later there is room again");
}

#[test]
fn each_kind_can_be_turned_off() {
    for kind in NotificationKind::ALL {
        let mut watch = watch();
        let update = HealthItem {
            until: None,
            code: "update_ready".to_owned(),
            severity: Severity::Warn,
            what: "Postern 0.2.0 is ready.".to_owned(),
            why: String::new(),
            remedy: String::new(),
            resource: None,
            since: UnixMillis(0),
        };
        for news in [granted(1), lost(2), unreachable(3), News::Health(update)] {
            watch.see(99_990_000, news);
        }
        watch.see(99_990_000, News::Notice { level: NoticeLevel::Error, text: "a".to_owned() });
        let kinds: Vec<_> = watch.due(99_999_000, &[kind], Language::English).into_iter().map(|n| n.kind).collect();
        assert!(!kinds.contains(&kind), "{kind:?}");
        assert_eq!(kinds.len(), 5, "the others are told: {kinds:?}");
    }
}

#[test]
fn the_end_of_the_sign_in_is_told_at_ten_and_two_minutes_and_when_it_is_there() {
    let mut watch = Watch::default();
    let end = 3_600_000;
    watch.see(0, signed_in(end));
    let mut told = Vec::new();
    while let Some(at) = watch.next_wake() {
        told.extend(due(&mut watch, at).into_iter().map(|n| ((end - at) / 60_000, n.title)));
    }
    let titles: Vec<(u64, &str)> = told.iter().map(|(left, title)| (*left, title.as_str())).collect();
    assert_eq!(titles, [(10, "Sign-in ends in 10 min"), (2, "Sign-in ends in 2 min"), (0, "Sign-in has ended")]);
}

#[test]
fn a_renewed_sign_in_counts_anew() {
    let mut watch = Watch::default();
    watch.see(0, signed_in(700_000));
    assert_eq!(due(&mut watch, 100_000).len(), 1, "ten minutes before");
    watch.see(200_000, signed_in(4_000_000));
    assert_eq!(watch.next_wake(), Some(3_400_000));
}

#[test]
fn after_sleeping_through_the_countdown_only_the_last_step_is_told() {
    let mut watch = Watch::default();
    watch.see(0, signed_in(3_600_000));
    let shown = due(&mut watch, 3_590_000);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].title, "Sign-in ends in 2 min");
}
