use std::sync::Arc;

use postern_proto::{
    id::{OrgId, WindowId},
    resource::Tags,
    sync::NetworkSettings,
};
use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::catalogue::{NodeKind, Org};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// A midnight: that of 2026-11-21, a Saturday.
const MIDNIGHT: u64 = 20_778 * DAY;

fn window(n: u128, schedule: &str, minutes: u64) -> MaintenanceWindow {
    MaintenanceWindow {
        id: WindowId::from_ulid(Ulid(n)),
        name: format!("w{n}"),
        schedule: schedule.to_owned(),
        duration: minutes * 60,
        require_idleness: false,
        nodes: None,
        created_at: UnixMillis(0),
        revision: 1,
    }
}

fn node(n: u128, site: &str) -> Node {
    Node {
        id: NodeId::from_ulid(Ulid(n)),
        name: format!("n{n}"),
        kind: NodeKind::Gateway,
        group: String::new(),
        tags: Tags::from([("site".to_owned(), site.to_owned())]),
        advertise: None,
        spki_sha256: None,
        enrolled_at: Some(UnixMillis(1)),
        drain_ends_at: None,
        planned_drain: None,
        cluster: None,
        access_key: None,
        created_at: UnixMillis(0),
        revision: 1,
    }
}

fn catalogue(windows: impl IntoIterator<Item = MaintenanceWindow>) -> Catalogue {
    let org = Org { id: OrgId::from_ulid(Ulid(1)), name: "Example".to_owned(), epoch: "e".to_owned() };
    let mut catalogue = Catalogue::empty(org, 1, NetworkSettings::default());
    catalogue.windows = windows.into_iter().map(|window| (window.id, Arc::new(window))).collect();
    catalogue
}

#[test]
fn a_window_that_crosses_midnight_is_open_on_both_sides_of_it() {
    let late = window(1, "30 23 * * fri", 90);
    let opens_at = UnixMillis(MIDNIGHT - 30 * MINUTE);
    let opening = Opening { opens_at, closes_at: UnixMillis(MIDNIGHT + HOUR) };
    for (now, is_on) in
        [(MIDNIGHT - 31 * MINUTE, false), (MIDNIGHT - 30 * MINUTE, true), (MIDNIGHT, true), (MIDNIGHT + HOUR - 1, true)]
    {
        let now = UnixMillis(now);
        assert_eq!(late.opening(now), Some(opening), "{now}");
        assert_eq!(opening.is_on(now), is_on, "{now}");
    }
    let next = late.opening(UnixMillis(MIDNIGHT + HOUR)).unwrap();
    assert_eq!(next.opens_at, opens_at.plus(Duration::from_secs(7 * 86_400)), "it is closed at its end");
}

#[test]
fn openings_that_overlap_make_one_time_and_the_last_one_tells_the_end() {
    let often = window(1, "0,20,40 2 * * *", 30);
    let two = MIDNIGHT + 2 * HOUR;
    for (minute, end) in [(0, 30), (19, 30), (20, 50), (40, 70), (69, 70)] {
        let now = UnixMillis(two + minute * MINUTE);
        let opening = often.opening(now).unwrap();
        assert!(opening.is_on(now), "minute {minute}");
        assert_eq!(opening.closes_at, UnixMillis(two + end * MINUTE), "minute {minute}");
    }
    let after = UnixMillis(two + 70 * MINUTE);
    assert!(!often.opening(after).unwrap().is_on(after));
}

#[test]
fn of_several_windows_the_first_that_opens_counts_and_the_one_that_asks_for_less() {
    let (early, late) = (window(1, "0 2 * * *", 60), window(2, "0 4 * * *", 60));
    let strict = MaintenanceWindow { require_idleness: true, ..window(3, "0 2 * * *", 60) };
    let catalogue = catalogue([early, late, strict]);
    let at = |hours: u64, idle: bool| match plan(&catalogue, &node(1, "fra"), UnixMillis(MIDNIGHT + hours * HOUR), idle)
    {
        Begin::Now(window) => format!("{} now", window.name),
        Begin::WhenIdle(window, _) => format!("{} when idle", window.name),
        Begin::At(window, opening) => format!("{} at {}", window.name, (opening.opens_at.0 - MIDNIGHT) / HOUR),
        Begin::Never => "never".to_owned(),
    };
    assert_eq!(at(0, false), "w1 at 2");
    assert_eq!(at(2, false), "w1 now");
    assert_eq!(at(3, false), "w2 at 4");
    assert_eq!(at(5, true), "w1 at 26");
}

#[test]
fn a_window_that_asks_for_idleness_waits_for_it_as_long_as_it_is_open() {
    let strict = MaintenanceWindow { require_idleness: true, ..window(1, "0 2 * * *", 60) };
    let catalogue = catalogue([strict]);
    let node = node(1, "fra");
    let at = |minutes: u64, idle: bool| plan(&catalogue, &node, UnixMillis(MIDNIGHT + minutes * MINUTE), idle);
    assert!(matches!(at(60, true), Begin::At(..)), "idle, and not yet open");
    assert!(matches!(at(120, false), Begin::WhenIdle(..)));
    assert!(matches!(at(150, true), Begin::Now(_)));
    assert!(matches!(at(180, true), Begin::At(..)), "idle too late: the next one");
}

#[test]
fn a_window_is_for_the_nodes_that_its_filter_names() {
    let some = MaintenanceWindow { nodes: Some("role:gateway tags:site=fra".to_owned()), ..window(1, "* * * * *", 1) };
    let broken = MaintenanceWindow { nodes: Some("nobody:knows".to_owned()), ..window(2, "* * * * *", 1) };
    assert!(some.is_for(&node(1, "fra")) && !some.is_for(&node(1, "ams")));
    assert!(!broken.is_for(&node(1, "fra")));
    let mut catalogue = catalogue([some]);
    let planned = |n, site| Node { planned_drain: Some(60), ..node(n, site) };
    let nodes = [planned(1, "fra"), planned(2, "ams"), node(3, "fra")];
    catalogue.nodes = nodes.into_iter().map(|node| (node.id, Arc::new(node))).collect();
    let due = due(&catalogue, UnixMillis(MIDNIGHT), |_| false);
    assert_eq!(due, [(NodeId::from_ulid(Ulid(1)), Duration::from_secs(60))]);
    assert_eq!(plan(&catalogue, &planned(2, "ams"), UnixMillis(MIDNIGHT), true), Begin::Never);
}

proptest! {
    /// Whatever the schedule: open is within its duration after a time of the schedule, and else the next time is told.
    #[test]
    fn a_window_is_open_for_its_duration_after_each_of_its_times(
        minutes in 1_u64..1440,
        step in 1_u64..60,
        hour in 0_u64..24,
        after in 0..3 * DAY,
    ) {
        let window = window(1, &format!("*/{step} {hour} * * *"), minutes);
        let now = UnixMillis(MIDNIGHT + after);
        // Each time of the schedule from the day before on, by hand.
        let times = (0..6).flat_map(|day| {
            let start = MIDNIGHT - DAY + day * DAY + hour * HOUR;
            (0..60).filter(|minute| minute % step == 0).map(move |minute| start + minute * MINUTE)
        });
        let span = minutes * MINUTE;
        let on = times.clone().filter(|at| *at <= now.0 && now.0 < at + span).max();
        let expected = on.or_else(|| times.clone().find(|at| *at > now.0)).unwrap();
        let opening = window.opening(now).unwrap();
        prop_assert_eq!(opening.opens_at.0, expected);
        prop_assert_eq!(opening.closes_at.0, expected + span);
        prop_assert_eq!(opening.is_on(now), on.is_some());
    }
}
