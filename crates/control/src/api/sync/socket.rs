//! The WebSocket of one peer.

use std::time::Duration;

use axum::{
    extract::ws::{Message, WebSocket},
    http::request::Parts,
};
use postern_proto::sync::{ClientFrame, Hello, ServerFrame};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Follower, FrameError, check_version};
use crate::{
    state::AppState,
    sync::{Subscription, encode, hub::Next},
};

/// How long the first frame may take.
const HELLO: Duration = Duration::from_secs(10);
/// How long a receiver may take for one frame.
const SEND: Duration = Duration::from_secs(30);
/// A connection is gone when nothing was heard for this long; peers ping every 10 s.
const SILENCE: Duration = Duration::from_secs(45);
/// The wall clock may jump, so the wait for a far end is cut into pieces.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why there is nothing more to do on a connection.
struct Over;

/// Serves one connection to its end.
pub(super) async fn converse(state: AppState, caller: Follower, parts: Parts, mut socket: WebSocket) {
    let hello = match timeout(HELLO, hello(&mut socket)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return bye(&mut socket, error.code(), &error.to_string()).await,
        Err(_) => return,
    };
    let subscription = state.exchange.admit(caller.peer, &hello);
    // What ended between the check before the upgrade and the admission has told nobody.
    if let Err(refusal) = Follower::of(&state, &parts).await {
        return bye(&mut socket, &refusal.0.code, &refusal.0.title).await;
    }
    match caller.backlog(&state.exchange).await {
        Ok(backlog) => subscription.send_revocations(&backlog),
        Err(error) => {
            tracing::error!(%error, "revocations could not be read");
            return bye(&mut socket, "internal", "The control plane failed; its log says why").await;
        }
    }
    tracing::debug!(peer = ?caller.peer, agent = %hello.agent.escape_debug(), "a peer follows");
    caller.was_seen(&state, Some(&hello));
    let mut conversation = Conversation { state, caller, socket, subscription };
    let Over = conversation.run().await;
    conversation.caller.was_seen(&conversation.state, None);
    tracing::debug!(peer = ?conversation.caller.peer, "a peer follows no more");
}

async fn hello(socket: &mut WebSocket) -> Result<Hello, FrameError> {
    loop {
        match socket.recv().await {
            Some(Ok(Message::Text(text))) => {
                let Ok(ClientFrame::Hello(hello)) = serde_json::from_str(&text) else {
                    return Err(FrameError::NoHello);
                };
                return check_version(&hello).map(|()| hello);
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return Err(FrameError::NoHello),
        }
    }
}

async fn bye(socket: &mut WebSocket, code: &str, title: &str) {
    let frame = ServerFrame::Bye { code: code.to_owned(), title: title.to_owned() };
    let _gone = timeout(SEND, socket.send(Message::Text(encode(&frame)))).await;
    let _gone = timeout(SEND, socket.send(Message::Close(None))).await;
}

struct Conversation {
    state: AppState,
    caller: Follower,
    socket: WebSocket,
    subscription: Subscription,
}

impl Conversation {
    async fn run(&mut self) -> Over {
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
                () = self.subscription.woken() => {}
                message = self.socket.recv() => {
                    heard = Instant::now();
                    let Some(Ok(message)) = message else { return Over };
                    if self.handle(message).await.is_err() {
                        return Over;
                    }
                }
                () = sleep_until(Instant::now() + left.min(LONGEST_WAIT)) => {}
                () = sleep_until(heard + SILENCE) => {
                    tracing::debug!(peer = ?self.caller.peer, "a peer fell silent");
                    return Over;
                }
                () = self.state.stop.cancelled() => {
                    self.subscription.close("stopping", "The control plane is being stopped");
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
                    let sent = timeout(SEND, self.socket.send(Message::Text(frame))).await;
                    sent.map_err(|_| Over)?.map_err(|_| Over)?;
                }
                Next::Close => {
                    let _gone = timeout(SEND, self.socket.send(Message::Close(None))).await;
                    return Err(Over);
                }
            }
        }
    }

    async fn handle(&mut self, message: Message) -> Result<(), Over> {
        let frame = match message {
            Message::Text(text) => serde_json::from_str(&text).map_err(|_| FrameError::Unreadable),
            Message::Binary(_) => Err(FrameError::Unreadable),
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
            Message::Close(_) => return Err(Over),
        };
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
        Ok(())
    }
}
