//! The messages between posternd and netd: one JSON object per packet of a `SOCK_SEQPACKET` socket.
//!
//! The asker begins with [`Request::Hello`]. Each answer repeats the number of its request. Unknown fields and unknown
//! kinds are errors: both programs come from one release, and the version in the hello says so when they do not.

use std::{fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    dns::DnsState,
    interface::{Interface, InterfaceConfig},
    network::Conflict,
};

/// Version of the protocol. Programs with different numbers do not work together and say so.
pub const PROTOCOL: u32 = 1;
/// Longest message in bytes, either way: room for the largest [`InterfaceConfig`], and less than the kernel's default
/// send buffer (212,992 bytes), which is what bounds a packet.
pub const MAX_MESSAGE: usize = 176 * 1024;

/// Loopback addresses of one connection.
pub const MAX_LOOPBACK: usize = 1024;

/// A request or an answer with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message<T> {
    /// Chosen by the asker, repeated in the answer.
    pub id: u64,
    pub body: T,
}

/// What an asker may say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// First message of every connection.
    Hello { protocol: u32 },
    /// Makes the asker's virtual network look like this. Answered by [`Answer::Configured`].
    Configure { interface: InterfaceConfig },
    /// Makes these addresses of 127.0.0.0/8 usable, beside 127.0.0.1 and what others asked for; earlier ones of this
    /// connection are given up. At most [`MAX_LOOPBACK`]. Answered by [`Answer::Loopback`].
    Loopback { addresses: Vec<Ipv4Addr> },
    /// Takes everything back, and keeps the connection. Answered by [`Answer::Released`].
    Release {},
}

/// What netd says: answers, and [`Answer::Names`] by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Hello {
        protocol: u32,
        /// netd's own version, for people.
        version: String,
    },
    /// With the queues of a new device as `SCM_RIGHTS`, `queues` of them; with none when the device stays.
    Configured {
        interface: Interface,
        queues: u8,
    },
    Loopback {},
    Released {},
    /// Not asked for, with the number 0: how the names of this connection's network stand now. Their resolver may come and
    /// go after [`Answer::Configured`].
    Names {
        dns: DnsState,
    },
    Refused {
        problem: Problem,
    },
}

/// Why something was refused or did not work, in words that may be shown to the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub code: Code,
    /// A sentence: what is wrong.
    pub title: String,
    /// A sentence: what to do.
    pub remedy: String,
    /// What overlaps the wished network, for [`Code::SubnetConflict`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
}

impl Problem {
    pub(crate) const fn new(code: Code, title: String, remedy: String) -> Self {
        Self { code, title, remedy, conflicts: Vec::new() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.title, self.remedy)
    }
}

/// Kinds of problems, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The message is none of this protocol.
    BadRequest,
    /// The versions of the two programs differ.
    WrongProtocol,
    /// This user may not ask. See `/etc/postern/netd.toml`.
    NotAllowed,
    /// This user has another connection that holds a device.
    AlreadyInUse,
    /// As many users as netd serves are here already.
    TooManyClients,
    /// Not a private network, or one that the administrator does not allow.
    RangeForbidden,
    /// The subnet overlaps a network of this machine; `conflicts` names it. Another subnet may work.
    SubnetConflict,
    /// All reserved addresses of this subnet are taken by other users.
    NoFreeSlot,
    /// A zone that nobody may take over: a public suffix, or one that covers a name to be kept out.
    ZoneForbidden,
    /// A number of the request is out of its bounds.
    OutOfBounds,
    /// This machine has no TUN device driver, or does not let netd use it.
    NoTun,
    /// The system refused a step; the title says which and why.
    System,
    /// netd is about to end.
    ShuttingDown,
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error("a message has at most {MAX_MESSAGE} bytes")]
    TooLong,
    #[error("not a message of this protocol: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl<T: DeserializeOwned> Message<T> {
    /// Reads one packet.
    ///
    /// # Errors
    /// What makes it no message.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(MessageError::TooLong);
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl<T: Serialize> Message<T> {
    /// The bytes of one packet.
    ///
    /// # Errors
    /// [`MessageError::TooLong`] for more than the other end takes.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() > MAX_MESSAGE { Err(MessageError::TooLong) } else { Ok(bytes) }
    }
}

#[cfg(test)]
mod tests;
