//! What a relay and a gateway say to each other beside the streams that they carry (DESIGN §4.3).
//!
//! A relay dials gateways with the application protocol [`ALPN`], and its first frame says what the connection is for: the
//! one *control link* of the pair, or a *parked link* that stands idle until the gateway sends a [`crate::head::Passage`]
//! on it. Relays speak in `HEAD` frames, gateways in `REPLY` frames; each holds one of these messages as JSON.

use serde::{Deserialize, Serialize};

/// The application protocol of connections from relays to gateways.
pub const ALPN: &[u8] = b"postern-park/1";

/// What a relay says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "t")]
pub enum RelayMessage {
    /// First on a link that is to stand idle until it is used.
    Park,
    /// First on a control link, and again every few seconds: how the relay is.
    State(RelayState),
    /// The answer to [`GatewayMessage::Ping`].
    Pong { n: u64 },
}

/// How a relay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayState {
    /// It takes no new streams.
    pub draining: bool,
    /// Streams that run through it, over all gateways.
    pub streams: u64,
}

/// What a gateway says on a control link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "t")]
pub enum GatewayMessage {
    /// How many idle links should be parked here.
    Want { spares: u32 },
    /// Every few seconds: whoever hears nothing for long takes the other for gone.
    Ping { n: u64 },
    /// The gateway takes no new streams: take up links elsewhere.
    Draining,
    /// It takes them again.
    Serving,
}
