//! The carrier over real TLS and real sockets: transfers, ends, refusals and strangers.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod balancers;
mod bridges;
mod clusters;
mod ends;
mod leaving;
mod model;
mod opening;
mod proxied;
mod relays;
mod strangers;
mod transfer;
mod websocket;
mod world;
