//! The resolver of the virtual network: the bytes of a query go in, the bytes of the answer come out.
//!
//! It answers for Postern's own zones and for the reverse names of the virtual network's addresses, and refuses
//! everything else, so that a system asks its next server. **It never forwards**: there is no upstream server, no table of
//! pending queries and no way to ask anybody. It opens no socket, reads no clock and draws no random number; one question
//! gets one answer, which depends on the [`Table`], on the addresses of [`Hosts`] and on nothing else.
//!
//! | asked for | answer |
//! |---|---|
//! | A, AAAA of a known name | its addresses, [`TTL`] |
//! | a family or type that the name has not (HTTPS and SVCB among them) | NOERROR without records, SOA |
//! | a host under a wildcard alias, A or AAAA | the address that [`Hosts`] gives it, the same for ever |
//! | PTR of an address of the virtual network | its name |
//! | `postern-diag-….<zone>` ([`PROBE`]) | the resolver's own address, with a TTL of 0: tells who answers |
//! | an unknown name in a zone | NXDOMAIN, SOA; SERVFAIL when the table may lack names ([`Notice::incomplete`]) |
//! | the control plane's and gateways' own names | REFUSED, whatever the zones say |
//! | other names, other classes, zone transfers | REFUSED |
//! | other operations | NOTIMP |
//! | a message that cannot be read | FORMERR; dropped when it is no query or has no whole header |
//!
//! Messages are decoded by hickory-proto, and whatever is known beforehand (SOA records, names of PTR records) is
//! encoded by it when the table is made, so that answering copies bytes and allocates nothing.

mod hosts;
mod key;
mod notice;
mod query;
mod reply;
mod reverse;
mod table;
mod tcp;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use hickory_proto::{
    op::ResponseCode,
    rr::{DNSClass, RecordType},
};

pub use self::{
    hosts::{FORGOTTEN_AFTER, HostAddresses, HostPart, HostRecord, Hosts, MAX_HOSTS, NoAddress},
    notice::Notice,
    reply::MAX_UDP,
    table::{Contents, Known, Range, Table, TableError, Wildcard},
    tcp::{MAX_QUERY, MAX_WAITING, TcpQueries, TooLong},
};
use self::{
    query::{Edns, Query, Unreadable},
    reply::{Body, Reply},
    table::{Found, Place},
};

/// How long an answer may be kept, in seconds. Short, because a virtual network may move (others use 1 to 10).
pub const TTL: u32 = 5;
/// How long "there is no such name" may be kept, in seconds: the minimum of the SOA record.
pub const NEGATIVE_TTL: u32 = 10;
/// How the first label of a name begins that is asked only to see who answers.
pub const PROBE: &str = "postern-diag-";

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Answers that do not fit into what the asker takes, or into [`MAX_UDP`], are cut and marked so (TC).
    Udp,
    /// Answers are whole. The two bytes of length before each message are [`TcpQueries`]' business.
    Tcp,
}

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is written. The code tells what it says.
    Answered(ResponseCode),
    /// Nothing is to be sent: an answer, not a query, or too short to have a whole header.
    Dropped,
}

/// Answers queries from one [`Table`]. Cheap to make: each shard has its own over the same table.
#[derive(Clone, Debug)]
pub struct Resolver {
    table: Arc<Table>,
}

impl Resolver {
    #[must_use]
    pub fn new(table: Arc<Table>) -> Self {
        Self { table }
    }

    /// From now on, answers come from `table`.
    pub fn set_table(&mut self, table: Arc<Table>) {
        self.table = table;
    }

    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Answers one message. `out` is emptied first; it holds the answer when there is one.
    pub fn answer<H: Hosts + ?Sized>(
        &self,
        transport: Transport,
        message: &[u8],
        hosts: &mut H,
        out: &mut Vec<u8>,
    ) -> Outcome {
        out.clear();
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Unreadable::NoQuery) => return Outcome::Dropped,
            Err(Unreadable::Operation(header)) => return reply::bare(&header, ResponseCode::NotImp, out),
            Err(Unreadable::Form(header)) => return reply::bare(&header, ResponseCode::FormErr, out),
        };
        let limit = match (transport, &query.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, Some(edns)) => usize::from(edns.payload.clamp(reply::MIN_UDP, MAX_UDP)),
            (Transport::Udp, None) => usize::from(reply::MIN_UDP),
        };
        Asking { table: &self.table, query: &query, limit, out }.answer(hosts)
    }
}

/// One query on its way to its answer.
struct Asking<'a> {
    table: &'a Table,
    query: &'a Query<'a>,
    limit: usize,
    out: &'a mut Vec<u8>,
}

impl Asking<'_> {
    fn answer<H: Hosts + ?Sized>(mut self, hosts: &mut H) -> Outcome {
        if matches!(self.query.edns, Some(Edns { version, .. }) if version > 0) {
            return self.reply(ResponseCode::BADVERS, Body::Empty, None);
        }
        let class = self.query.question.query_class();
        let transfer = matches!(self.kind(), RecordType::AXFR | RecordType::IXFR);
        if !matches!(class, DNSClass::IN | DNSClass::ANY) || transfer {
            return self.reply(ResponseCode::Refused, Body::Empty, None);
        }
        match self.table.find(&self.query.key) {
            Found::Reverse => reverse::answer(self, hosts),
            Found::Nothing => self.reply(ResponseCode::Refused, Body::Empty, Some(Notice::Elsewhere)),
            Found::Bypass => self.reply(ResponseCode::Refused, Body::Empty, Some(Notice::Bypass)),
            Found::In { soa, place } => self.answer_in(soa, place, hosts),
        }
    }

    fn answer_in<H: Hosts + ?Sized>(mut self, soa: &[u8], place: Place<'_>, hosts: &mut H) -> Outcome {
        let general = self.table.notice();
        let (v4, v6, ttl, notice) = match place {
            Place::Name(known) => (&*known.v4, &*known.v6, TTL, known.notice.or(general)),
            Place::Probe(resolver) => (&*resolver.v4, &*resolver.v6, 0, None),
            Place::Host { wildcard } => return self.answer_host(soa, wildcard, hosts),
            Place::Empty { apex: true } if matches!(self.kind(), RecordType::SOA | RecordType::ANY) => {
                return self.reply(ResponseCode::NoError, Body::Records(soa), general);
            }
            Place::Empty { .. } => return self.reply(ResponseCode::NoError, Body::Negative(soa), general),
            Place::Missing => return self.missing(soa),
        };
        if matches!(self.kind(), RecordType::SOA) && self.table.is_zone(&self.query.key) {
            return self.reply(ResponseCode::NoError, Body::Records(soa), notice);
        }
        self.addresses(soa, v4, v6, ttl, notice)
    }

    /// A host under a wildcard alias. It gets an address when it is asked for one, and not before.
    fn answer_host<H: Hosts + ?Sized>(mut self, soa: &[u8], wildcard: &Wildcard, hosts: &mut H) -> Outcome {
        let notice = wildcard.notice.or_else(|| self.table.notice());
        let wants_address = matches!(self.kind(), RecordType::A | RecordType::AAAA | RecordType::ANY);
        let Some(host) = self.query.key.host_name() else { return self.missing(soa) };
        if !wants_address {
            return self.reply(ResponseCode::NoError, Body::Negative(soa), notice);
        }
        match hosts.assign(&wildcard.parent, &host) {
            Ok(part) => {
                let range = self.table.range();
                let (v4, v6) = (range.v4(part), range.v6(part));
                if v4.is_none() && v6.is_none() {
                    return self.reply(ResponseCode::ServFail, Body::Empty, Some(Notice::NoAddressLeft));
                }
                self.addresses(soa, v4.as_slice(), v6.as_slice(), TTL, notice)
            }
            Err(NoAddress::NotAllowed) => self.missing(soa),
            Err(NoAddress::Full) => self.reply(ResponseCode::ServFail, Body::Empty, Some(Notice::NoAddressLeft)),
        }
    }

    /// What a name has of the asked type; without any, that it has none.
    fn addresses(&mut self, soa: &[u8], v4: &[Ipv4Addr], v6: &[Ipv6Addr], ttl: u32, notice: Option<Notice>) -> Outcome {
        let (v4, v6) = match self.kind() {
            RecordType::A => (v4, &[][..]),
            RecordType::AAAA => (&[][..], v6),
            RecordType::ANY => (v4, v6),
            _ => (&[][..], &[][..]),
        };
        let body = if v4.is_empty() && v6.is_empty() { Body::Negative(soa) } else { Body::Addresses { v4, v6, ttl } };
        self.reply(ResponseCode::NoError, body, notice)
    }

    /// A name that is not there. While names may be lacking, that is not said: systems would keep it.
    fn missing(&mut self, soa: &[u8]) -> Outcome {
        match self.table.notice() {
            Some(notice) if notice.incomplete() => self.reply(ResponseCode::ServFail, Body::Empty, Some(notice)),
            notice => self.reply(ResponseCode::NXDomain, Body::Negative(soa), notice),
        }
    }

    fn kind(&self) -> RecordType {
        self.query.question.query_type()
    }

    fn reply(&mut self, code: ResponseCode, body: Body<'_>, notice: Option<Notice>) -> Outcome {
        let range = self.table.range();
        Reply { query: self.query, code, body, notice, range }.write(self.limit, self.out);
        Outcome::Answered(code)
    }
}

#[cfg(test)]
mod tests;
