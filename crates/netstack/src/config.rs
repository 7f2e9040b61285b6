//! Limits and sizes of a stack.

use std::time::Duration;

/// Limits and sizes of one [`Stack`](crate::Stack). All limits hold for one stack; an owner with several shards divides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackConfig {
    /// MTU of the device, in bytes: 1280 to 65,535. Values outside are taken as the nearest inside.
    pub mtu: usize,
    /// Whether the device completes partial checksums and cuts segments (`IFF_VNET_HDR` with `TUNSETOFFLOAD`, TSO for
    /// IPv4 and IPv6). The stack then emits TCP segments up to 64 KiB with [`Offload`](crate::Offload) set.
    pub offload: bool,
    /// Bytes of the largest packet that the stack may write: [`MAX_PACKET`](crate::MAX_PACKET) to
    /// [`MAX_COUPLED`](crate::MAX_COUPLED); values outside are taken as the nearest inside. What is larger than
    /// [`MAX_PACKET`](crate::MAX_PACKET) is TCP over IPv4 with offload, with a length of 0 in its header: the device's
    /// kernel has to take that (Linux since 6.3).
    pub largest: usize,
    /// Flows at most, held ones included. A SYN beyond it is dropped: its sender tries again a second later.
    pub max_flows: usize,
    /// Held SYNs at most; one uid may have two thirds of them. A SYN beyond it is dropped, as above.
    pub max_held: usize,
    /// How long a SYN is held before it is refused.
    pub dial_timeout: Duration,
    /// How long the peer may be silent before it is asked for a sign of life.
    pub keepalive: Duration,
    /// How long the peer may leave data or signs of life unanswered before the flow is reset.
    pub dead_after: Duration,
    /// How long a flow may carry no data before it is reset. `None`: for ever.
    pub idle: Option<Duration>,
    /// The same for a flow of which one direction is closed.
    pub half_closed_idle: Option<Duration>,
    /// Sizes of the flows' rings.
    pub rings: RingSizes,
    /// Bytes that rings kept for reuse may hold in all.
    pub pool: usize,
    /// Datagrams that wait for [`Stack::poll_event`](crate::Stack::poll_event) at most; more are dropped.
    pub max_datagrams: usize,
    /// The largest datagram that is taken; larger ones are dropped.
    pub max_datagram: usize,
    /// Answers (RST, ICMP, datagrams) that wait for [`Stack::poll_transmit`](crate::Stack::poll_transmit) at most; more
    /// are dropped.
    pub max_answers: usize,
    /// Whether answers that open nothing need the owner's word.
    pub answers: Answers,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            mtu: 1500,
            offload: false,
            largest: crate::MAX_PACKET,
            max_flows: 65_536,
            max_held: 1024,
            dial_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(60),
            dead_after: Duration::from_secs(300),
            idle: Some(Duration::from_secs(24 * 3600)),
            half_closed_idle: Some(Duration::from_secs(3600)),
            rings: RingSizes::default(),
            pool: 64 << 20,
            max_datagrams: 512,
            max_datagram: 4096,
            max_answers: 1024,
            answers: Answers::Direct,
        }
    }
}

/// Who decides about RST to a new connection, ICMP unreachable and echo replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// The stack answers at once.
    Direct,
    /// The stack asks with [`Event::Answer`](crate::Event::Answer), and answers after
    /// [`Stack::release`](crate::Stack::release): for owners that look up whose packet it was, so that another uid,
    /// which reached the device past the routing rules, gets no answer at all.
    Asked,
}

/// Sizes of the rings, each way, by the number of flows that have a socket when the ring is made. Memory is resident
/// only once used, but a ring that has been used whole stays so: many large ones leave the caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Bytes while there are at most `few_flows` flows.
    pub large: usize,
    /// Bytes while there are at most `many_flows` flows.
    pub medium: usize,
    /// Bytes beyond.
    pub small: usize,
    /// See `large`.
    pub few_flows: usize,
    /// See `medium`.
    pub many_flows: usize,
}

impl Default for RingSizes {
    fn default() -> Self {
        Self { large: 1 << 20, medium: 256 << 10, small: 64 << 10, few_flows: 32, many_flows: 2048 }
    }
}
