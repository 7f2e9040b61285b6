//! An answer that comes line by line, on a connection of its own.

use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{Method, body::Incoming};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{ClientError, Connection, LOCAL_DEADLINE, LocalClient, MAX_ANSWER, decode, refusal, within};

/// The lines of one answer, each a JSON value. Dropping it breaks the call off.
#[derive(Debug)]
pub struct Lines<T> {
    call: String,
    body: Incoming,
    buffer: BytesMut,
    /// How many bytes at the front of the buffer hold no line end.
    searched: usize,
    _connection: Connection,
    _line: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(super) async fn open(client: &LocalClient, method: Method, path: &str) -> Result<Self, ClientError> {
        let call = format!("{method} {path}");
        let (response, connection) = within(LOCAL_DEADLINE, &call, client.send(method, path, None, &call)).await?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        if !(200..=299).contains(&status) {
            let answer = timeout(LOCAL_DEADLINE, body.frame()).await.ok().flatten().and_then(Result::ok);
            let answer = answer.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
            return Err(refusal(&call, status, &answer));
        }
        Ok(Self { call, body, buffer: BytesMut::new(), searched: 0, _connection: connection, _line: PhantomData })
    }

    /// The next line; `None` when the answer is complete.
    ///
    /// Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(line) = self.take_line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return decode(&self.call, &line).map(Some);
            }
            if self.buffer.len() > MAX_ANSWER {
                let reason = format!("a line of more than {MAX_ANSWER} bytes");
                return Err(ClientError::Garbled { call: self.call.clone(), reason });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(self.broken_off(error.to_string())),
                None if self.buffer.trim_ascii().is_empty() => return Ok(None),
                None => return Err(self.broken_off("it ended in the middle of a line".to_owned())),
            }
        }
    }

    fn broken_off(&self, reason: String) -> ClientError {
        ClientError::BrokenOff { call: self.call.clone(), reason }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(at) = fresh.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + at + 1).freeze();
        self.searched = 0;
        Some(line)
    }
}
