//! The carrier over real TLS and real sockets: transfers, ends, refusals and strangers.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![expect(dead_code, reason = "the cases on ends, refusals and strangers follow")]

mod ends;
mod opening;
mod strangers;
mod transfer;
mod world;
