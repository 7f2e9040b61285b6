//! Sync: what devices and nodes are told, as it changes (the server's side of [`postern_proto::sync`]).
//!
//! [`hub::Hub`] and [`feed::Feed`] are pure: views go in, frames come out. Nothing a slow receiver does is felt by
//! another one: every connection reads at its own pace from logs that all share.

pub mod exchange;
pub mod feed;
pub mod hub;
mod live;
pub mod views;

pub use self::{
    exchange::{Exchange, Follower, Presence, Subscription, bulletin},
    feed::encode,
    hub::REVOCATIONS_PER_FRAME,
    live::judge,
};
