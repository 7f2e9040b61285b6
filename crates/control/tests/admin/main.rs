//! The control plane as administrators meet it: real HTTPS, a real database, a folder of its own.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, also in its helpers"
)]

mod access;
mod accounts;
mod audit;
#[path = "../database/choice.rs"]
mod choice;
mod clusters;
mod errors;
mod maintenance;
mod monitor;
mod network;
mod offline;
#[path = "../../../../tests/src/openmetrics.rs"]
#[expect(dead_code, unreachable_pub, reason = "made for other tests, too")]
mod openmetrics;
mod reach;
mod resources;
mod server;
mod store;
mod support;
mod upgrade;
