//! The gateway role: listens for clients, decides, dials resources, carries and records.

mod follow;
mod handler;
mod news;
mod options;
mod passage;
pub(crate) mod run;
mod throttle;

pub use self::{
    handler::{Gateway, GatewayParts},
    options::{GatewayOptions, NodeOptions},
    run::{GatewayError, Ready, run},
};
