//! Whether resources answer, as the gateways see it.

pub mod board;
pub mod history;
