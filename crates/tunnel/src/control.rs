//! The client of the control plane: HTTPS calls, and the sync connection that `postern-node` and `posternd` follow.
//!
//! [`ControlClient`] verifies the control plane by its exact name against the organisation's CA (given, or fetched once
//! and compared with a fingerprint) or the machine's roots. Before the control plane is verified nothing secret is sent
//! to it: no client certificate, no token. Where the control plane has several addresses, all are tried before a call
//! fails, and the one that works is kept. [`SyncLoop`] keeps a [`postern_proto::replica::Replica`] up to date over a
//! WebSocket, or by long polling where WebSockets do not pass.
//!
//! It never decides what a change means: that is for its users.

mod address;
mod backoff;
mod channel;
mod client;
mod credential;
mod driver;
mod error;
mod trust;

pub use self::{
    address::{BadUrl, ControlUrl, ControlUrls},
    backoff::Backoff,
    channel::{LongPoll, SyncChannel, SyncSocket},
    client::{Answer, CALL_TIMEOUT, ControlClient, MAX_ANSWER},
    credential::{BadIdentity, Bearer, ClientIdentity},
    driver::{SyncEvent, SyncHandle, SyncLoop, SyncTiming},
    error::CallError,
    trust::{BadTrust, Trust},
};
