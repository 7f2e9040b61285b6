//! Text for people: nothing in it drives the terminal, and quantities are short.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

pub(crate) use postern_local_api::span::spell as span;
use postern_proto::time::UnixMillis;
use time::{OffsetDateTime, UtcDateTime, format_description::well_known::Rfc3339};

/// Makes text of unknown origin harmless: control characters (also the C1 ones), marks that turn the direction of
/// writing, and line separators become visible escapes. A name can neither drive a terminal nor forge a line.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => cleaned.push_str("\\n"),
            '\r' => cleaned.push_str("\\r"),
            '\t' => cleaned.push_str("\\t"),
            c if is_dangerous(c) => {
                let _ = write!(cleaned, "\\u{{{:x}}}", u32::from(c));
            }
            c => cleaned.push(c),
        }
    }
    Cow::Owned(cleaned)
}

/// The same for JSON text, where such characters can only stand inside strings: they become `\uXXXX`, which any reader
/// takes for the same string.
pub(crate) fn clean_json(json: &str) -> Cow<'_, str> {
    // Line ends and indentation of the JSON itself are no part of a string.
    let inside = |c: char| c != '\n' && is_dangerous(c);
    if !json.chars().any(inside) {
        return Cow::Borrowed(json);
    }
    let mut cleaned = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if inside(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(cleaned, "\\u{unit:04x}");
            }
        } else {
            cleaned.push(c);
        }
    }
    Cow::Owned(cleaned)
}

fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// `0 B`, `17 KiB`, `1.4 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = "KiB";
    for next in UNITS.into_iter().skip(1) {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// What is left of a time, to the second.
pub(crate) fn countdown(left: Duration) -> String {
    match left.as_secs() {
        seconds @ 60..3600 if !seconds.is_multiple_of(60) => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => span(left),
    }
}

/// `2026-11-21 01:02:03Z`: sorts, and says which clock it is of.
pub(crate) fn instant(at: UnixMillis) -> String {
    let nanos = i128::from(at.0).saturating_mul(1_000_000);
    let Ok(at) = UtcDateTime::from_unix_timestamp_nanos(nanos) else { return at.to_string() };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// `2026-12-24` (its first moment, UTC), `2026-12-24 18:00`, `2026-12-24T18:00Z`, or RFC 3339 with any offset.
pub(crate) fn parse_instant(text: &str) -> Option<UnixMillis> {
    let (date, time) = text.trim().split_once(['T', 't', ' ']).unwrap_or_else(|| (text.trim(), "00:00:00Z"));
    let at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at_checked(at)?;
    let seconds = if clock.matches(':').count() == 1 { ":00" } else { "" };
    let zone = if zone.is_empty() { "Z" } else { zone };
    let at = OffsetDateTime::parse(&format!("{date}T{clock}{seconds}{zone}"), &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(UnixMillis)
}

/// The wall clock.
pub(crate) fn now() -> UnixMillis {
    UnixMillis(u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or_default())
}

/// An error of the system without its number, which tells a person nothing: `Connection refused (os error 111)`.
pub(crate) fn without_os_code(error: &str) -> Cow<'_, str> {
    const MARK: &str = " (os error ";
    let mut rest = error;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(MARK) {
        let Some((number, behind)) = after.split_once(')') else { break };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            break;
        }
        kept.push_str(before);
        rest = behind;
    }
    if kept.is_empty() { Cow::Borrowed(error) } else { Cow::Owned(kept + rest) }
}

/// `1 stream`, `2 streams`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Joins alternatives for a sentence: `a`, `a or b`, `a, b or c`.
pub(crate) fn alternatives(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_shown_instead_of_being_obeyed() {
        assert_eq!(clean("a\x1b[31mb\r\nc\u{9b}2J\u{202e}"), "a\\u{1b}[31mb\\r\\nc\\u{9b}2J\\u{202e}");
        assert!(matches!(clean("plain – naïve 日本 🙂"), Cow::Borrowed(_)));
    }

    #[test]
    fn numbers_of_system_errors_are_left_out() {
        assert_eq!(without_os_code("a: Refused (os error 111); b: Gone (os error 2)"), "a: Refused; b: Gone");
        for same in ["fine", "odd (os error x)", "cut (os error 1", ""] {
            assert_eq!(without_os_code(same), same);
        }
    }

    #[test]
    fn quantities_are_short() {
        let sizes =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (17 * 1024, "17 KiB"), (1_500_000_000, "1.4 GiB")];
        for (count, text) in sizes {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16 EiB");
    }

    #[test]
    fn instants_are_in_utc_and_never_fail() {
        assert_eq!(instant(UnixMillis(1_795_224_000_000)), "2026-11-21 01:20:00Z");
        assert_eq!(instant(UnixMillis(u64::MAX)), u64::MAX.to_string());
    }

    #[test]
    fn instants_are_read_in_the_usual_spellings() {
        let at = |text| parse_instant(text).map(instant);
        assert_eq!(at("2026-12-24").unwrap(), "2026-12-24 00:00:00Z");
        assert_eq!(at("2026-12-24 18:00").unwrap(), "2026-12-24 18:00:00Z");
        assert_eq!(at("2026-12-24T18:00Z").unwrap(), "2026-12-24 18:00:00Z");
        assert_eq!(at("2026-12-24T18:00:30+02:00").unwrap(), "2026-12-24 16:00:30Z");
        for bad in ["", "tomorrow", "2026-13-01", "2026-12-24T", "1969-01-01", "2026-12-24T18"] {
            assert_eq!(parse_instant(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_control_character_survives(text in any::<String>()) {
            prop_assert!(!clean(&text).chars().any(is_dangerous));
        }

        #[test]
        fn cleaned_json_says_the_same(text in any::<String>()) {
            let json = serde_json::to_string_pretty(&[&text]).unwrap();
            let cleaned = clean_json(&json);
            prop_assert!(!cleaned.replace('\n', "").chars().any(is_dangerous));
            let read: Vec<String> = serde_json::from_str(&cleaned).unwrap();
            prop_assert_eq!(read, vec![text]);
        }
    }
}
