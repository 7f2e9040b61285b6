//! Any text of a resolv.conf: it can be read, marked as ours, and cleared of us again.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| tun_driver::dns::check_resolv_conf(text));
