//! posternd: the user's background service. It makes resources appear on loopback addresses of this machine and carries
//! their connections through gateways.
//!
//! It runs as the user, never as root; it listens only for resources that are connected, answers only its owner's
//! processes, sends no credential to a server that has not proved itself, and keeps what it must remember in one folder
//! that only the owner may read. It never decides what an account may reach: the control plane does, and the gateways
//! check it again.
//!
//! The decisions are in [`engine`], which knows no socket, no clock and no task; everything else is a thin shell.
#![forbid(unsafe_code)]

pub mod board;
pub mod clock;
pub mod engine;
pub mod instance;
pub mod local;
pub mod options;
pub mod process;
pub mod service;
pub mod store;
