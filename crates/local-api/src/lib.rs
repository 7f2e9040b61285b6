//! Messages and client of posternd's local API: HTTP/1.1 with JSON over a Unix socket in the user's runtime folder.
//!
//! The CLI, the desktop app and the tests are equal users of it. This crate never links TLS keys, the carrier or the
//! network stack.
#![forbid(unsafe_code)]

pub mod client;
pub mod message;
pub mod mirror;
pub mod names;
pub mod paths;
