//! What was measured: a value for each figure, subject and round, and what may be said of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    case::{Case, Figure, Measure},
    subject::Kind,
};

#[derive(Debug, Default)]
pub(crate) struct Results {
    values: BTreeMap<(Figure, Kind), BTreeMap<Round, f64>>,
    failures: Vec<Failure>,
    absences: Vec<(Kind, String)>,
}

type Round = usize;

/// A measurement that gave nothing, or less than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) case: Case,
    pub(crate) subject: Kind,
    pub(crate) round: Round,
    pub(crate) reason: String,
}

/// The values of all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) runs: usize,
}

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Results {
    pub(crate) fn record(&mut self, round: Round, subject: Kind, case: Case, measured: Vec<(Measure, f64)>) {
        for (measure, value) in measured {
            self.values.entry((Figure::new(case, measure), subject)).or_default().insert(round, value);
        }
    }

    pub(crate) fn record_failure(&mut self, round: Round, subject: Kind, case: Case, reason: String) {
        self.failures.push(Failure { case, subject, round, reason });
    }

    pub(crate) fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// A subject that could not be measured at all.
    pub(crate) fn record_absence(&mut self, subject: Kind, reason: String) {
        self.absences.push((subject, reason));
    }

    pub(crate) fn absences(&self) -> &[(Kind, String)] {
        &self.absences
    }

    /// All figures for which there is a value, in the order of the tables.
    pub(crate) fn figures(&self) -> BTreeSet<&Figure> {
        self.values.keys().map(|(figure, _)| figure).collect()
    }

    pub(crate) fn summary(&self, figure: &Figure, subject: Kind) -> Option<Summary> {
        let values: Vec<f64> = self.rounds(figure, subject)?.values().copied().collect();
        Some(Summary {
            median: median(&values)?,
            min: values.iter().copied().min_by(f64::total_cmp)?,
            max: values.iter().copied().max_by(f64::total_cmp)?,
            runs: values.len(),
        })
    }

    /// What one round gave.
    pub(crate) fn value(&self, round: Round, figure: &Figure, subject: Kind) -> Option<f64> {
        self.rounds(figure, subject)?.get(&round).copied()
    }

    /// The median of the ratios of each round: what a noisy machine disturbs least.
    pub(crate) fn ratio(&self, figure: &Figure, subject: Kind, to: Kind) -> Option<f64> {
        self.ratio_to_best(figure, subject, &[to], Better::Higher)
    }

    /// Like [`Self::ratio`], to the best of several in each round.
    pub(crate) fn ratio_to_best(&self, figure: &Figure, subject: Kind, others: &[Kind], better: Better) -> Option<f64> {
        let ratios: Vec<f64> = self
            .rounds(figure, subject)?
            .iter()
            .filter_map(|(round, value)| {
                let others = others.iter().filter_map(|&other| self.rounds(figure, other)?.get(round).copied());
                let best = match better {
                    Better::Higher => others.max_by(f64::total_cmp),
                    Better::Lower => others.min_by(f64::total_cmp),
                }?;
                (best > 0.0).then_some(value / best)
            })
            .collect();
        median(&ratios)
    }

    fn rounds(&self, figure: &Figure, subject: Kind) -> Option<&BTreeMap<Round, f64>> {
        self.values.get(&(figure.clone(), subject))
    }
}

/// The middle value; of an even number of values the mean of the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(sorted.get(middle.checked_sub(1)?)?.midpoint(upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_value_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut results = Results::default();
        let figure = Figure::new(Case::Up(1), Measure::Throughput);
        // The machine is ten times slower in the second round; the ratio does not see it.
        for (round, scale) in [(0, 10.0), (1, 1.0), (2, 10.0)] {
            for (subject, value) in
                [(Kind::Plain, 2.0), (Kind::Stunnel, 1.0), (Kind::Haproxy, 0.5), (Kind::Postern, 1.5)]
            {
                results.record(round, subject, Case::Up(1), vec![(Measure::Throughput, value * scale)]);
            }
        }
        assert_eq!(results.ratio(&figure, Kind::Postern, Kind::Plain), Some(0.75));
        let peers = [Kind::Stunnel, Kind::Haproxy];
        assert_eq!(results.ratio_to_best(&figure, Kind::Postern, &peers, Better::Higher), Some(1.5));
        assert_eq!(results.ratio_to_best(&figure, Kind::Postern, &peers, Better::Lower), Some(3.0));
        assert_eq!(results.ratio(&figure, Kind::Postern, Kind::Ssh), None);
    }

    #[test]
    fn a_round_that_failed_for_one_subject_is_left_out_of_the_ratio() {
        let mut results = Results::default();
        results.record(0, Kind::Postern, Case::Up(1), vec![(Measure::Throughput, 3.0)]);
        results.record(1, Kind::Postern, Case::Up(1), vec![(Measure::Throughput, 4.0)]);
        results.record(1, Kind::Plain, Case::Up(1), vec![(Measure::Throughput, 2.0)]);
        let figure = Figure::new(Case::Up(1), Measure::Throughput);
        assert_eq!(results.ratio(&figure, Kind::Postern, Kind::Plain), Some(2.0));
    }
}
