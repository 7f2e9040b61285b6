use std::collections::BTreeMap;

use postern_proto::id::{AccountId, StreamId};
use proptest::prelude::*;
use ulid::Ulid;

use super::*;

fn start(device: u128) -> SessionStart {
    SessionStart {
        stream: StreamId::from_ulid(Ulid(1)),
        account: AccountId::from_ulid(Ulid(1)),
        device: DeviceId::from_ulid(Ulid(device)),
        resource: ResourceId::from_ulid(Ulid(1)),
        resource_name: "db".into(),
        resource_tags: BTreeMap::from([("env".into(), "prod".into())]),
        grant: "rol_1".into(),
        client: "127.0.0.1:1".parse().unwrap(),
        target: "10.0.0.1:5432".into(),
        prepared: None,
    }
}

/// Prepared for so many sessions as record `seq`.
fn put(held: &mut Preparations, seq: u64, start: &SessionStart, sessions: u32, now: Instant) -> Option<Settlement> {
    held.put(seq, preparation(start, sessions, "boot"), now)
}

#[test]
fn a_session_begins_with_a_durable_preparation_that_says_the_same_and_with_no_other() {
    let (mut held, now) = (Preparations::default(), Instant::now());
    put(&mut held, 7, &start(1), 8, now);
    assert_eq!(held.take(&start(1), 6, now), None, "not durable yet");
    let base = start(1);
    let others = [
        start(2),
        SessionStart { account: AccountId::from_ulid(Ulid(2)), ..base.clone() },
        SessionStart { resource: ResourceId::from_ulid(Ulid(2)), ..base.clone() },
        SessionStart { resource_name: "other".into(), ..base.clone() },
        SessionStart { resource_tags: BTreeMap::new(), ..base.clone() },
        SessionStart { grant: "rol_2".into(), ..base.clone() },
        SessionStart { target: "10.0.0.2:5432".into(), ..base.clone() },
    ];
    for other in others {
        assert_eq!(held.take(&other, 7, now), None, "{other:?}");
    }
    let elsewhere = SessionStart { client: "127.0.0.2:9".parse().unwrap(), ..base };
    assert_eq!(held.take(&elsewhere, 7, now), Some(7));
}

#[test]
fn no_more_sessions_begin_than_were_prepared_for() {
    let (mut held, now) = (Preparations::default(), Instant::now());
    put(&mut held, 1, &start(1), 2, now);
    put(&mut held, 2, &start(1), 1, now);
    let mut taken: Vec<_> = (0..5).filter_map(|_| held.take(&start(1), 9, now)).collect();
    taken.sort_unstable();
    assert_eq!(taken, [1, 1, 2]);
}

#[test]
fn more_are_prepared_for_in_a_hurry_and_fewer_when_it_is_calm() {
    let (mut held, mut now) = (Preparations::default(), Instant::now());
    let mut seq = 0;
    let mut round = |held: &mut Preparations, pause: Duration| {
        let sessions = held.wish(&start(1), now).unwrap();
        seq += 1;
        put(held, seq, &start(1), sessions, now);
        assert_eq!(held.wish(&start(1), now), None, "there are enough");
        now += pause;
        while held.wish(&start(1), now).is_none() {
            held.take(&start(1), seq, now).unwrap();
        }
        sessions
    };
    let hurry: Vec<_> = (0..10).map(|_| round(&mut held, Duration::from_millis(1))).collect();
    assert_eq!(hurry, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
    let calm: Vec<_> = (0..6).map(|_| round(&mut held, CALM)).collect();
    assert_eq!(calm, [256, 64, 16, 4, 1, 1]);
}

#[test]
fn what_is_not_used_is_given_up_and_a_device_that_was_there_lately_keeps_one_session() {
    let (mut held, now) = (Preparations::default(), Instant::now());
    put(&mut held, 1, &start(1), 64, now);
    held.take(&start(1), 1, now).unwrap();
    assert_eq!(held.sweep(now + LEISURE / 2), (vec![], vec![]));
    let (settled, smaller) = held.sweep(now + LEISURE);
    assert_eq!(settled, [settlement(1, &preparation(&start(1), 64, "boot"), 0)]);
    assert_eq!(smaller, [preparation(&start(1), 1, "boot")]);
    put(&mut held, 2, &start(1), 1, now + LEISURE);
    assert_eq!(held.sweep(now + LEISURE * 2), (vec![], vec![]));
    let (settled, smaller) = held.sweep(now + UNUSED);
    assert_eq!((settled.len(), smaller.len()), (1, 0));
    assert_eq!(held.take(&start(1), 9, now + UNUSED), None);
}

#[test]
fn when_the_file_is_full_those_in_use_are_prepared_for_in_the_next() {
    let (mut held, now) = (Preparations::default(), Instant::now());
    put(&mut held, 1, &start(1), 4, now);
    put(&mut held, 2, &start(2), 8, now);
    held.take(&start(2), 2, now + CALM).unwrap();
    assert_eq!(held.move_on(now + CALM), [preparation(&start(2), 8, "boot")]);
    assert_eq!(held.take(&start(2), 9, now), None);
}

proptest! {
    /// Whatever happens: each begins with a preparation that was written and durable, and never too many with one.
    #[test]
    fn every_session_is_covered(steps in prop::collection::vec((0_u8..6, 0_u128..3, 0_u64..30_000), 1..200)) {
        let (mut held, mut now) = (Preparations::default(), Instant::now());
        let (mut seq, mut durable) = (0, 0);
        let mut written: HashMap<u64, (Preparation, u32)> = HashMap::new();
        for (what, device, pause) in steps {
            now += Duration::from_millis(pause);
            let start = start(device);
            match what {
                0 => durable = seq,
                1 => {
                    let (settled, smaller) = held.sweep(now);
                    for settlement in settled {
                        prop_assert!(written.remove(&settlement.prepared).is_some(), "settled twice");
                    }
                    for content in smaller {
                        seq += 1;
                        written.insert(seq, (content.clone(), 0));
                        held.put(seq, content, now);
                    }
                }
                2 => if let Some(sessions) = held.wish(&start, now) {
                    prop_assert!(0 < sessions && sessions <= MAX_SESSIONS);
                    seq += 1;
                    let content = preparation(&start, sessions, "boot");
                    written.insert(seq, (content.clone(), 0));
                    if let Some(old) = held.put(seq, content, now) {
                        prop_assert!(written.remove(&old.prepared).is_some());
                    }
                },
                _ => if let Some(taken) = held.take(&start, durable, now) {
                    prop_assert!(taken <= durable);
                    let (content, begun) = written.get_mut(&taken).expect("written and not settled");
                    *begun += 1;
                    prop_assert!(*begun <= content.sessions && content.device == start.device);
                },
            }
        }
    }
}
