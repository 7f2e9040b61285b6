//! Any bytes that a client or a server may send to the DNS stub.
#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| tun_driver::dns::stub::check_message(message));
