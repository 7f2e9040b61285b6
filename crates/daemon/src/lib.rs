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

pub mod account;
pub mod board;
pub mod carriage;
pub mod clock;
pub mod doctor;
pub mod engine;
pub mod event_log;
pub mod gate;
pub mod gateways;
pub mod health;
pub mod inquiry;
pub mod instance;
pub mod listener;
pub mod local;
pub mod options;
pub mod port_choice;
pub mod process;
pub mod redaction;
pub mod refusals;
pub mod request;
pub mod saver;
pub mod secrets;
pub mod service;
pub mod service_login;
pub mod shell;
pub mod sign_in;
pub mod standing;
pub mod status_http;
pub mod store;
pub mod streams;
pub mod vnm;
