//! The control plane: accounts, roles, resources, nodes, the certificate authority, and the audit. It is never on the
//! data path.
#![forbid(unsafe_code)]

pub mod access;
pub mod allowance;
pub mod api;
pub mod audit;
pub mod authority;
pub mod catalogue;
pub mod clock;
pub mod config;
pub mod credential;
pub mod devices;
pub mod duty;
pub mod epoch;
pub mod expiry;
pub mod follow;
pub mod gateway;
pub mod health;
pub mod housekeeping;
pub mod journal;
pub mod keys;
pub mod lease_keys;
pub mod lockout;
pub mod offline;
pub mod openapi;
pub mod password;
pub mod run;
pub mod sealed;
pub mod secret;
pub mod server;
pub mod sql;
pub mod state;
pub mod store;
pub mod sync;
pub mod transfer;
pub mod upgrade;
