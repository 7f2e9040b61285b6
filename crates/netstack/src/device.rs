//! The device that smoltcp sees: one packet in, one packet out, and the MTU that it should believe in.

use std::net::IpAddr;

use smoltcp::{
    phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
};

use crate::{
    MAX_PACKET, Offload, PartialChecksum, Segmentation, SegmentationKind, StackConfig,
    packet::{Packet, SYN, Segment, Syn, TCP, build},
};

const TCP_HEADER: u16 = 20;
/// RFC 9293 3.7.1: what counts when the peer names no maximum segment size.
const DEFAULT_SEGMENT_4: u16 = 536;
const DEFAULT_SEGMENT_6: u16 = 1220;
/// What smoltcp takes at least, as Linux does.
const MIN_SEGMENT: u16 = 48;

/// How packets look on the wire.
///
/// With offload, smoltcp is told that the MTU is 65,535 and that the peer takes as much, and the true segment size is put
/// beside the packets here. (smoltcp's own offload covers IPv4 only: with IPv6 it drops what is larger than the MTU.)
pub(crate) struct Link {
    capabilities: DeviceCapabilities,
    mtu: u16,
    offload: bool,
}

/// One call's view of the device.
pub(crate) struct Port<'a> {
    capabilities: &'a DeviceCapabilities,
    packet: Option<&'a [u8]>,
    buffer: &'a mut [u8],
    written: Option<usize>,
}

impl Link {
    pub(crate) fn new(config: &StackConfig) -> Self {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = if config.offload { MAX_PACKET } else { config.mtu };
        // What comes from the device was made by this machine's kernel, often with a checksum that is partial still.
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = if config.offload { Checksum::None } else { Checksum::Tx };
        Self { capabilities, mtu: u16::try_from(config.mtu).unwrap_or(u16::MAX), offload: config.offload }
    }

    pub(crate) fn port<'a>(&'a self, packet: Option<&'a [u8]>, buffer: &'a mut [u8]) -> Port<'a> {
        Port { capabilities: &self.capabilities, packet, buffer, written: None }
    }

    /// The payload bytes of a segment that both ends can take.
    pub(crate) fn max_segment(&self, address: IpAddr, syn: &Syn) -> u16 {
        let default = if address.is_ipv4() { DEFAULT_SEGMENT_4 } else { DEFAULT_SEGMENT_6 };
        let theirs = syn.max_segment.filter(|size| *size > 0).unwrap_or(default);
        theirs.max(MIN_SEGMENT).min(self.own_segment(address))
    }

    /// The maximum segment size to tell smoltcp as the peer's.
    pub(crate) fn believed_segment(&self, address: IpAddr, max_segment: u16) -> u16 {
        if self.offload { u16::MAX - headers(address) } else { max_segment }
    }

    fn own_segment(&self, address: IpAddr) -> u16 {
        self.mtu.saturating_sub(headers(address))
    }

    /// Completes a TCP packet that smoltcp wrote, and says what is left to do.
    #[inline]
    pub(crate) fn finish(&self, bytes: &mut [u8], max_segment: u16) -> Offload {
        if !self.offload {
            return Offload::default();
        }
        let Some(packet) = Packet::parse(bytes).filter(|packet| packet.protocol == TCP) else {
            return Offload::default();
        };
        let Some(segment) = Segment::parse(packet.payload) else { return Offload::default() };
        let sum = build::fold(build::pseudo_sum(packet.source, packet.destination, TCP, packet.payload.len()));
        let (start, address) = (packet.bytes.len() - packet.payload.len(), packet.source);
        let (syn, data, headers) = (segment.has(SYN), segment.data, packet.bytes.len() - segment.data);
        if let Some(field) = bytes.get_mut(start + 16..start + 18) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
        if syn && let Some([2, 4, size @ ..]) = bytes.get_mut(start + 20..start + 24) {
            size.copy_from_slice(&self.own_segment(address).to_be_bytes());
        }
        let start = u16::try_from(start).unwrap_or(0);
        let kind = if address.is_ipv4() { SegmentationKind::Tcp4 } else { SegmentationKind::Tcp6 };
        let segmentation = (data > usize::from(max_segment)).then(|| Segmentation {
            kind,
            size: max_segment,
            headers: u16::try_from(headers).unwrap_or(0),
        });
        Offload { checksum: Some(PartialChecksum { start, offset: 16 }), segmentation }
    }
}

/// Bytes of the headers of a segment without options.
fn headers(address: IpAddr) -> u16 {
    TCP_HEADER + if address.is_ipv4() { 20 } else { 40 }
}

impl Port<'_> {
    /// The length of the packet that was written to the buffer.
    pub(crate) fn written(&self) -> Option<usize> {
        self.written
    }
}

impl Device for Port<'_> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Room<'a>
    where
        Self: 'a;

    #[inline]
    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Room<'_>)> {
        let packet = self.packet.take()?;
        Some((Received(packet), Room { buffer: self.buffer, written: &mut self.written }))
    }

    #[inline]
    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        // One packet for each call.
        self.written.is_none().then_some(Room { buffer: self.buffer, written: &mut self.written })
    }

    #[inline]
    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

pub(crate) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

pub(crate) struct Room<'a> {
    buffer: &'a mut [u8],
    written: &'a mut Option<usize>,
}

impl TxToken for Room<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        match self.buffer.get_mut(..length) {
            Some(buffer) => {
                *self.written = Some(length);
                write(buffer)
            }
            // Cannot happen with a buffer of the largest packet's size; the packet would be sent again.
            None => write(&mut vec![0; length]),
        }
    }
}
