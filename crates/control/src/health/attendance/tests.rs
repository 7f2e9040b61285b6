use ulid::Ulid;

use super::*;

fn nodes(numbers: &[u128]) -> BTreeSet<NodeId> {
    numbers.iter().map(|n| node(*n)).collect()
}

fn node(n: u128) -> NodeId {
    NodeId::from_ulid(Ulid(n))
}

#[test]
fn who_is_here_is_noted_at_once_and_who_is_missing_after_a_while_and_each_once() {
    let (mut roll, begin) = (Roll::default(), Instant::now());
    let at = |seconds| begin + Duration::from_secs(seconds);
    let enrolled = nodes(&[1, 2]);
    assert_eq!(roll.call(&enrolled, &nodes(&[1]), at(0)), [(node(1), Attendance::Up)]);
    assert_eq!(roll.call(&enrolled, &nodes(&[1]), at(59)), []);
    assert_eq!(roll.call(&enrolled, &nodes(&[1]), at(60)), [(node(2), Attendance::Away)], "it never came");
    assert_eq!(roll.call(&enrolled, &nodes(&[]), at(70)), []);
    assert_eq!(roll.call(&enrolled, &nodes(&[1]), at(129)), [], "a restart");
    assert_eq!(roll.call(&enrolled, &nodes(&[2]), at(130)), [(node(2), Attendance::Up)]);
    assert_eq!(roll.call(&enrolled, &nodes(&[2]), at(189)), [], "its time begins anew");
    assert_eq!(roll.call(&enrolled, &nodes(&[2]), at(190)), [(node(1), Attendance::Away)]);
    assert_eq!(roll.call(&enrolled, &nodes(&[2]), at(9999)), []);
}

#[test]
fn nothing_is_kept_of_nodes_that_are_removed() {
    let (mut roll, begin) = (Roll::default(), Instant::now());
    roll.call(&nodes(&[1, 2]), &nodes(&[1]), begin);
    assert_eq!(roll.call(&nodes(&[]), &nodes(&[1]), begin + PATIENCE), []);
    assert!(roll.noted.is_empty() && roll.missing.is_empty());
}
