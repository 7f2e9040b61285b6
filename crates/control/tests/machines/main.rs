//! The control plane as devices and gateways meet it: real HTTPS, a real database, a folder of its own.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, also in its helpers"
)]

mod attendance;
#[path = "../database/choice.rs"]
mod choice;
mod clusters;
mod enrolment;
mod leases;
mod login;
mod maintenance;
mod records;
mod relays;
mod support;
mod sync;
