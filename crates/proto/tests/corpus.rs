//! Replays the fuzzers' seed corpora through the same checks, so that they hold on every build.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod fuzzed {
    pub(crate) mod frame;
    pub(crate) mod head;
    pub(crate) mod proxy_header;
}
#[path = "../../../fuzz/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn frames_hold_for_the_corpus_and_its_neighbours() {
    replay("frame", 6, (2000, 1), fuzzed::frame::check);
}

#[test]
fn heads_hold_for_the_corpus_and_its_neighbours() {
    replay("head", 6, (2000, 1), fuzzed::head::check);
}

#[test]
fn proxy_headers_hold_for_the_corpus_and_its_neighbours() {
    replay("proxy_header", 6, (300, 1), fuzzed::proxy_header::check);
}
