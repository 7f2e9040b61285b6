//! Spans of time in words: one way for the service and for the programs that show them.

use std::time::Duration;

/// `850 ms`, `12 s`, `3 min`, `2 h 05 min`, `4 d 3 h`: at most two units, cut off behind them.
#[must_use]
pub fn spell(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86400 if minutes % 60 == 0 => format!("{hours} h"),
        3600..86400 => format!("{hours} h {:02} min", minutes % 60),
        _ if hours % 24 == 0 => format!("{days} d"),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let spans =
            [(0, "0 ms"), (59, "59 s"), (60, "1 min"), (7500, "2 h 05 min"), (86400, "1 d"), (90000, "1 d 1 h")];
        for (seconds, text) in spans {
            assert_eq!(spell(Duration::from_secs(seconds)), text);
        }
    }
}
