//! Sockets that wait for their next flow. New rings cost more than a whole handshake, because each page of theirs is
//! fetched from the system at its first use.

use std::collections::BTreeMap;

use crate::flow::{Moved, Socket};

/// What is resident of a socket that never carried anything, each way.
const LEAST: usize = 4096;

/// Sockets by the size of their rings, the last used one first.
pub(crate) struct Pool {
    by_ring: BTreeMap<usize, Vec<Socket>>,
    /// Bytes that the sockets in it may hold resident.
    used: usize,
    limit: usize,
}

impl Pool {
    pub(crate) fn new(limit: usize) -> Self {
        Self { by_ring: BTreeMap::new(), used: 0, limit }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_ring.values().map(Vec::len).sum()
    }

    pub(crate) fn take(&mut self, ring: usize) -> Option<Socket> {
        let socket = self.by_ring.get_mut(&ring)?.pop()?;
        self.used = self.used.saturating_sub(cost(&socket));
        Some(socket)
    }

    /// Keeps a socket, or frees it when too much is kept already.
    pub(crate) fn put(&mut self, mut socket: Socket) {
        let unread = socket.tcp().recv_queue();
        let Moved { received, sent } = socket.moved;
        socket.touched = socket.touched.max(received + unread).max(sent).min(socket.ring);
        socket.moved = Moved::default();
        socket.tcp_mut().abort();
        if self.used + cost(&socket) <= self.limit {
            self.used += cost(&socket);
            self.by_ring.entry(socket.ring).or_default().push(socket);
        }
    }
}

fn cost(socket: &Socket) -> usize {
    2 * socket.touched.max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(ring: usize, bytes: usize) -> Socket {
        let mut socket = Socket::new(ring);
        socket.moved = Moved { received: bytes, sent: 0 };
        socket
    }

    #[test]
    fn sockets_are_kept_while_the_memory_they_hold_is_within_the_limit() {
        let mut pool = Pool::new(100_000);
        for _ in 0..5 {
            pool.put(used(1 << 20, 20_000));
        }
        assert_eq!(pool.len(), 2, "40,000 bytes each");
        for _ in 0..5 {
            pool.put(used(1 << 20, 1));
        }
        assert_eq!(pool.len(), 4, "8,192 bytes each");
        while pool.take(1 << 20).is_some() {}
        assert_eq!((pool.len(), pool.used), (0, 0));
        assert!(pool.take(4096).is_none(), "another size of ring");
    }

    #[test]
    fn a_socket_that_was_used_once_counts_as_used_for_ever() {
        let mut pool = Pool::new(100_000);
        pool.put(used(1 << 20, 30_000));
        let socket = pool.take(1 << 20).unwrap();
        pool.put(socket);
        assert_eq!(pool.used, 60_000);
    }
}
