//! The stack against a program's kernel, in memory.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what goes wrong here fails the test"
)]

mod harness {
    pub(crate) mod network;
    pub(crate) mod wire;
}

mod stack {
    mod answers;
    mod flows;
    mod limits;
    mod model;
    mod streams;
}
