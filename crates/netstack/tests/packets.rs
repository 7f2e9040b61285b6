//! Replays the corpus of the fuzzer of packets, so that it holds on every build.
#![expect(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod fuzzed {
    pub(crate) mod packet;
}
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[test]
fn packets_hold_for_the_corpus_and_its_neighbours() {
    replay::replay("packet", 6, (600, 3), fuzzed::packet::check);
}
