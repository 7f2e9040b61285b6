//! Replays the fuzzers' seed corpora through the same checks, so that they hold on every build.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use std::path::Path;

/// Every seed of a corpus, as it is, cut short at each place, and with each byte changed.
fn replay(corpus: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(corpus);
    let mut seeds = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(file.unwrap().path()).unwrap();
        seeds += 1;
        check(&seed);
        for at in 0..seed.len().min(2000) {
            check(&seed[..at]);
            for change in [1, 0x20, 0x80, 0xff] {
                let mut changed = seed.clone();
                changed[at] ^= change;
                check(&changed);
            }
        }
    }
    assert!(seeds >= 6, "the corpus is not there");
}

#[test]
fn resolv_conf_holds_for_the_corpus_and_its_neighbours() {
    replay("resolv_conf", tun_driver::dns::check_resolv_conf);
}

#[test]
fn messages_to_the_stub_hold_for_the_corpus_and_its_neighbours() {
    replay("stub_message", tun_driver::dns::stub::check_message);
}

#[test]
fn requests_to_netd_hold_for_the_corpus_and_its_neighbours() {
    replay("netd_request", tun_driver::netd::check_request);
}
