//! Replays the seed corpus of the fuzz target `dns` through the same checks, so that they hold on every build.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod fuzzed {
    pub(crate) mod dns;
}
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[test]
fn answers_hold_for_the_corpus_and_its_neighbours() {
    replay::replay("dns", 12, (600, 1), fuzzed::dns::check);
}
