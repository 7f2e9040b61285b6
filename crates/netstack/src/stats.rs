//! Counters.

/// Counters of one stack since it was made; `flows`, `held` and `pooled` are as of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Flows, held ones included.
    pub flows: usize,
    /// Held SYNs.
    pub held: usize,
    /// Sockets that wait for their next use.
    pub pooled: usize,
    /// Packets taken.
    pub packets_in: u64,
    /// Packets given.
    pub packets_out: u64,
    /// Those of them that are larger than [`MAX_PACKET`](crate::MAX_PACKET).
    pub coupled: u64,
    /// Polls of a flow: how much work was done, whatever the number of flows.
    pub polls: u64,
    /// Packets that could not be read, or that came from or went to where nothing is.
    pub dropped_packets: u64,
    /// SYNs that were dropped because a limit was reached.
    pub dropped_syns: u64,
    /// Datagrams that the owner was told of.
    pub datagrams: u64,
    /// Datagrams that were dropped because a limit was reached.
    pub dropped_datagrams: u64,
    /// Answers that were dropped because a limit was reached.
    pub dropped_answers: u64,
    /// Flows that ended because the TCP implementation failed on them.
    pub faults: u64,
}
