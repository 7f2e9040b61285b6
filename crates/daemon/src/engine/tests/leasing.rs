//! When leases are asked for, how long they serve, and what a denial means.

use super::*;

#[test]
fn leases_are_asked_for_ahead_and_renewed_before_they_end() {
    let mut world = connected();
    assert!(world.shell.leases.contains(&id(0)) && world.shell.request.is_none());
    let begun = world.now.boot;
    while world.shell.request.is_none() {
        world.run(Op::WaitForTimeout);
    }
    let waited = world.now.boot - begun;
    assert!(waited <= Duration::from_secs(600) && waited >= Duration::from_secs(500), "{waited:?}");
    assert!(world.shell.leases.contains(&id(0)), "the old one is good until the new one is there");
}

#[test]
fn a_lease_serves_on_through_the_fail_static_window_and_no_longer() {
    let mut world = connected();
    let begun = world.now.boot;
    while world.shell.leases.contains(&id(0)) {
        world.answer_leases(false, IDS);
        world.run(Op::WaitForTimeout);
    }
    let waited = world.now.boot - begun;
    assert_eq!(waited, LIFETIME + postern_proto::lease::FAIL_STATIC);
}

#[test]
fn a_kept_lease_does_not_live_longer_for_having_been_kept() {
    let mut world = World::new(7);
    world.give(signed_in(0, false, at(0)));
    world.give(Input::Access(vec![resource(0, 2000)]));
    let mut old = lease(id(0), world.now);
    old.issued_at = UnixMillis(world.now.wall.0 - 20 * 60_000);
    old.not_after = old.issued_at.plus(LIFETIME);
    world.give(Input::Connect(vec![id(0)]));
    assert!(world.shell.request.is_some(), "asked for at once");
    world.give(Input::LeasesKept(vec![(old, None)]));
    let begun = world.now.boot;
    while world.shell.leases.contains(&id(0)) {
        world.answer_leases(false, IDS);
        world.run(Op::WaitForTimeout);
    }
    assert_eq!(world.now.boot - begun, Duration::from_secs(55 * 60));
}

#[test]
fn a_denied_lease_is_not_asked_for_in_a_hurry_but_a_new_grant_is() {
    let mut world = World::new(7);
    world.give(signed_in(0, false, at(0)));
    world.give(Input::Access(vec![resource(0, 2000)]));
    world.give(Input::Connect(vec![id(0)]));
    world.answer_leases(true, 0);
    world.give(Input::LeaseNeeded(id(0)));
    world.pass(Duration::from_secs(30));
    assert!(world.shell.request.is_none());
    world.give(Input::Access(Vec::new()));
    world.give(Input::Access(vec![resource(0, 2000)]));
    assert!(world.shell.request.is_some());
}

#[test]
fn a_denial_from_before_a_new_grant_does_not_count_against_it() {
    let mut world = World::new(7);
    world.give(signed_in(0, false, at(0)));
    world.give(Input::Access(vec![resource(0, 2000)]));
    world.give(Input::Connect(vec![id(0)]));
    world.give(Input::Access(Vec::new()));
    world.give(Input::Access(vec![resource(0, 2000)]));
    world.answer_leases(true, 0);
    assert!(world.shell.denied.is_empty(), "streams wait for the next answer");
    world.pass(Duration::from_secs(1));
    assert!(world.shell.request.is_some());
    world.answer_leases(true, 0);
    assert!(world.shell.denied.contains(&id(0)));
}

#[test]
fn a_stream_that_needs_a_fresh_lease_gets_one_even_after_failures() {
    let mut world = connected();
    world.pass(Duration::from_secs(700));
    for _ in 0..10 {
        world.answer_leases(false, IDS);
        while world.shell.request.is_none() {
            world.run(Op::WaitForTimeout);
        }
    }
    world.answer_leases(false, IDS);
    world.give(Input::LeaseNeeded(id(0)));
    world.pass(Duration::from_secs(1));
    assert!(world.shell.request.is_some());
}
