//! posternd as a process against a control plane and gateways in memory that do as the tests say.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod access;
mod control;
mod daemon;
mod faults;
mod gateway;
mod isolation;
mod local_api;
mod org;
mod sign_in;
