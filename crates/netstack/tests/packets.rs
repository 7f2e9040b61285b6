//! Replays the corpus of the fuzzer of packets, so that it holds on every build.
#![expect(clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;

mod fuzzed {
    pub(crate) mod packet;
}

/// Every seed as it is, cut short at each place, and with each byte changed.
#[test]
fn packets_hold_for_the_corpus_and_its_neighbours() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/packet");
    let mut seeds = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(file.unwrap().path()).unwrap();
        seeds += 1;
        fuzzed::packet::check(&seed);
        for at in (0..seed.len().min(600)).step_by(3) {
            fuzzed::packet::check(&seed[..at]);
            for change in [1, 0x20, 0xff] {
                let mut changed = seed.clone();
                changed[at] ^= change;
                fuzzed::packet::check(&changed);
            }
        }
    }
    assert!(seeds >= 6, "the corpus is not there");
}
