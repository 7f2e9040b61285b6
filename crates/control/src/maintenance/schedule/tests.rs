use proptest::prelude::*;
use time::OffsetDateTime;

use super::*;

/// An instant as people write it.
fn at(text: &str) -> UnixMillis {
    let text = format!("{text}Z");
    let at = OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc3339).unwrap();
    UnixMillis(u64::try_from(at.unix_timestamp()).unwrap() * 1000)
}

fn next(schedule: &str, after: &str) -> UnixMillis {
    Schedule::read(schedule).unwrap().next(at(after)).unwrap()
}

#[test]
fn a_schedule_is_read_in_utc_and_its_next_time_lies_after() {
    for (schedule, after, expected) in [
        ("0 2 * * *", "2026-11-21T01:59:59", "2026-11-21T02:00:00"),
        ("0 2 * * *", "2026-11-21T02:00:00", "2026-11-22T02:00:00"),
        // Clocks of some places were changed in this night.
        ("30 1 * * *", "2026-10-25T00:00:00", "2026-10-25T01:30:00"),
        ("*/15 22-23 * * mon-fri", "2026-11-20T23:45:00", "2026-11-23T22:00:00"),
        ("0 0 31 dec *", "2026-11-21T00:00:00", "2026-12-31T00:00:00"),
        ("0 0 29 2 *", "2026-11-21T00:00:00", "2028-02-29T00:00:00"),
        // Either day is enough when both are given.
        ("0 0 13 * fri", "2026-11-21T00:00:00", "2026-11-27T00:00:00"),
        ("  5\t4  * * SUN ", "2026-11-21T00:00:00", "2026-11-22T04:05:00"),
    ] {
        assert_eq!(next(schedule, after), at(expected), "{schedule} after {after}");
    }
}

#[test]
fn what_is_no_schedule_is_refused_with_the_reason() {
    let now = at("2026-11-21T00:00:00");
    let refused = |text: &str| Schedule::parse(text, now).err().map(|error| error.to_string()).unwrap_or_default();
    for (text, reason) in [
        ("", "five fields"),
        ("0 2 * *", "five fields"),
        // There is no other time zone, no seconds, no year.
        ("0 2 * * * Europe/Berlin", "five fields"),
        ("0 0 2 * * *", "five fields"),
        ("@daily", "five fields"),
        ("0 2 L * *", "\"L\" is not understood"),
        ("0 2 * * 5#3", "\"5#3\" is not understood"),
        ("H 2 * * *", "\"H\" is not understood"),
        ("0 2 15W * *", "\"15W\" is not understood"),
        ("0 24 * * *", "is not a cron expression"),
        ("60 2 * * *", "is not a cron expression: value must be in range 0..=59; found 60"),
        ("0 2 * foo *", "is not a cron expression"),
        ("0 5-2 * * *", "is not a cron expression"),
        ("*/0 * * * *", "is not a cron expression"),
        ("0 0 30 feb *", "never happens"),
    ] {
        assert!(refused(text).contains(reason), "{text:?}: {:?}", refused(text));
    }
    assert_eq!(Schedule::parse(&"0,".repeat(100), now).err(), Some(ScheduleError::TooLong));
}

#[test]
fn an_instant_at_the_end_of_all_calendars_has_no_next_time() {
    let schedule = Schedule::read("0 2 * * *").unwrap();
    assert_eq!(schedule.next(UnixMillis(u64::MAX)), None);
    assert_eq!(schedule.next(LAST), None);
    assert!(schedule.next(UnixMillis(LAST.0 - 1)).is_some());
    assert!(schedule.next(UnixMillis(0)).is_some());
}

/// One field: all, one, a list, a range or a step, with the values that it stands for.
fn field(least: u8, most: u8) -> impl Strategy<Value = (String, Vec<u8>)> {
    let all: Vec<u8> = (least..=most).collect();
    let value = least..=most;
    prop_oneof![
        Just(("*".to_owned(), all.clone())),
        value.clone().prop_map(|one| (one.to_string(), vec![one])),
        (value.clone(), value.clone()).prop_map(|(one, other)| (format!("{one},{other}"), vec![one, other])),
        (value.clone(), value).prop_map(|(one, other)| {
            let (from, to) = (one.min(other), one.max(other));
            (format!("{from}-{to}"), (from..=to).collect())
        }),
        (1..=most).prop_map(move |step| {
            let values = all.iter().copied().filter(|value| (value - least).is_multiple_of(step)).collect();
            (format!("*/{step}"), values)
        }),
    ]
}

proptest! {
    /// Held against looking at each minute of a fortnight.
    #[test]
    fn the_next_time_is_the_first_minute_that_every_field_fits(
        (minute, minutes) in field(0, 59),
        (hour, hours) in field(0, 23),
        (month_day, month_days) in field(1, 31),
        (week_day, week_days) in field(0, 6),
        after in 1_600_000_000_000_u64..2_500_000_000_000,
    ) {
        let schedule = Schedule::read(&format!("{minute} {hour} {month_day} * {week_day}")).unwrap();
        let fits = |at: u64| {
            let at = OffsetDateTime::from_unix_timestamp(i64::try_from(at / 1000).unwrap()).unwrap();
            let day = month_days.contains(&at.day());
            let week = week_days.contains(&at.weekday().number_days_from_sunday());
            let either = !month_day.starts_with('*') && !week_day.starts_with('*');
            minutes.contains(&at.minute()) && hours.contains(&at.hour()) && if either { day || week } else { day && week }
        };
        let first = after - after % 60_000 + 60_000;
        let expected = (0..14 * 24 * 60).map(|minute| first + minute * 60_000).find(|at| fits(*at));
        let found = schedule.next(UnixMillis(after)).map(|at| at.0);
        match expected {
            Some(expected) => prop_assert_eq!(found, Some(expected)),
            None => prop_assert!(found.is_none_or(|found| found >= first + 14 * 24 * 60 * 60_000)),
        }
    }

    /// Nothing that somebody writes breaks it.
    #[test]
    fn any_text_is_a_schedule_or_refused(text in "[-*/,0-9a-z# ]{0,40}|\\PC{0,140}", now in 0..u64::MAX) {
        if let Ok(schedule) = Schedule::read(&text) {
            if let Some(next) = schedule.next(UnixMillis(now)) {
                prop_assert!(next.0 > now && next.0.is_multiple_of(60_000));
            }
            prop_assert_eq!(Schedule::read(&schedule.to_string()).unwrap().to_string(), schedule.to_string());
        }
    }
}
