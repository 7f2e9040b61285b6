//! Nodes: what stands between clients and resources.
//!
//! A node decides for itself whether a stream may be opened, dials only what it has resolved and checked, writes down
//! who reached what before the first byte goes upstream, and cuts what is revoked. It holds no accounts, no roles and no
//! policy, and never takes another node's word for an identity.
#![forbid(unsafe_code)]

pub mod address;
pub mod arrival;
pub mod bridge;
pub mod catalogue;
mod clock;
pub mod command_line;
pub mod contact;
pub mod dial;
pub mod drain;
pub mod egress;
pub mod gateway;
pub mod health;
pub mod identity;
pub mod live;
pub mod load;
pub mod metrics;
pub mod monitor;
pub mod neighbours;
pub mod parking;
pub mod passages;
pub mod relay;
pub mod revocations;
pub mod spool;
pub mod state;
pub mod upload;
pub mod worker;
