//! What lies between a program's kernel and the stack: single packets made by hand, and a device that cuts segments and
//! completes checksums as a kernel does.

use std::net::{IpAddr, SocketAddr};

use postern_netstack::{MAX_PACKET, Offload};
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr},
};

/// A TCP segment made by hand.
#[derive(Clone, Copy)]
pub(crate) struct Hand<'a> {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) control: TcpControl,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: Option<u32>,
    pub(crate) payload: &'a [u8],
}

impl Hand<'_> {
    pub(crate) fn syn(source: SocketAddr, destination: SocketAddr, sequence: u32) -> Self {
        Hand { source, destination, control: TcpControl::Syn, sequence, acknowledgement: None, payload: &[] }
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        let syn = self.control == TcpControl::Syn;
        let repr = TcpRepr {
            src_port: self.source.port(),
            dst_port: self.destination.port(),
            control: self.control,
            seq_number: number(self.sequence),
            ack_number: self.acknowledgement.map(number),
            window_len: 64_000,
            window_scale: syn.then_some(7),
            max_seg_size: syn.then_some(1460),
            sack_permitted: syn,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: self.payload,
        };
        let (source, destination) = (IpAddress::from(self.source.ip()), IpAddress::from(self.destination.ip()));
        let ip = IpRepr::new(source, destination, IpProtocol::Tcp, repr.buffer_len(), 64);
        let mut packet = vec![0; ip.buffer_len()];
        let checksums = ChecksumCapabilities::default();
        ip.emit(&mut packet, &checksums);
        let payload = &mut packet[ip.header_len()..];
        repr.emit(&mut TcpPacket::new_unchecked(payload), &source, &destination, &checksums);
        packet
    }
}

fn number(number: u32) -> TcpSeqNumber {
    TcpSeqNumber(number.cast_signed())
}

/// A packet around a payload made by hand.
pub(crate) fn around(source: IpAddr, destination: IpAddr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let ip = IpRepr::new(source.into(), destination.into(), protocol, payload.len(), 64);
    let mut packet = vec![0; ip.header_len()];
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    packet.extend_from_slice(payload);
    packet
}

/// A datagram made by hand.
pub(crate) fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: source.port(), dst_port: destination.port() };
    let mut bytes = vec![0; 8 + payload.len()];
    let (from, to) = (IpAddress::from(source.ip()), IpAddress::from(destination.ip()));
    let mut packet = UdpPacket::new_unchecked(&mut bytes);
    repr.emit(&mut packet, &from, &to, payload.len(), |room| room.copy_from_slice(payload), &Default::default());
    around(source.ip(), destination.ip(), IpProtocol::Udp, &bytes)
}

/// The parts of a TCP packet that tests look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) window: u16,
    pub(crate) max_segment: Option<u16>,
    pub(crate) data: usize,
}

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// `None` for what is no TCP.
pub(crate) fn see(packet: &[u8]) -> Option<Seen> {
    let (source, destination, start) = addresses(packet);
    let protocol = if source.is_ipv4() { packet[9] } else { packet[6] };
    if protocol != 6 {
        return None;
    }
    let tcp = &packet[start..];
    let header = usize::from(tcp[12] >> 4) * 4;
    let max_segment = (header >= 24 && tcp[20..22] == [2, 4]).then(|| u16::from_be_bytes([tcp[22], tcp[23]]));
    Some(Seen {
        source: SocketAddr::new(source, u16::from_be_bytes([tcp[0], tcp[1]])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([tcp[2], tcp[3]])),
        flags: tcp[13],
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        acknowledgement: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
        window: u16::from_be_bytes([tcp[14], tcp[15]]),
        max_segment,
        data: tcp.len() - header,
    })
}

/// Source, destination, and where the payload starts.
pub(crate) fn addresses(packet: &[u8]) -> (IpAddr, IpAddr, usize) {
    if packet[0] >> 4 == 4 {
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        (address(12), address(16), usize::from(packet[0] & 15) * 4)
    } else {
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        (address(8), address(24), 40)
    }
}

/// Does what the stack left to the device: the packets that a program's kernel would see, no larger than the MTU.
pub(crate) fn complete(packet: &[u8], offload: Offload, mtu: usize) -> Vec<Vec<u8>> {
    if packet[0] >> 4 == 4 {
        // Linux since 6.3: what is to be cut and says 0 is as long as it is.
        let said = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let large = packet.len() > MAX_PACKET && offload.segmentation.is_some();
        assert_eq!(said, if large { 0 } else { packet.len() });
        assert_eq!(fold(words(&packet[..20])), 0xffff, "the header's checksum");
    } else {
        assert!(packet.len() <= MAX_PACKET, "{} bytes of IPv6", packet.len());
    }
    let Some(segmentation) = offload.segmentation else {
        let mut packet = packet.to_vec();
        if let Some(checksum) = offload.checksum {
            assert!(packet.len() <= mtu, "{} bytes in one packet", packet.len());
            fill(&mut packet, checksum.start.into(), checksum.offset.into());
        }
        return vec![packet];
    };
    let checksum = offload.checksum.expect("segments need their checksums");
    let (headers, size) = (usize::from(segmentation.headers), usize::from(segmentation.size));
    assert!(headers + size <= mtu);
    let start = usize::from(checksum.start);
    let pieces = packet[headers..].chunks(size).collect::<Vec<_>>();
    assert!(pieces.len() > 1, "nothing to cut");
    let mut done = 0;
    let mut packets = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let mut segment = [&packet[..headers], piece].concat();
        let sequence = u32::from_be_bytes(segment[start + 4..start + 8].try_into().unwrap()).wrapping_add(done);
        segment[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
        if at + 1 < pieces.len() {
            segment[start + 13] &= !(FIN | 8);
        }
        // The pseudo-header's sum held the whole length.
        let difference = (packet.len() - segment.len()) as u32;
        let field = u32::from(u16::from_be_bytes([segment[start + 16], segment[start + 17]]));
        let sum = fold(field + (0xffff - fold(difference) as u32));
        segment[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
        if segment[0] >> 4 == 4 {
            let length = (segment.len() as u16).to_be_bytes();
            segment[2..4].copy_from_slice(&length);
            segment[10..12].copy_from_slice(&[0, 0]);
            let sum = !fold(words(&segment[..20]));
            segment[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            let length = (segment.len() as u16 - 40).to_be_bytes();
            segment[4..6].copy_from_slice(&length);
        }
        fill(&mut segment, start, checksum.offset.into());
        done += piece.len() as u32;
        packets.push(segment);
    }
    packets
}

fn fill(packet: &mut [u8], start: usize, offset: usize) {
    let sum = !fold(words(&packet[start..]));
    packet[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
