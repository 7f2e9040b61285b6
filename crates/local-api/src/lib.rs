//! Messages and client of posternd's local API: HTTP/1.1 with JSON over a Unix socket in the user's runtime folder.
//!
//! The CLI, the desktop app and the tests are equal users of it. This crate never links TLS keys, the carrier or the
//! network stack. What the model of resources needs of [`postern_proto`] reaches the desktop app through [`proto`].
#![forbid(unsafe_code)]

pub mod cause;
pub mod client;
pub mod command;
pub mod message;
pub mod mirror;
pub mod names;
pub mod paths;
pub mod span;

pub use postern_proto as proto;
