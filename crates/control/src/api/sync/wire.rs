//! The WebSocket of a peer, as it costs least: there is one for each device that is switched on.
//!
//! It is taken over here and not by the web framework, so that a long message leaves in pieces: the protocol's buffer
//! keeps for ever the size of the longest frame that it held, and the first thing that everybody is told is long.

use std::time::Duration;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use postern_proto::sync::MAX_FRAME;
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        handshake::server::create_response,
        protocol::{
            Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};

/// The longest piece of a message.
const PIECE: usize = 4096;
/// What is read at once. Peers say little: a greeting, and that they are there.
const READ: usize = 1024;
/// How long a receiver may take for one message.
const SEND: Duration = Duration::from_secs(30);

/// One end of it.
pub(super) struct Wire(WebSocketStream<TokioIo<Upgraded>>);

/// What a peer sent.
pub(super) enum Heard {
    Text(Utf8Bytes),
    /// Part of the protocol itself.
    Sign,
    /// What nobody sends here.
    Foreign,
}

/// The peer takes nothing more.
pub(super) struct Gone;

/// A request that becomes a WebSocket once it is answered.
pub(super) struct Coming(OnUpgrade);

/// Why a request does not become one.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoWebSocket {
    #[error(transparent)]
    Request(#[from] Error),
    #[error("the connection cannot become a WebSocket")]
    Connection,
}

/// The answer to a request for a WebSocket.
pub(super) fn accept(parts: &mut Parts) -> Result<(Response, Coming), NoWebSocket> {
    let mut asked = Request::new(());
    *asked.method_mut() = parts.method.clone();
    *asked.version_mut() = parts.version;
    *asked.headers_mut() = parts.headers.clone();
    let answer = create_response(&asked)?.map(|()| Body::empty());
    let upgrade = parts.extensions.remove::<OnUpgrade>().ok_or(NoWebSocket::Connection)?;
    Ok((answer, Coming(upgrade)))
}

impl Coming {
    /// Waits until the request has been answered; `None`: the peer went before.
    pub(super) async fn arrive(self) -> Option<Wire> {
        let stream = TokioIo::new(self.0.await.ok()?);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            // Each piece is written on at once, instead of being gathered.
            .write_buffer_size(0)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        Some(Wire(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await))
    }
}

impl Wire {
    /// What comes next; `None` at the end, and when the connection is broken.
    pub(super) async fn recv(&mut self) -> Option<Heard> {
        match self.0.next().await?.ok()? {
            Message::Text(text) => Some(Heard::Text(text)),
            Message::Binary(_) | Message::Frame(_) => Some(Heard::Foreign),
            Message::Ping(_) | Message::Pong(_) => Some(Heard::Sign),
            Message::Close(_) => None,
        }
    }

    pub(super) async fn send(&mut self, text: Utf8Bytes) -> Result<(), Gone> {
        within(self.send_in_pieces(text.into())).await
    }

    async fn send_in_pieces(&mut self, mut rest: Bytes) -> Result<(), Error> {
        let mut kind = Data::Text;
        while rest.len() > PIECE {
            let piece = Frame::message(rest.split_to(PIECE), OpCode::Data(kind), false);
            self.0.feed(Message::Frame(piece)).await?;
            kind = Data::Continue;
        }
        self.0.send(Message::Frame(Frame::message(rest, OpCode::Data(kind), true))).await
    }

    /// Says that nothing more follows.
    pub(super) async fn close(&mut self) -> Result<(), Gone> {
        within(self.0.send(Message::Close(None))).await
    }
}

async fn within(sending: impl Future<Output = Result<(), Error>>) -> Result<(), Gone> {
    timeout(SEND, sending).await.map_err(|_| Gone)?.map_err(|_| Gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(key: Option<&str>) -> Parts {
        let mut request = Request::get("/api/v1/sync").header("connection", "Upgrade").header("upgrade", "websocket");
        request = request.header("sec-websocket-version", "13");
        if let Some(key) = key {
            request = request.header("sec-websocket-key", key);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_that_cannot_become_a_websocket_is_told_why() {
        let told = |parts: &mut Parts| accept(parts).map(|_| ()).unwrap_err();
        assert!(matches!(told(&mut asked(None)), NoWebSocket::Request(_)));
        // Whole, but no connection stands behind it.
        assert!(matches!(told(&mut asked(Some("dGhlIHNhbXBsZSBub25jZQ=="))), NoWebSocket::Connection));
        let mut posted = asked(Some("dGhlIHNhbXBsZSBub25jZQ=="));
        posted.method = http::Method::POST;
        assert!(matches!(told(&mut posted), NoWebSocket::Request(_)));
    }
}
