//! Session records: who reached what, when, how much, through which node, and why it ended.
//!
//! A node writes a start record to disk before the first upstream byte and an end record when the stream is over. Its
//! records form a hash chain, so that a record that was changed, removed or moved is found (DESIGN §5).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    id::{AccountId, DeviceId, NodeId, ResourceId, StreamId},
    resource::Tags,
    time::UnixMillis,
};

/// One link of a node's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Dense, from 1, per node and never used twice.
    pub seq: u64,
    pub node: NodeId,
    pub at: UnixMillis,
    pub event: Event,
    /// Hash of the record before this one, 64 hex digits; zeroes for the first.
    pub previous: String,
    /// SHA-256 over `previous` and the canonical JSON of the other fields.
    pub hash: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Event {
    Start(SessionStart),
    End(SessionEnd),
    /// Something was refused that an administrator should know of.
    Refused(StreamRefused),
    /// Sessions may begin soon. None has.
    Prepared(Preparation),
    /// No session begins with a preparation any more.
    Settled(Settlement),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStart {
    pub stream: StreamId,
    pub account: AccountId,
    pub device: DeviceId,
    pub resource: ResourceId,
    /// Name and tags as they were then.
    pub resource_name: String,
    pub resource_tags: Tags,
    pub grant: String,
    /// Where the client's connection came from.
    pub client: SocketAddr,
    /// What was dialled for it, as `host:port`: under a wildcard alias the host that was asked for, else the resource's own
    /// at that time.
    pub target: String,
    /// The number of the [`Preparation`] that it began with, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<u64>,
}

/// Sessions of a device with a resource that may begin without waiting for the disk once more: this record is durable
/// before the first of them. It says all of them but their time, their client's port and their number. When the machine
/// dies before a start record is with its disk, this record shows that there may have been a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    pub account: AccountId,
    pub device: DeviceId,
    pub resource: ResourceId,
    pub resource_name: String,
    pub resource_tags: Tags,
    pub grant: String,
    pub target: String,
    /// No more begin with it.
    pub sessions: u32,
    /// Which start of the machine it was written in. What a program wrote to a file outlives the program, but not the
    /// machine.
    pub boot: String,
}

/// What became of a preparation that was not used up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The number of the preparation.
    pub prepared: u64,
    pub account: AccountId,
    pub device: DeviceId,
    pub resource: ResourceId,
    pub resource_name: String,
    /// At most so many sessions began after the record before this one, just before the machine died, and left no record
    /// of their own. Zero almost always.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unaccounted: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEnd {
    pub stream: StreamId,
    /// The address that was reached; `None` when the dial failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled: Option<SocketAddr>,
    /// Bytes from the client to the resource.
    pub bytes_up: u64,
    /// Bytes from the resource to the client.
    pub bytes_down: u64,
    pub reason: EndReason,
    /// More about the reason, fit to be shown to an administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRefused {
    pub stream: Option<StreamId>,
    pub account: Option<AccountId>,
    pub device: Option<DeviceId>,
    pub resource: Option<ResourceId>,
    pub client: SocketAddr,
    /// The `code` of the problem that the client got.
    pub code: String,
    /// What it asked for where that was not the resource's own port on its own host: `:port`, `host` or `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Both sides were done.
    Closed,
    /// The client's side broke off.
    ClientReset,
    /// The resource's side broke off.
    TargetReset,
    /// The resource could not be reached.
    DialFailed,
    Revoked,
    GrantEnded,
    /// The node was stopped and its drain time ran out.
    Drained,
    /// The node died; the end was written at its next start and the byte counts are not known.
    NodeLost,
    /// The client never took the stream up, or the record was lost.
    Abandoned,
}

/// The hash that stands before the first record.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Why a chain is not whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("record {seq} does not follow record {expected}: records are missing or moved")]
    Gap { seq: u64, expected: u64 },
    #[error("record {seq} does not carry the hash of the record before it")]
    Broken { seq: u64 },
    #[error("record {seq} was changed after it was written")]
    Changed { seq: u64 },
    #[error("record {seq} belongs to another node")]
    OtherNode { seq: u64 },
}

/// A record in the form in which it is kept and sent, made without being taken apart again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub hash: String,
    /// As [`Record`] serialises.
    pub json: Vec<u8>,
}

impl Written {
    /// Makes the record with number `seq` that follows `previous`. `event` is an [`Event`] in JSON.
    #[must_use]
    pub fn link(seq: u64, node: NodeId, at: UnixMillis, event: &[u8], previous: &str) -> Self {
        let node = node.to_string();
        let hash = digest(seq, &node, at, event, previous);
        let mut json = Vec::with_capacity(event.len() + 320);
        let before = format!(r#"{{"seq":{seq},"node":"{node}","at":{at},"event":"#, at = at.0);
        let after = format!(r#","previous":"{previous}","hash":"{hash}"}}"#);
        [before.as_bytes(), event, after.as_bytes()].iter().for_each(|part| json.extend_from_slice(part));
        Self { hash, json }
    }
}

impl Record {
    /// Makes the record that follows `previous` (its hash, or [`GENESIS`]).
    #[must_use]
    pub fn link(seq: u64, node: NodeId, at: UnixMillis, event: Event, previous: &str) -> Self {
        let mut record = Self { seq, node, at, event, previous: previous.to_owned(), hash: String::new() };
        record.hash = record.digest();
        record
    }

    /// Checks that this record follows a record with number `seq` and hash `hash`.
    pub fn follows(&self, seq: u64, hash: &str) -> Result<(), ChainError> {
        let expected = seq.saturating_add(1);
        if self.seq != expected {
            return Err(ChainError::Gap { seq: self.seq, expected });
        }
        if self.previous != hash {
            return Err(ChainError::Broken { seq: self.seq });
        }
        if self.hash != self.digest() {
            return Err(ChainError::Changed { seq: self.seq });
        }
        Ok(())
    }

    fn digest(&self) -> String {
        let event = serde_json::to_vec(&self.event).unwrap_or_default();
        digest(self.seq, &self.node.to_string(), self.at, &event, &self.previous)
    }
}

fn digest(seq: u64, node: &str, at: UnixMillis, event: &[u8], previous: &str) -> String {
    use aws_lc_rs::digest::{Context, SHA256};
    let mut context = Context::new(&SHA256);
    context.update(previous.as_bytes());
    context.update(&seq.to_be_bytes());
    context.update(node.as_bytes());
    context.update(&at.0.to_be_bytes());
    context.update(event);
    hex(context.finish().as_ref())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
