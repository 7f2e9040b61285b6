//! Replays the seed corpus of a fuzz target, so that what it checks holds on every build. Part of the tests of the
//! packages that are fuzzed (`#[path]`).

use std::path::Path;

/// Passes every seed of `corpus` to `check`: as it is, cut short, and with single bits changed, in the first `length`
/// bytes, at each `step`th place. There are `seeds` at least.
pub(crate) fn replay(corpus: &str, seeds: usize, (length, step): (usize, usize), check: fn(&[u8])) {
    let folders =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("fuzz/corpus").join(corpus));
    let folder = folders.into_iter().find(|folder| folder.is_dir()).unwrap();
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(file.unwrap().path()).unwrap();
        seen += 1;
        check(&seed);
        for at in (0..seed.len().min(length)).step_by(step) {
            check(&seed[..at]);
            for change in [1, 0x20, 0x80, 0xff] {
                let mut changed = seed.clone();
                changed[at] ^= change;
                check(&changed);
            }
        }
    }
    assert!(seen >= seeds, "only {seen} seeds of {corpus} are there");
}
