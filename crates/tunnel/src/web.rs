//! The carrier within a WebSocket: for balancers and proxies that end TLS (DESIGN §4.1).
//!
//! ```text
//! TCP │ TLS, ended by anybody │ HTTP/1.1 upgrade, then binary frames │ the same mutual TLS session as without all this
//! ```
//!
//! Who is at either end is proven by the inner session alone; nothing is believed of what is outside of it. A connection
//! that asks for anything but the carrier is answered 404.

mod codec;
mod upgrade;
mod wire;

pub(crate) use self::{
    upgrade::{ask, grant},
    wire::WebSocket,
};

/// Where the carrier is asked for.
pub const PATH: &str = "/postern/carrier";
/// What is spoken after the upgrade.
pub const PROTOCOL: &str = "postern-carrier/1";

/// At which end of a WebSocket one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It masks what it sends (RFC 6455 §5.3).
    Client,
    /// It sends a ping now and then, so that a balancer does not take the connection for idle.
    Node,
}
