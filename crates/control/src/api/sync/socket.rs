//! The WebSocket of one peer.

use std::time::Duration;

use axum::http::request::Parts;
use postern_proto::sync::{ClientFrame, Hello, ServerFrame};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    Follower, FrameError, check_version,
    wire::{Coming, Heard, Wire},
};
use crate::{
    state::AppState,
    sync::{Subscription, encode, hub::Next},
};

/// How long the first frame may take.
const HELLO: Duration = Duration::from_secs(10);
/// A connection is gone when nothing was heard for this long; peers ping every 10 s. The kernel's questions find most that
/// vanished sooner, but it asks none while something that was sent is not acknowledged.
const SILENCE: Duration = Duration::from_secs(22);
/// The wall clock may jump, so the wait for a far end is cut into pieces.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why there is nothing more to do on a connection.
struct Over;

/// Waits for the connection and the peer's hello, and begins to tell it what it may know. `None`: it is refused, or gone.
pub(super) async fn greet(state: AppState, caller: Follower, parts: Parts, coming: Coming) -> Option<Conversation> {
    let mut wire = coming.arrive().await?;
    let hello = match timeout(HELLO, hello(&mut wire)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return bye(&mut wire, error.code(), &error.to_string()).await,
        Err(_) => return None,
    };
    let subscription = state.exchange.admit(caller.peer, &hello);
    // What ended between the check before the upgrade and the admission has told nobody.
    if let Err(refusal) = Follower::of(&state, &parts).await {
        return bye(&mut wire, &refusal.0.code, &refusal.0.title).await;
    }
    match caller.backlog(&state.exchange).await {
        Ok(backlog) => subscription.send_revocations(&backlog),
        Err(error) => {
            tracing::error!(%error, "revocations could not be read");
            return bye(&mut wire, "internal", "The control plane failed; its log says why").await;
        }
    }
    tracing::debug!(peer = ?caller.peer, agent = %hello.agent.escape_debug(), "a peer follows");
    caller.was_seen(&state, Some(&hello));
    Some(Conversation { state, caller, wire, subscription })
}

async fn hello(wire: &mut Wire) -> Result<Hello, FrameError> {
    loop {
        match wire.recv().await {
            Some(Heard::Text(text)) => {
                let Ok(ClientFrame::Hello(hello)) = serde_json::from_str(&text) else {
                    return Err(FrameError::NoHello);
                };
                return check_version(&hello).map(|()| hello);
            }
            Some(Heard::Sign) => {}
            Some(Heard::Foreign) | None => return Err(FrameError::NoHello),
        }
    }
}

/// Refuses.
async fn bye(wire: &mut Wire, code: &str, title: &str) -> Option<Conversation> {
    let frame = ServerFrame::Bye { code: code.to_owned(), title: title.to_owned() };
    let _gone = wire.send(encode(&frame)).await;
    let _gone = wire.close().await;
    None
}

/// A peer that follows.
pub(super) struct Conversation {
    state: AppState,
    caller: Follower,
    wire: Wire,
    subscription: Subscription,
}

impl Conversation {
    /// Goes on to its end.
    pub(super) async fn run(mut self) {
        let Over = self.go_on().await;
        self.caller.was_seen(&self.state, None);
        tracing::debug!(peer = ?self.caller.peer, "a peer follows no more");
    }

    async fn go_on(&mut self) -> Over {
        let mut heard = Instant::now();
        loop {
            if self.flush().await.is_err() {
                return Over;
            }
            let left = self.caller.until.since(self.state.clock.now());
            if left.is_zero() {
                self.subscription.close("login_ended", "The certificate or the login has ended");
                continue;
            }
            tokio::select! {
                // What has been heard counts before the time is up: sending may have taken long.
                biased;
                () = self.state.stop.cancelled() => {
                    self.subscription.close("stopping", "The control plane is being stopped");
                }
                said = self.wire.recv() => {
                    heard = Instant::now();
                    match said {
                        None => return Over,
                        Some(Heard::Sign) => {}
                        // Seldom, and large: it is not carried along in between.
                        Some(Heard::Text(text)) => Box::pin(self.handle(Some(text))).await,
                        Some(Heard::Foreign) => Box::pin(self.handle(None)).await,
                    }
                }
                () = self.subscription.woken() => {}
                () = sleep_until(Instant::now() + left.min(LONGEST_WAIT)) => {}
                () = sleep_until(heard + SILENCE) => {
                    tracing::debug!(peer = ?self.caller.peer, "a peer fell silent");
                    return Over;
                }
            }
        }
    }

    /// Sends all that there is to send.
    async fn flush(&mut self) -> Result<(), Over> {
        loop {
            match self.subscription.next() {
                Next::Wait => return Ok(()),
                Next::Send(frame) => {
                    self.wire.send(frame).await.map_err(|_| Over)?;
                }
                Next::Close => {
                    let _gone = self.wire.close().await;
                    return Err(Over);
                }
            }
        }
    }

    /// Answers a frame; one that is no text cannot be read.
    async fn handle(&mut self, text: Option<Utf8Bytes>) {
        let frame = text.and_then(|text| serde_json::from_str(&text).ok()).ok_or(FrameError::Unreadable);
        let answers = match frame {
            Ok(frame) => self.caller.respond(&self.state, frame).await,
            Err(error) => Err(error),
        };
        match answers {
            Ok(answers) => answers.iter().for_each(|answer| self.subscription.send(answer)),
            Err(error) => {
                tracing::info!(peer = ?self.caller.peer, error = &error as &dyn std::error::Error, "a frame was refused");
                self.subscription.close(error.code(), &error.to_string());
            }
        }
    }
}
