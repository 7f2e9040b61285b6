//! Values and rules that every part of Postern shares: identifiers, the resource model, leases, sync frames,
//! session records, the stream head and the carrier's frames.
//!
//! This crate never opens a socket, reads a clock or draws a random number: time is an argument, entropy is an
//! argument, bytes go in and values come out. Whatever depends on it may be replayed.
#![forbid(unsafe_code)]

pub mod api;
pub mod bind;
pub mod door;
pub mod filter;
pub mod frame;
pub mod head;
pub mod id;
pub mod lease;
pub mod name;
pub mod park;
pub mod port;
pub mod problem;
pub mod proxy_header;
pub mod record;
pub mod replica;
pub mod resource;
pub mod sync;
pub mod time;
