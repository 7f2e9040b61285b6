//! Reading queries.

use hickory_proto::{
    op::{self, Header, MessageType, Metadata, OpCode},
    rr::{Name, RecordType},
    serialize::binary::{BinDecodable as _, BinDecoder, DecodeError},
};

use super::key::Key;

/// The bytes of a header.
pub(super) const HEADER: usize = 12;

/// A question that can be answered.
pub(super) struct Query<'a> {
    pub(super) metadata: Metadata,
    pub(super) question: op::Query,
    pub(super) key: Key,
    /// The question as it came, to be echoed byte by byte: some askers mix cases to recognise forged answers.
    pub(super) raw: &'a [u8],
    pub(super) edns: Option<Edns>,
}

/// What is read of the OPT record (RFC 6891). Options are passed over.
#[derive(Clone, Copy)]
pub(super) struct Edns {
    /// The largest datagram that the asker takes.
    pub(super) payload: u16,
    pub(super) version: u8,
    pub(super) dnssec_ok: bool,
}

/// A message that is no question to be answered.
pub(super) enum Unreadable {
    /// It gets no answer.
    NoQuery,
    /// Another operation than a query.
    Operation(Metadata),
    Form(Metadata),
}

impl<'a> Query<'a> {
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Unreadable> {
        let mut decoder = BinDecoder::new(message);
        let header = Header::read(&mut decoder).map_err(|_| Unreadable::NoQuery)?;
        let Header { metadata, counts } = header;
        if metadata.message_type != MessageType::Query {
            return Err(Unreadable::NoQuery);
        }
        if metadata.op_code != OpCode::Query {
            return Err(Unreadable::Operation(metadata));
        }
        let form = |_| Unreadable::Form(metadata);
        // One question, always (RFC 9619); records are for the additional section.
        if (counts.queries, counts.answers, counts.authorities) != (1, 0, 0) {
            return Err(Unreadable::Form(metadata));
        }
        let question = op::Query::read(&mut decoder).map_err(form)?;
        let raw = message.get(HEADER..decoder.index()).unwrap_or_default();
        let edns = read_edns(&mut decoder, counts.additionals).map_err(form)?;
        let key = Key::of_name(question.name()).ok_or(Unreadable::Form(metadata))?;
        // A name that points elsewhere has nowhere to point to, and its echo would mean something else.
        if raw.len() != key.as_bytes().len() + 1 + 4 || !decoder.is_empty() {
            return Err(Unreadable::Form(metadata));
        }
        Ok(Self { metadata, question, key, raw, edns })
    }
}

/// Passes over the additional records and keeps what the OPT record says. Their data is never looked at.
fn read_edns(decoder: &mut BinDecoder<'_>, count: u16) -> Result<Option<Edns>, DecodeError> {
    let mut edns = None;
    for _ in 0..count {
        let owner = Name::read(decoder)?;
        let kind = RecordType::read(decoder)?;
        let class = decoder.read_u16()?.unverified(/* any size is taken, see Resolver::answer */);
        let ttl = decoder.read_u32()?.unverified(/* flags */);
        let length = decoder.read_u16()?.unverified(/* read_slice checks it against the message */);
        decoder.read_slice(usize::from(length))?;
        if kind == RecordType::OPT {
            if edns.is_some() || !owner.is_root() {
                return Err(DecodeError::DuplicateEdns);
            }
            let [_, version, flags, _] = ttl.to_be_bytes();
            edns = Some(Edns { payload: class, version, dnssec_ok: flags & 0x80 != 0 });
        }
    }
    Ok(edns)
}
