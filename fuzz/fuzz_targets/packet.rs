//! See the module of the same name in `crates/netstack/tests/fuzzed`: the tests replay the corpus through it.
#![no_main]

#[path = "../../crates/netstack/tests/fuzzed/packet.rs"]
mod packet;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| packet::check(bytes));
