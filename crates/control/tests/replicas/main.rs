//! Several control planes on one PostgreSQL database. `cargo xtask test --only postgres` starts a cluster for them.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, also in its helpers"
)]

#[path = "../database/choice.rs"]
mod choice;
mod maintenance;
mod nodes;
mod schema;
mod shared;
