//! The virtual network without its input and output.
#![forbid(unsafe_code)]

pub mod dns;
