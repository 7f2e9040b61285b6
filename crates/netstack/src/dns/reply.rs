//! Writing answers.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Header, HeaderCounts, MessageType, Metadata, ResponseCode},
    rr::{DNSClass, RecordType},
    serialize::binary::{BinEncodable as _, BinEncoder},
};

use super::{Notice, Outcome, Range, query::Query};

/// The largest datagram that every asker takes (RFC 1035, 4.2.1).
pub(super) const MIN_UDP: u16 = 512;
/// The largest datagram that is sent, whatever the asker would take: it is never cut into fragments (DNS flag day 2020).
pub const MAX_UDP: u16 = 1232;
/// A pointer to the name in the question, which follows the header.
const QUESTION_NAME: u16 = 0xc00c;
/// The number of the option for Extended DNS Errors (RFC 8914, 2).
const EXTENDED_ERROR: u16 = 15;

/// An answer to a question that was understood.
pub(super) struct Reply<'a> {
    pub(super) query: &'a Query<'a>,
    pub(super) code: ResponseCode,
    pub(super) body: Body<'a>,
    pub(super) notice: Option<Notice>,
    pub(super) range: &'a Range,
}

/// The records of an answer.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    /// None at all: what is not ours, and what failed.
    Empty,
    /// No answer from a zone, with its SOA record, which says how long that may be kept.
    Negative(&'a [u8]),
    /// One record with an owner of its own.
    Records(&'a [u8]),
    /// A PTR record of the name in question, its data encoded.
    Pointer(&'a [u8]),
    Addresses {
        v4: &'a [Ipv4Addr],
        v6: &'a [Ipv6Addr],
        ttl: u32,
    },
}

/// Writes an answer that is a header and nothing else, for messages whose question is not known.
pub(super) fn bare(metadata: &Metadata, code: ResponseCode, out: &mut Vec<u8>) -> Outcome {
    header(metadata, code, HeaderCounts::default(), Flags { ours: false, cut: false }, out);
    Outcome::Answered(code)
}

#[derive(Clone, Copy)]
struct Flags {
    /// From one of our zones.
    ours: bool,
    /// Records were left out (TC).
    cut: bool,
}

impl Reply<'_> {
    /// Writes into the empty `out`. An answer longer than `limit` loses its records and is marked so.
    pub(super) fn write(&self, limit: usize, out: &mut Vec<u8>) {
        self.encode(self.body, false, out);
        if out.len() > limit {
            out.clear();
            self.encode(Body::Empty, true, out);
        }
    }

    fn encode(&self, body: Body<'_>, cut: bool, out: &mut Vec<u8>) {
        let count = |slice: usize| u16::try_from(slice).unwrap_or(u16::MAX);
        let mut counts = HeaderCounts { queries: 1, ..HeaderCounts::default() };
        match body {
            Body::Empty => {}
            Body::Negative(_) => counts.authorities = 1,
            Body::Records(_) | Body::Pointer(_) => counts.answers = 1,
            Body::Addresses { v4, v6, .. } => counts.answers = count(v4.len() + v6.len()),
        }
        counts.additionals = u16::from(self.query.edns.is_some());
        let ours = !matches!(self.body, Body::Empty);
        header(&self.query.metadata, self.code, counts, Flags { ours, cut }, out);
        out.extend_from_slice(self.query.raw);
        match body {
            Body::Empty => {}
            Body::Negative(record) | Body::Records(record) => out.extend_from_slice(record),
            Body::Pointer(data) => record(RecordType::PTR, super::TTL, data, out),
            Body::Addresses { v4, v6, ttl } => {
                v4.iter().for_each(|ip| record(RecordType::A, ttl, &ip.octets(), out));
                v6.iter().for_each(|ip| record(RecordType::AAAA, ttl, &ip.octets(), out));
            }
        }
        self.options(out);
    }

    /// The OPT record, when the question had one.
    fn options(&self, out: &mut Vec<u8>) {
        let Some(edns) = &self.query.edns else { return };
        out.push(0);
        out.extend_from_slice(&u16::from(RecordType::OPT).to_be_bytes());
        out.extend_from_slice(&MAX_UDP.to_be_bytes());
        out.extend_from_slice(&[self.code.high(), 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
        let start = out.len();
        out.extend_from_slice(&[0; 2]);
        if let Some(notice) = self.notice {
            out.extend_from_slice(&EXTENDED_ERROR.to_be_bytes());
            let start = out.len();
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&notice.code().to_be_bytes());
            notice.write(self.range, out);
            fill_length(start, out);
        }
        fill_length(start, out);
    }
}

/// Writes into the two bytes at `start` how many follow them.
fn fill_length(start: usize, out: &mut [u8]) {
    let Some((length, data)) = out.get_mut(start..).and_then(|rest| rest.split_first_chunk_mut::<2>()) else { return };
    *length = u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes();
}

/// Writes a record of the name in question.
fn record(kind: RecordType, ttl: u32, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&QUESTION_NAME.to_be_bytes());
    out.extend_from_slice(&u16::from(kind).to_be_bytes());
    out.extend_from_slice(&u16::from(DNSClass::IN).to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(data);
}

/// Writes the header of an answer to `asked`.
fn header(asked: &Metadata, code: ResponseCode, counts: HeaderCounts, flags: Flags, out: &mut Vec<u8>) {
    let mut metadata = Metadata::response_from_request(asked);
    metadata.message_type = MessageType::Response;
    metadata.response_code = code;
    metadata.authoritative = flags.ours;
    metadata.recursion_available = flags.ours;
    metadata.truncation = flags.cut;
    let written = Header { metadata, counts }.emit(&mut BinEncoder::new(out));
    debug_assert!(written.is_ok(), "a header always fits");
}
