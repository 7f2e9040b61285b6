//! The gateway role: listens for clients, decides, dials resources, carries and records.

mod follow;
mod handler;
mod options;
mod run;
mod throttle;

pub use self::{
    handler::{Gateway, GatewayParts},
    options::GatewayOptions,
    run::{GatewayError, Ready, run},
};
