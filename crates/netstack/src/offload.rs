//! What travels beside a packet where the device segments and completes checksums: the virtio network header.

use thiserror::Error;

/// Length of the virtio network header in front of a packet of a device with `IFF_VNET_HDR`, in bytes.
pub const VIRTIO_HEADER: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
const GSO_TCP4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`.
const GSO_TCP6: u8 = 4;
/// `VIRTIO_NET_HDR_GSO_ECN`, a flag beside the kind.
const GSO_ECN: u8 = 0x80;

/// What is left to do for a packet by whoever sends it on. Nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum field holds the pseudo-header's sum only.
    pub checksum: Option<PartialChecksum>,
    /// The packet is to be cut.
    pub segmentation: Option<Segmentation>,
}

/// Where a checksum is to be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where summing starts, in bytes from the packet's start.
    pub start: u16,
    /// Where the sum goes, in bytes from `start`.
    pub offset: u16,
}

/// How a packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// The headers that each segment gets.
    pub kind: SegmentationKind,
    /// Payload bytes of each segment.
    pub size: u16,
    /// Bytes of all headers.
    pub headers: u16,
}

/// The headers of a packet that is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentationKind {
    /// IPv4 and TCP.
    Tcp4,
    /// IPv6 and TCP.
    Tcp6,
}

/// Why a virtio header was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OffloadError {
    /// It is shorter than [`VIRTIO_HEADER`].
    #[error("the virtio header is cut short")]
    Short,
    /// It asks for a segmentation that was never agreed on.
    #[error("unknown kind of segmentation {0}")]
    Kind(u8),
}

impl Offload {
    /// Reads the header in front of a packet, and gives the packet after it.
    pub fn decode(frame: &[u8]) -> Result<(Self, &[u8]), OffloadError> {
        let Some((&[flags, kind, h0, h1, s0, s1, c0, c1, o0, o1], packet)) = frame.split_first_chunk::<VIRTIO_HEADER>()
        else {
            return Err(OffloadError::Short);
        };
        let checksum = (flags & NEEDS_CHECKSUM != 0)
            .then(|| PartialChecksum { start: u16::from_le_bytes([c0, c1]), offset: u16::from_le_bytes([o0, o1]) });
        let kind = match kind & !GSO_ECN {
            0 => None,
            GSO_TCP4 => Some(SegmentationKind::Tcp4),
            GSO_TCP6 => Some(SegmentationKind::Tcp6),
            other => return Err(OffloadError::Kind(other)),
        };
        let segmentation = kind.map(|kind| Segmentation {
            kind,
            size: u16::from_le_bytes([s0, s1]),
            headers: u16::from_le_bytes([h0, h1]),
        });
        Ok((Self { checksum, segmentation }, packet))
    }

    /// The header to put in front of a packet.
    pub fn encode(&self) -> [u8; VIRTIO_HEADER] {
        let mut header = [0; VIRTIO_HEADER];
        let [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1] = &mut header;
        if let Some(checksum) = self.checksum {
            *flags = NEEDS_CHECKSUM;
            [*c0, *c1] = checksum.start.to_le_bytes();
            [*o0, *o1] = checksum.offset.to_le_bytes();
        }
        if let Some(segmentation) = self.segmentation {
            *kind = match segmentation.kind {
                SegmentationKind::Tcp4 => GSO_TCP4,
                SegmentationKind::Tcp6 => GSO_TCP6,
            };
            [*h0, *h1] = segmentation.headers.to_le_bytes();
            [*s0, *s1] = segmentation.size.to_le_bytes();
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let offload = Offload {
            checksum: Some(PartialChecksum { start: 40, offset: 16 }),
            segmentation: Some(Segmentation { kind: SegmentationKind::Tcp6, size: 1440, headers: 60 }),
        };
        let frame = [&offload.encode()[..], b"packet"].concat();
        assert_eq!(Offload::decode(&frame), Ok((offload, &b"packet"[..])));
        assert_eq!(Offload::decode(&[0; 10]), Ok((Offload::default(), &[][..])));
    }

    #[test]
    fn a_header_that_was_never_agreed_on_is_refused() {
        assert_eq!(Offload::decode(&[0; 9]), Err(OffloadError::Short));
        assert_eq!(Offload::decode(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), Err(OffloadError::Kind(3)));
        assert!(Offload::decode(&[1, 1 | 0x80, 0, 0, 0, 0, 0, 0, 0, 0]).is_ok(), "ECN is a flag, not a kind");
    }
}
