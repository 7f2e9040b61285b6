use proptest::prelude::*;
use ulid::Ulid;

use super::*;

fn device(n: u64) -> DeviceId {
    DeviceId::from_ulid(Ulid::from_parts(n, 1))
}

#[test]
fn what_was_used_comes_back_with_time_and_each_device_has_its_own() {
    let (mut allowance, now) = (Allowance::default(), Instant::now());
    assert!(allowance.take(device(1), 1000, now));
    assert!(!allowance.take(device(1), 1, now));
    assert!(allowance.take(device(2), 1, now));
    assert!(!allowance.take(device(1), 600, now + REFILL / 2));
    assert!(allowance.take(device(1), 499, now + REFILL / 2));
    assert!(allowance.take(device(1), 1000, now + REFILL * 2));
    assert!(!allowance.take(device(3), 1001, now));
}

#[test]
fn devices_that_have_all_back_are_forgotten() {
    let (mut allowance, now) = (Allowance::default(), Instant::now());
    for n in 0..1000 {
        allowance.take(device(n), 1, now);
    }
    allowance.take(device(1), 1, now + REFILL);
    assert_eq!(allowance.used.len(), 1);
}

proptest! {
    #[test]
    fn no_hour_holds_more_than_two_bursts(steps in prop::collection::vec((0u64..600, 1usize..500), 1..200)) {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        let (mut now, mut taken) = (start, Vec::new());
        for (seconds, events) in steps {
            now += Duration::from_secs(seconds);
            if allowance.take(device(1), events, now) {
                taken.push((now, events));
            }
        }
        for (i, (begin, _)) in taken.iter().enumerate() {
            let within = taken[i..].iter().take_while(|(at, _)| *at < *begin + REFILL);
            prop_assert!(within.map(|(_, events)| events).sum::<usize>() <= 2 * BURST as usize);
        }
    }
}
