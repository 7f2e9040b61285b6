//! Long polling, where WebSockets do not pass.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::State,
    http::{header, request::Parts},
    response::{IntoResponse as _, Response},
};
use postern_proto::{
    problem::Problem,
    sync::{ClientFrame, Hello, VERSION},
};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{Answer, Follower, FrameError, Refusal, check_version};
use crate::{
    api::{Input, Violations, page::form_urlencoded},
    state::AppState,
    sync::{REVOCATIONS_PER_FRAME, Subscription, encode, hub::Next},
};

/// The longest wait for news.
const MAX_WAIT: Duration = Duration::from_secs(55);

/// Answers a poll: the welcome, what a node may have missed, then what is new, once there is something.
pub(super) async fn answer(state: AppState, caller: Follower, parts: Parts) -> Answer<Response> {
    let (hello, wait) = read(&parts)?;
    check_version(&hello).map_err(refused)?;
    let subscription = state.exchange.admit_poll(caller.peer, &hello);
    // What ended between the check and the admission has told nobody.
    Follower::of(&state, &parts).await?;
    caller.was_seen(&state, None);
    let backlog = caller.backlog(&state.exchange).await?;
    subscription.send_revocations(&backlog);
    // The welcome and the backlog are no news.
    let greeting = 1 + backlog.len().div_ceil(REVOCATIONS_PER_FRAME);
    let mut frames = Vec::new();
    let mut open = take(&subscription, &mut frames);
    let deadline = Instant::now() + wait.min(caller.until.since(state.clock.now()));
    while open && frames.len() <= greeting {
        let woken = tokio::select! {
            woken = timeout_at(deadline, subscription.woken()) => woken.is_ok(),
            () = state.stop.cancelled() => false,
        };
        if !woken {
            break;
        }
        open = take(&subscription, &mut frames);
    }
    if open {
        state.exchange.rest(subscription);
    }
    Ok(list(&frames))
}

#[utoipa::path(post, path = "/api/v1/sync", tag = "machines", request_body = Object,
    responses((status = 200, body = Object)))]
/// Send frames where WebSockets do not pass
pub(super) async fn send(
    State(state): State<AppState>,
    parts: Parts,
    Input(frames): Input<Vec<ClientFrame>>,
) -> Answer<Response> {
    let caller = Follower::of(&state, &parts).await?;
    let mut answers = Vec::new();
    for frame in frames {
        let said = caller.respond(&state, frame).await.map_err(refused)?;
        answers.extend(said.iter().map(encode));
    }
    Ok(list(&answers))
}

/// Takes all that there is to send. False: nothing will follow.
fn take(subscription: &Subscription, frames: &mut Vec<Utf8Bytes>) -> bool {
    loop {
        match subscription.next() {
            Next::Send(frame) => frames.push(frame),
            Next::Wait => return true,
            Next::Close => return false,
        }
    }
}

/// Frames are JSON already.
fn list(frames: &[Utf8Bytes]) -> Response {
    let frames: Vec<&str> = frames.iter().map(Utf8Bytes::as_str).collect();
    let body = format!("[{}]", frames.join(","));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn read(parts: &Parts) -> Answer<(Hello, Duration)> {
    let mut broken = Violations::default();
    let mut hello = Hello { version: VERSION, agent: agent(parts), epoch: String::new(), have: BTreeMap::new() };
    let mut wait = Duration::ZERO;
    for (key, value) in form_urlencoded(parts.uri.query().unwrap_or_default()) {
        match key.as_str() {
            "version" => hello.version = value.parse().unwrap_or_default(),
            "epoch" => hello.epoch = value,
            "have" => match have(&value) {
                Some(have) => hello.have = have,
                None => broken.add("have", value, "must be of the form scope:revision, joined by commas"),
            },
            "wait" => match value.parse() {
                Ok(seconds) => wait = Duration::from_secs(seconds).min(MAX_WAIT),
                Err(_) => broken.add("wait", value, "must be a number of seconds"),
            },
            _ => broken.add(&key, value, "is not a parameter here; parameters are version, epoch, have, wait"),
        }
    }
    broken.none()?;
    Ok((hello, wait))
}

/// Reads `scope:revision,…`; a scope may hold a colon itself.
fn have(text: &str) -> Option<BTreeMap<String, u64>> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.rsplit_once(':').and_then(|(scope, rev)| Some((scope.to_owned(), rev.parse().ok()?))))
        .collect()
}

fn agent(parts: &Parts) -> String {
    let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.unwrap_or_default().to_owned()
}

fn refused(error: FrameError) -> Refusal {
    match error {
        FrameError::Store(error) => error.into(),
        error => Problem::new(400, error.code(), "The frames are refused").with_detail(error.to_string()).into(),
    }
}
