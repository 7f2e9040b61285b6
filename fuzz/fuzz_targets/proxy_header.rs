//! See the module of the same name in `crates/proto/tests/fuzzed`: the tests replay the corpus through it.
#![no_main]

#[path = "../../crates/proto/tests/fuzzed/proxy_header.rs"]
mod proxy_header;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy_header::check(bytes));
