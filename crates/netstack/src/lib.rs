//! The virtual network of Virtual Networking Mode: IP packets of a TUN device on one side, byte streams and datagrams
//! on the other.
//!
//! A [`Stack`] is sans-IO. It takes packets ([`Stack::handle_packet`]) and the time ([`Stack::handle_timeout`]), and
//! yields packets ([`Stack::poll_transmit`]), [`Event`]s ([`Stack::poll_event`]) and the time at which it wants to be
//! called again ([`Stack::poll_timeout`]). Between those, its owner reads and writes the streams in place
//! ([`Stack::recv`], [`Stack::send`]). There is one stack per shard (a TUN queue, or a share of [`shard_of`]), and
//! shards have nothing in common. An owner who does not follow the queues in which shard has a flow offers packets
//! ([`Stack::offer_packet`]), and brings those that are given back to the right one.
//!
//! The resolver ([`dns`]) stands beside it: the bytes of a query in, the bytes of the answer out.
//!
//! # The life of a flow
//!
//! 1. A SYN for an address and port of the [`AddressTable`] is *held*: nothing is answered, [`Event::Syn`] tells of it.
//! 2. The owner says whose it is ([`Stack::claim`]) and dials. [`Stack::accept`] makes a socket and lets the SYN in,
//!    [`Stack::refuse`] answers RST, [`Stack::drop_flow`] answers nothing. After [`StackConfig::dial_timeout`] the
//!    stack refuses by itself. So a refused or dead target never looks connected.
//! 3. [`Event::Writable`] tells that the handshake is done. Data arrives with [`Event::Readable`]; the peer's half-close
//!    with [`Event::PeerClosed`], after which the other direction goes on.
//! 4. [`Event::Closed`] is the last event of a flow, and its [`FlowId`] is never valid again. A flow that the owner ended
//!    itself ([`Stack::abort`], [`Stack::refuse`], [`Stack::drop_flow`]) has no more events.
//!
//! # What it never does
//!
//! - It opens no socket, starts no task and reads no clock; the same seed and the same calls give the same packets.
//! - It never lets one flow touch another: each has a socket set of its own behind the 4-tuple map, and ids carry a
//!   generation, so neither a late call nor a late packet meets the next flow of the same slot or port.
//! - It never drops data of a flow: what does not fit stays with the sender, by a closed window. What it does drop is
//!   bounded, counted in [`Stats`] and retried by its sender: a SYN or datagram too many, an answer too many.
//! - It never answers for an address outside the table's networks, and routes nothing.
//! - It never panics on what a program sends, nor grows without bound by it.
//! - It reassembles no IP fragments and reads no IPv6 extension headers: TCP by a local kernel has neither.
#![forbid(unsafe_code)]

pub mod dns;

mod address;
mod config;
mod device;
mod event;
mod flow;
mod offload;
mod packet;
mod pool;
mod shard;
mod stack;
mod stats;
mod timers;

pub use self::{
    address::{Address, AddressTable},
    config::{Answers, RingSizes, StackConfig},
    event::{AnswerId, CloseReason, Event, Protocol},
    flow::{FlowId, FlowInfo},
    offload::{Offload, OffloadError, PartialChecksum, Segmentation, SegmentationKind, VIRTIO_HEADER},
    shard::{flow_hash, shard_of},
    stack::{FlowError, RecvError, SendError, Stack, Stray, Transmit},
    stats::Stats,
};

/// The largest packet whose length its header can tell.
pub const MAX_PACKET: usize = 65_535;

/// The largest packet that [`Stack::poll_transmit`] ever writes, with [`StackConfig::largest`].
/// (Twice as much is more than Linux puts into one packet: 17 pieces of 32 KiB and less.)
pub const MAX_COUPLED: usize = 4 * MAX_PACKET;
