use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use postern_proto::sync::{ClientFrame, Hello, MAX_FRAME, ServerFrame};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    CALL_TIMEOUT, CallError, ControlClient, ControlUrl,
    client::{MAX_ANSWER, http_error, read_answer},
};

/// How the control plane's frames come.
pub enum SyncChannel {
    Socket(Box<SyncSocket>),
    Polling(LongPoll),
}

/// A WebSocket to `/api/v1/sync`. Nothing was sent on it yet: begin with [`ClientFrame::Hello`].
pub struct SyncSocket {
    url: ControlUrl,
    stream: WebSocketStream<TokioIo<Upgraded>>,
}

/// Long polling of `/api/v1/sync`.
pub struct LongPoll {
    client: Arc<ControlClient>,
}

const SYNC_PATH: &str = "/api/v1/sync";

/// Asks for a WebSocket. A refusal in the control plane's own words is final; any other answer comes from something in
/// between, or from a control plane that never saw the wish: then polling is tried.
pub(super) async fn open(client: &Arc<ControlClient>) -> Result<SyncChannel, CallError> {
    let url = client.url();
    let key = generate_key();
    let mut request = client.build(Method::GET, SYNC_PATH, None)?;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let key_value = HeaderValue::from_str(&key).map_err(|error| CallError::garbled(url, error))?;
    headers.insert(header::SEC_WEBSOCKET_KEY, key_value);
    let (mut response, _sender, _) = client.send(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let answer = read_answer(url, response, MAX_ANSWER).await?;
        return match answer.problem() {
            Some(problem) => Err(CallError::Refused(problem)),
            None => {
                tracing::info!(status = %answer.status, "no WebSocket to the control plane, trying long polling");
                Ok(SyncChannel::Polling(LongPoll { client: Arc::clone(client) }))
            }
        };
    }
    let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    if accepted != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(CallError::garbled(url, "the WebSocket handshake was answered with another key"));
    }
    let upgraded = hyper::upgrade::on(&mut response).await.map_err(|error| http_error(url, &error))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME));
    let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await;
    Ok(SyncChannel::Socket(Box::new(SyncSocket { url: url.clone(), stream })))
}

impl SyncSocket {
    /// Sends one frame; a control plane that does not take it within [`CALL_TIMEOUT`] is unreachable.
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<(), CallError> {
        let text = serde_json::to_string(frame).map_err(|error| CallError::garbled(&self.url, error))?;
        match timeout(CALL_TIMEOUT, self.stream.send(Message::text(text))).await {
            Ok(sent) => sent.map_err(|error| CallError::transport(&self.url, &error)),
            Err(_) => Err(CallError::unreachable(&self.url, "it takes nothing any more")),
        }
    }

    /// The next frame. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<ServerFrame, CallError> {
        use tokio_tungstenite::tungstenite::Error;
        loop {
            let message = match self.stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(Error::Capacity(error))) => return Err(CallError::garbled(&self.url, error)),
                Some(Err(Error::Io(error))) => return Err(CallError::transport(&self.url, &error)),
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => {
                    return Err(CallError::unreachable(&self.url, "it closed the connection"));
                }
                Some(Err(Error::Protocol(error))) => return Err(CallError::unreachable(&self.url, error)),
                Some(Err(error)) => return Err(CallError::garbled(&self.url, error)),
            };
            match message {
                Message::Text(text) => {
                    return serde_json::from_str(&text).map_err(|error| CallError::garbled(&self.url, error));
                }
                Message::Binary(_) => return Err(CallError::garbled(&self.url, "a frame is not text")),
                Message::Close(_) => return Err(CallError::unreachable(&self.url, "it closed the connection")),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

impl LongPoll {
    /// Polls without trying a WebSocket first.
    #[must_use]
    pub const fn new(client: Arc<ControlClient>) -> Self {
        Self { client }
    }

    /// Says what is held and waits up to `wait` for news; no frame means no news.
    pub async fn poll(&self, hello: &Hello, wait: Duration) -> Result<Vec<ServerFrame>, CallError> {
        let have: Vec<String> = hello.have.iter().map(|(scope, rev)| format!("{scope}:{rev}")).collect();
        let path = format!(
            "{SYNC_PATH}?version={}&epoch={}&have={}&wait={}",
            hello.version,
            percent_encode(&hello.epoch),
            percent_encode(&have.join(",")),
            wait.as_secs()
        );
        self.exchange(wait + CALL_TIMEOUT, Method::GET, &path, None).await
    }

    /// Sends frames and hands back what they were answered with.
    pub async fn send(&self, frames: &[ClientFrame]) -> Result<Vec<ServerFrame>, CallError> {
        let body = serde_json::to_vec(frames).map_err(|error| CallError::garbled(self.client.url(), error))?;
        self.exchange(CALL_TIMEOUT, Method::POST, SYNC_PATH, Some(body.into())).await
    }

    async fn exchange(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Vec<ServerFrame>, CallError> {
        let url = self.client.url();
        let body = self.client.request_within(limit, method, path, body).await?.into_success(url)?;
        if body.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&body).map_err(|error| CallError::garbled(url, error))
    }
}

/// Encodes all but unreserved characters (RFC 3986 §2.3) and `:` and `,`, which a query may hold.
fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~:,".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
