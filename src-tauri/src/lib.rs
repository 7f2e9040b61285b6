//! The desktop app: a window and a tray on posternd's local API.
//!
//! All state is held here, in Rust; the page in the window lays it out and sends typed commands back. The app never
//! holds keys, opens a connection to another machine, or has privileges: it is a client of the local API like the CLI.
#![forbid(unsafe_code)]

pub mod instance;
pub mod link;
pub mod settings;
pub mod tool;
pub mod view;
