//! Any bytes that a user's program may send to postern-netd.
#![no_main]

libfuzzer_sys::fuzz_target!(|request: &[u8]| tun_driver::netd::check_request(request));
