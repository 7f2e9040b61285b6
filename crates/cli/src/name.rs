//! Finding what a person named.

use crate::{exit::Exit, failure::Failure, text};

/// How many suggestions are made at most.
const SUGGESTIONS: usize = 3;
/// How alike (Jaro-Winkler, 0 to 1) a name must be to be suggested. 0.8 takes typing errors of short names and leaves
/// out names that merely begin alike.
const ALIKE: f64 = 0.8;

/// The names among `known` that `wanted` may have meant, best first.
pub(crate) fn similar<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let contained = wanted.len() >= 3 && lower.contains(&wanted);
            let score = strsim::jaro_winkler(&wanted, &lower).max(if contained { ALIKE } else { 0.0 });
            (score >= ALIKE).then_some((score, name))
        })
        .collect();
    scored.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.cmp(y)));
    scored.into_iter().take(SUGGESTIONS).map(|(_, name)| format!("{name:?}")).collect()
}

/// `there is no resource "ordrs"`, with what may have been meant.
pub(crate) fn not_found<'a>(noun: &str, wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Failure {
    let failure = Failure::new(Exit::NotFound, format!("there is no {noun} {wanted:?}"));
    let similar = similar(wanted, known);
    if similar.is_empty() { failure } else { failure.next(format!("did you mean {}?", text::alternatives(&similar))) }
}

/// The one of `items` that `wanted` names: by its id, by its exact name, or by its name in another case when that is
/// clear.
pub(crate) fn find<'a, T>(
    noun: &str,
    wanted: &str,
    items: &'a [T],
    id: impl Fn(&T) -> String,
    name: impl Fn(&T) -> &str,
) -> Result<&'a T, Failure> {
    if let Some(item) = items.iter().find(|item| id(item) == wanted || name(item) == wanted) {
        return Ok(item);
    }
    let lower = wanted.to_lowercase();
    let mut loose = items.iter().filter(|item| name(item).to_lowercase() == lower);
    match (loose.next(), loose.next()) {
        (Some(item), None) => Ok(item),
        _ => Err(not_found(noun, wanted, items.iter().map(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["orders-db", "Payments", "payments-eu", "grafana", "GRAFANA"];

    fn find_name(wanted: &str) -> Result<&'static str, Failure> {
        find("resource", wanted, &NAMES, |name| format!("id-{name}"), |name| name).copied()
    }

    #[test]
    fn a_thing_is_found_by_id_by_name_and_by_a_clear_name_in_another_case() {
        assert_eq!(find_name("id-grafana").unwrap(), "grafana");
        assert_eq!(find_name("GRAFANA").unwrap(), "GRAFANA");
        assert_eq!(find_name("payments").unwrap(), "Payments");
    }

    #[test]
    fn an_unclear_name_is_not_guessed() {
        assert_eq!(find_name("Grafana").unwrap_err().exit, Exit::NotFound);
        assert_eq!(find_name("pay").unwrap_err().exit, Exit::NotFound);
    }

    #[test]
    fn a_typing_error_is_met_with_what_was_meant() {
        assert_eq!(similar("ordersdb", NAMES).first().unwrap(), "\"orders-db\"");
        assert_eq!(similar("paymnets", NAMES), ["\"Payments\"", "\"payments-eu\""]);
        assert_eq!(similar("eu", NAMES), Vec::<String>::new());
        assert!(similar("zzzz", NAMES).is_empty());
    }
}
