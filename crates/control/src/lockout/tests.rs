use proptest::prelude::*;

use super::*;

fn name(text: &str) -> NameKey {
    NameKey::of(text)
}

fn fail(lockout: &mut Lockout, who: &str, now: Instant) -> Admission {
    let admission = lockout.begin(name(who), now);
    if admission == Admission::Try {
        lockout.finish(name(who), Outcome::Failure, now);
    }
    admission
}

#[test]
fn the_fifth_failure_locks_for_five_minutes() {
    let (mut lockout, start) = (Lockout::default(), Instant::now());
    for _ in 0..FAILURES {
        assert_eq!(fail(&mut lockout, "a", start), Admission::Try);
    }
    assert_eq!(fail(&mut lockout, "a", start + LOCK / 2), Admission::Locked { left: LOCK / 2 });
    assert_eq!(fail(&mut lockout, "b", start + LOCK / 2), Admission::Try);
    assert_eq!(fail(&mut lockout, "a", start + LOCK), Admission::Try);
}

#[test]
fn a_right_password_clears_the_failures_before_it() {
    let (mut lockout, now) = (Lockout::default(), Instant::now());
    for _ in 0..FAILURES - 1 {
        fail(&mut lockout, "a", now);
    }
    assert_eq!(lockout.begin(name("a"), now), Admission::Try);
    lockout.finish(name("a"), Outcome::Success, now);
    for _ in 0..FAILURES {
        assert_eq!(fail(&mut lockout, "a", now), Admission::Try);
    }
    assert!(matches!(fail(&mut lockout, "a", now), Admission::Locked { .. }));
}

#[test]
fn parallel_tries_are_no_more_than_five() {
    let (mut lockout, now) = (Lockout::default(), Instant::now());
    let admitted = (0..1000).filter(|_| lockout.begin(name("a"), now) == Admission::Try).count();
    assert_eq!(admitted, 5);
    assert_eq!(lockout.begin(name("a"), now), Admission::Wait);
    lockout.finish(name("a"), Outcome::Unknown, now);
    assert_eq!(lockout.begin(name("a"), now), Admission::Try);
    for _ in 0..FAILURES {
        lockout.finish(name("a"), Outcome::Failure, now);
    }
    assert!(matches!(lockout.begin(name("a"), now), Admission::Locked { .. }));
}

#[test]
fn a_success_beside_failures_does_not_open_a_lock() {
    let (mut lockout, now) = (Lockout::default(), Instant::now());
    for _ in 0..FAILURES - 1 {
        fail(&mut lockout, "a", now);
    }
    assert_eq!(lockout.begin(name("a"), now), Admission::Try);
    lockout.finish(name("a"), Outcome::Failure, now);
    lockout.finish(name("a"), Outcome::Success, now);
    assert!(matches!(lockout.begin(name("a"), now), Admission::Locked { .. }));
}

#[test]
fn a_flood_of_names_forgets_locked_ones_last() {
    let (mut lockout, now) = (Lockout::with_capacity(10), Instant::now());
    for _ in 0..FAILURES {
        fail(&mut lockout, "victim", now);
    }
    for i in 0..1000 {
        fail(&mut lockout, &i.to_string(), now + Duration::from_millis(i));
        assert!(lockout.entries.len() <= 10);
    }
    assert!(matches!(lockout.begin(name("victim"), now + LOCK / 2), Admission::Locked { .. }));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    Finish(Outcome),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Begin),
        1 => Just(Step::Finish(Outcome::Failure)),
        1 => Just(Step::Finish(Outcome::Unknown)),
    ]
}

proptest! {
    /// Failures of one lock may end late and those of the next come right after it, but ten never fit into one lock.
    #[test]
    fn no_ten_wrong_tries_fit_into_one_lock(steps in prop::collection::vec((0u64..120, step()), 1..200)) {
        let (mut lockout, mut now) = (Lockout::default(), Instant::now());
        let (mut pending, mut wrong) = (0, Vec::new());
        for (seconds, step) in steps {
            now += Duration::from_secs(seconds);
            match step {
                Step::Begin => pending += u32::from(lockout.begin(name("a"), now) == Admission::Try),
                Step::Finish(outcome) if pending > 0 => {
                    pending -= 1;
                    lockout.finish(name("a"), outcome, now);
                    wrong.extend((outcome == Outcome::Failure).then_some(now));
                }
                Step::Finish(_) => {}
            }
        }
        for ten in wrong.windows(2 * FAILURES as usize) {
            prop_assert!(ten[ten.len() - 1].duration_since(ten[0]) >= LOCK);
        }
    }
}
