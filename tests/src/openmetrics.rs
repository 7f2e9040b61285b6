//! What Prometheus reads of a program's metrics, looked at by tests.

/// The value of a sample, by its name and labels as they are written.
pub fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// That a text has these lines, and that it ends as it must.
#[track_caller]
pub fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|have| have == *line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}
