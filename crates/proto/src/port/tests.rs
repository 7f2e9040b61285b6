use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn set(text: &str) -> PortSet {
    text.parse().unwrap()
}

#[test]
fn ports_and_ranges_are_read_and_written_in_one_form() {
    for (text, canonical) in [
        ("", ""),
        (" ", ""),
        ("5432", "5432"),
        ("7000-7005, 5432", "5432,7000-7005"),
        ("1-3,4,6-5000,5000-65535", "1-4,6-65535"),
        ("7000 - 7005", "7000-7005"),
        ("80,80,80-80", "80"),
        ("65535,65534", "65534-65535"),
    ] {
        assert_eq!(set(text).to_string(), canonical, "{text:?}");
    }
}

#[test]
fn what_lists_no_ports_is_refused_with_the_entry_that_is_wrong() {
    for (text, entry) in
        [("0", "0"), ("80,", ""), ("80,x", "x"), ("65536", "65536"), ("1-2-3", "1-2-3"), ("+80", "+80"), ("-1", "-1")]
    {
        assert_eq!(text.parse::<PortSet>(), Err(PortSetError::Form(entry.to_owned())), "{text:?}");
    }
    assert_eq!("7005-7000".parse::<PortSet>(), Err(PortSetError::Backwards { first: 7000, last: 7005 }));
    let many = |count: u16| (1..=count).map(|port| (2 * port).to_string()).collect::<Vec<_>>().join(",");
    assert!(many(64).parse::<PortSet>().is_ok());
    assert_eq!(many(65).parse::<PortSet>(), Err(PortSetError::TooMany));
}

#[test]
fn in_json_a_set_is_a_list_of_texts() {
    assert_eq!(serde_json::to_string(&set("5432,7000-7005")).unwrap(), r#"["5432","7000-7005"]"#);
    assert_eq!(serde_json::from_str::<PortSet>(r#"["7000-7005","5432"]"#).unwrap(), set("5432,7000-7005"));
    for bad in [r#"["x"]"#, r#""80""#, "[0]", r#"["0"]"#] {
        assert!(serde_json::from_str::<PortSet>(bad).is_err(), "{bad}");
    }
}

fn ranges() -> impl Strategy<Value = Vec<(u16, u16)>> {
    let port = || prop_oneof![1u16..40, 65500u16..=65535, 1u16..=65535];
    prop::collection::vec((port(), port()).prop_map(|(a, b)| (a.min(b), a.max(b))), 0..12)
}

fn text_of(ranges: &[(u16, u16)]) -> String {
    ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(",")
}

fn ports_of(ranges: &[(u16, u16)]) -> BTreeSet<u16> {
    ranges.iter().flat_map(|(first, last)| *first..=*last).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_set_holds_exactly_what_its_text_lists(a in ranges(), b in ranges(), probe in prop::collection::vec(1u16.., 50), port in 1u16..) {
        let (left, right) = (set(&text_of(&a)), set(&text_of(&b)));
        let (ports, others) = (ports_of(&a), ports_of(&b));
        prop_assert_eq!(left.count(), ports.len());
        prop_assert_eq!(left.is_empty(), ports.is_empty());
        prop_assert_eq!(left.first(), ports.first().copied());
        let edges = a.iter().flat_map(|(first, last)| [first.saturating_sub(1), *first, *last, last.saturating_add(1)]);
        for probe in probe.into_iter().chain(edges) {
            prop_assert_eq!(left.contains(probe), ports.contains(&probe), "{}", probe);
        }
        prop_assert_eq!(left.shared(&right), ports.intersection(&others).next().copied());
        let mut more = ports;
        more.insert(port);
        prop_assert_eq!(left.with(port).count(), more.len());
    }

    #[test]
    fn equal_sets_have_one_form_and_survive_every_way(a in ranges(), rotate in 0usize..12) {
        let mut turned = a.clone();
        if !turned.is_empty() {
            turned.rotate_left(rotate % a.len());
        }
        let left = set(&text_of(&a));
        prop_assert_eq!(&left, &set(&text_of(&turned)));
        prop_assert_eq!(&left, &set(&left.to_string()));
        prop_assert_eq!(&left, &serde_json::from_str(&serde_json::to_string(&left).unwrap()).unwrap());
        let ranges: Vec<_> = left.ranges().collect();
        prop_assert!(ranges.windows(2).all(|pair| u32::from(*pair[0].end()) + 1 < u32::from(*pair[1].start())));
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "[0-9,. -]{0,40}") {
        if let Ok(read) = text.parse::<PortSet>() {
            prop_assert_eq!(&read, &set(&read.to_string()));
        }
    }
}
