//! Whether resources answer, as the nodes see it, and whether nodes are there.

pub mod attendance;
pub mod board;
pub mod history;
