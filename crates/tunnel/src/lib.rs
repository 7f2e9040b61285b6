//! The carrier: streams between clients and nodes over mutual TLS 1.3, one at a time on a connection, over connections
//! that are kept warm and used again (DESIGN §4.1, 4.2); and the client of the control plane.
//!
//! This crate decides nothing about access: a node's [`node::StreamHandler`] does, and a client's
//! [`client::StreamGuide`] says where to go. It never serves anything to a peer that it has not authenticated, never
//! logs a lease, and never lets a transfer that was cut look complete.
#![forbid(unsafe_code)]

pub mod client;
pub mod control;
pub mod happy_eyeballs;
pub mod identity;
pub mod lanes;
mod link;
pub mod local_end;
pub mod node;
pub mod outward;
pub mod park;
pub mod private_file;
mod scratch;
mod socket;
mod splice;
pub mod stream;
pub mod tls;
mod vigil;
pub mod web;
