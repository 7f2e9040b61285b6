//! Virtual networks under test: a guest that answers in one, probes that try to reach it, and the bed that joins them.

pub mod bed;
pub mod guest;
mod packet;
