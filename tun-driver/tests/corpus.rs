//! Replays the fuzzers' seed corpora through the same checks, so that they hold on every build.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

#[path = "../../fuzz/replay.rs"]
mod replay;

fn replay(corpus: &str, check: fn(&[u8])) {
    replay::replay(corpus, 6, (2000, 1), check);
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
