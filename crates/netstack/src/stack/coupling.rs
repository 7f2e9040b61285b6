//! Packets beyond 64 KiB: segments of one flow that follow one another leave as one packet.
//!
//! A packet costs its way through the kernel, the wake-up of a program and an acknowledgement, whatever its size. smoltcp
//! writes at most 64 KiB at a time, so each further segment is written where its data belong, with its headers over the
//! last bytes of the one before, which are put back then: nothing is copied once more.
//!
//! The length field of IPv4 holds 16 bits. Linux reads 0 there, in a packet that is to be cut, as "as long as it is" (since
//! 6.3; it makes such packets itself, by the name of BIG TCP).

use super::Stack;
use crate::{
    MAX_PACKET, Offload, SegmentationKind,
    flow::{Coupled, Phase},
    packet::{FIN, Packet, RST, SYN, Segment, build},
};

/// IPv4 and TCP, each with all options that there can be.
const MOST_HEADERS: usize = 120;

impl Stack {
    /// Puts segments of the flow behind the one of `len` bytes in `buffer`, and says how long the packet is then.
    pub(super) fn couple(&mut self, slot: u32, buffer: &mut [u8], len: usize, offload: Offload) -> usize {
        let Some(cut) = offload.segmentation.filter(|cut| cut.kind == SegmentationKind::Tcp4) else { return len };
        let (headers, mut end) = (usize::from(cut.headers), len);
        let Some(first) = buffer.get(..len).and_then(read) else { return len };
        if headers > MOST_HEADERS || first.flags & (SYN | FIN | RST) != 0 || !self.may_couple(slot, first.sequence) {
            return len;
        }
        let mut last = first;
        while last.flags & FIN == 0 && buffer.len().saturating_sub(end) >= MAX_PACKET {
            let at = end - headers;
            let mut kept = [0; MOST_HEADERS];
            let (Some(kept), Some(space)) = (kept.get_mut(..headers), buffer.get_mut(at..)) else { break };
            let Some(under) = space.get_mut(..headers) else { break };
            kept.copy_from_slice(under);
            let written = self.write(slot, space);
            let next = written.and_then(|written| space.get(..written)).and_then(read);
            let follows = next.filter(|next| {
                next.headers == headers
                    && next.flags & (SYN | RST) == 0
                    && next.sequence == first.sequence.wrapping_add(u32::try_from(end - headers).unwrap_or(0))
            });
            if let (Some(written), None) = (written, follows) {
                // Something else, such as a repetition. It leaves by itself, after this one.
                self.send_apart(slot, space.get_mut(..written).unwrap_or_default());
            }
            if let Some(under) = space.get_mut(..headers) {
                under.copy_from_slice(kept);
            }
            let Some(next) = follows else { break };
            last = Header { flags: last.flags | next.flags, ..next };
            end += next.data;
        }
        if end > len
            && let Some(packet) = buffer.get_mut(..end)
        {
            build::lengthen(packet, last.acknowledgement, last.flags, last.window);
        }
        if end > MAX_PACKET {
            self.note_coupled(slot, first.sequence, end - headers);
        }
        end
    }

    /// Not once something had to be sent again: whatever stands in the way of such packets may do so for ever.
    fn may_couple(&mut self, slot: u32, sequence: u32) -> bool {
        let Some(Phase::Open(open)) = self.flows.slot_mut(slot).map(|place| &mut place.phase) else { return false };
        let Some(Coupled { first, edge }) = open.coupled else { return open.couples };
        if sequence.wrapping_sub(edge) >= 1 << 31 {
            open.couples = false;
            if sequence == first {
                // Nothing of the first one has arrived. This device's kernel does not take them.
                self.config.largest = MAX_PACKET;
            }
        }
        open.couples
    }

    fn note_coupled(&mut self, slot: u32, sequence: u32, data: usize) {
        self.stats.coupled += 1;
        let Some(Phase::Open(open)) = self.flows.slot_mut(slot).map(|place| &mut place.phase) else { return };
        let edge = sequence.wrapping_add(u32::try_from(data).unwrap_or(0));
        open.coupled = Some(Coupled { first: open.coupled.map_or(sequence, |coupled| coupled.first), edge });
    }

    fn send_apart(&mut self, slot: u32, packet: &mut [u8]) {
        let Some(Phase::Open(open)) = self.flows.slot(slot).map(|place| &place.phase) else { return };
        let offload = self.link.finish(packet, open.max_segment);
        self.answering.push_apart(packet.to_vec(), offload);
    }
}

/// What of the headers of a segment matters here.
#[derive(Clone, Copy)]
struct Header {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    data: usize,
    headers: usize,
}

fn read(bytes: &[u8]) -> Option<Header> {
    let packet = Packet::parse(bytes)?;
    let Segment { sequence, acknowledgement, flags, window, data, .. } = Segment::parse(packet.payload)?;
    Some(Header { sequence, acknowledgement, flags, window, data, headers: packet.bytes.len() - data })
}
