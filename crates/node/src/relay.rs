//! The relay role: listens nowhere, parks links at gateways, and dials resources for clients that come through those
//! (DESIGN §4.3).
//!
//! A relay is an egress node: it decides about each stream by the client's own certificate and lease, which reach it
//! within a TLS session that the gateways between cannot read.

pub(crate) mod berth;
mod choice;
pub(crate) mod moorings;
mod options;
mod run;

pub use self::{
    options::RelayOptions,
    run::{RelayReady, run},
};
