//! Replays the seed corpus of the fuzz target `dns` through the same checks, so that they hold on every build.
#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;

mod fuzzed {
    pub(crate) mod dns;
}

/// Every seed as it is, cut short at each place, and with each byte changed.
#[test]
fn answers_hold_for_the_corpus_and_its_neighbours() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/dns");
    let mut seeds = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(file.unwrap().path()).unwrap();
        seeds += 1;
        fuzzed::dns::check(&seed);
        for at in 0..seed.len().min(600) {
            fuzzed::dns::check(&seed[..at]);
            for change in [1, 0x20, 0x80, 0xff] {
                let mut changed = seed.clone();
                changed[at] ^= change;
                fuzzed::dns::check(&changed);
            }
        }
    }
    assert!(seeds >= 12, "the corpus is not there");
}
