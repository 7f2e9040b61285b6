//! `postern-dns-stub`: answers on loopback for machines without systemd-resolved, whose resolv.conf cannot tell zones
//! apart. Names in the zones of virtual networks are asked at their resolvers, all others where the machine asked before.
//!
//! A process of its own, without any privilege but a port below 1024: it reads what comes from the network, which netd
//! does not do. It keeps no cache and changes nothing in an answer.

mod control;
mod exchange;
mod message;
mod pending;
mod program;
mod serve;

pub(crate) use control::{Control, Order};
pub use control::{DEFAULT_SOCKET, LinkRoute, Routes, SOCKET_VARIABLE};
pub use program::{StubError, StubOptions, start};
pub use serve::run;

/// What must hold for any message: for tests, and for the fuzz target.
#[doc(hidden)]
pub fn check_message(bytes: &[u8]) {
    let refused = message::refusal(bytes, message::SERVER_FAILURE);
    assert!(refused.len() <= bytes.len().max(12), "an answer of ours is never longer than the question");
    match message::Query::parse(bytes) {
        Ok(query) => {
            assert_eq!(query.answered_by(&refused, query.id), Some(message::SERVER_FAILURE));
            assert_eq!(query.answered_by(bytes, query.id), None, "a query is no answer");
            let other = query.id ^ 1;
            assert_eq!(query.answered_by(&message::with_id(refused, other), query.id), None);
            assert!(message::Query::parse(&message::with_id(bytes.to_vec(), other)).is_ok_and(|read| read.id == other));
        }
        Err(message::NoQuery::Reply(_)) => assert!(refused.len() >= 12),
        Err(message::NoQuery::Ignore) => {
            assert!(bytes.len() < 12 || bytes.get(2).is_some_and(|flags| flags & 0x80 != 0))
        }
    }
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
