//! Asks for names: a DNS server directly, and the system as every program does.
//!
//! Only for `postern dns query` and the doctor; nothing that carries data asks here.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, Record, RecordType, rdata::opt::EdnsOption},
};
use postern_local_api::names::{Asked, NameQuestion, NameRecord, NameReport, ResolverAnswer, SystemAnswer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout},
};

use crate::carriage::printable;

/// A datagram is sent this often before the server counts as silent.
const TRIES: usize = 2;
/// How long one of them is waited for, and a connection over TCP.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the system may take; its own limits are often longer.
const SYSTEM_PATIENCE: Duration = Duration::from_secs(6);
/// The largest datagram that is taken.
const MAX_DATAGRAM: u16 = 1232;
/// The number of the option for Extended DNS Errors (RFC 8914).
const EXTENDED_ERROR: u16 = 15;
/// The port of DNS.
pub const PORT: u16 = 53;

/// A question that makes sense.
#[derive(Clone, Debug)]
pub struct Question {
    name: Name,
    kind: RecordType,
    /// The name as it was given, for the system.
    given: String,
}

/// A question that makes none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    #[error("{0:?} is no name that can be asked for")]
    Name(String),
    #[error("{0:?} is no type of records; A, AAAA and PTR are")]
    Kind(String),
}

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("no answer within {} s", TRIES as u64 * PATIENCE.as_secs())]
    TimedOut,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("what was answered cannot be read")]
    Garbled,
}

impl Question {
    /// A name with a dot at its end is looked up by the system without its search domains, and without /etc/hosts.
    ///
    /// # Errors
    /// When the name or the type makes no sense.
    pub fn new(name: &str, kind: &str) -> Result<Self, QuestionError> {
        let asked = name.strip_suffix('.').unwrap_or(name);
        let parsed = Name::from_ascii(asked).ok().filter(|_| !asked.is_empty());
        let mut parsed = parsed.ok_or_else(|| QuestionError::Name(name.to_owned()))?;
        parsed.set_fqdn(true);
        let known = kind.to_ascii_uppercase().parse::<RecordType>();
        let kind = known.map_err(|_| QuestionError::Kind(kind.to_owned()))?;
        Ok(Self { name: parsed, kind, given: name.to_owned() })
    }

    /// The name without a dot at its end.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.name.to_ascii();
        name.strip_suffix('.').unwrap_or(&name).to_owned()
    }
}

/// Answers a client of the local API. `resolver`: where that of the virtual network is, when there is one.
///
/// # Errors
/// When the question makes no sense.
pub async fn report(asked: &NameQuestion, resolver: Option<IpAddr>) -> Result<NameReport, QuestionError> {
    let question = Question::new(&asked.name, &asked.kind)?;
    let server = resolver.map(|ip| SocketAddr::new(ip, PORT));
    let (resolver, system) = tokio::join!(
        async {
            let server = server?;
            let begun = Instant::now();
            let outcome = outcome(ask(server, &question).await);
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            Some(ResolverAnswer { server, micros, outcome })
        },
        ask_system(&question)
    );
    let (name, kind) = (question.name(), question.kind.to_string());
    Ok(NameReport { commands: commands(server.map(|server| server.ip()), &question), name, kind, resolver, system })
}

/// Commands that ask the same by hand.
#[must_use]
pub fn commands(resolver: Option<IpAddr>, question: &Question) -> Vec<String> {
    let (name, kind) = (question.name(), question.kind);
    let direct = resolver.map(|ip| format!("dig +tries={TRIES} +time={} @{ip} {name} {kind}", PATIENCE.as_secs()));
    let database = match kind {
        RecordType::A => Some("ahostsv4"),
        RecordType::AAAA => Some("ahostsv6"),
        _ => None,
    };
    direct.into_iter().chain(database.map(|database| format!("getent {database} {}", question.given))).collect()
}

/// Asks a server over UDP, and over TCP when the answer does not fit.
///
/// # Errors
/// When no answer comes, or none that can be read.
pub async fn ask(server: SocketAddr, question: &Question) -> Result<Message, AskError> {
    let mut query = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(question.name.clone(), question.kind));
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_DATAGRAM);
    query.set_edns(edns);
    let bytes = query.to_vec().map_err(|_| AskError::Garbled)?;
    for _ in 0..TRIES {
        let Ok(answer) = timeout(PATIENCE, ask_by_datagram(server, &query, &bytes)).await else { continue };
        let answer = answer?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        let over_tcp = timeout(PATIENCE, ask_by_stream(server, &query, &bytes)).await;
        return over_tcp.map_err(|_| AskError::TimedOut)?;
    }
    Err(AskError::TimedOut)
}

async fn ask_by_datagram(server: SocketAddr, query: &Message, bytes: &[u8]) -> Result<Message, AskError> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(MAX_DATAGRAM)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not answer this question may be forged or late: it is passed over.
        match Message::from_vec(buffer.get(..length).unwrap_or_default()) {
            Ok(answer) if answers(&answer, query) => return Ok(answer),
            _ => {}
        }
    }
}

async fn ask_by_stream(server: SocketAddr, query: &Message, bytes: &[u8]) -> Result<Message, AskError> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| AskError::Garbled)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    // A message is at most 64 KiB: its length has two bytes.
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    Message::from_vec(&buffer).ok().filter(|answer| answers(answer, query)).ok_or(AskError::Garbled)
}

fn answers(answer: &Message, query: &Message) -> bool {
    let no_question = answer.queries.is_empty() && answer.response_code != ResponseCode::NoError;
    answer.id == query.id
        && answer.message_type == MessageType::Response
        && (no_question || answer.queries == query.queries)
}

/// Looks a name up as programs do: getaddrinfo, with all that the system is configured to ask.
pub async fn ask_system(question: &Question) -> SystemAnswer {
    let wanted: fn(&IpAddr) -> bool = match question.kind {
        RecordType::A => IpAddr::is_ipv4,
        RecordType::AAAA => IpAddr::is_ipv6,
        _ => return SystemAnswer::NotAsked,
    };
    match timeout(SYSTEM_PATIENCE, tokio::net::lookup_host((question.given.as_str(), 0))).await {
        Err(_) => SystemAnswer::TimedOut,
        Ok(Err(error)) if says_not_found(&error.to_string()) => SystemAnswer::NotFound,
        Ok(Err(error)) => SystemAnswer::Failed { error: error.to_string() },
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).filter(wanted).collect();
            addresses.sort_unstable();
            addresses.dedup();
            if addresses.is_empty() { SystemAnswer::NotFound } else { SystemAnswer::Found { addresses } }
        }
    }
}

/// The library gives no code, only the text of one, which is never translated because we set no locale: of glibc, of musl, and
/// of macOS.
fn says_not_found(error: &str) -> bool {
    [
        "Name or service not known",
        "No address associated",
        "Name does not resolve",
        "Name has no usable",
        "nodename nor servname",
    ]
    .iter()
    .any(|text| error.contains(text))
}

/// For clients of the local API.
fn outcome(asked: Result<Message, AskError>) -> Asked {
    match asked {
        Err(AskError::TimedOut) => Asked::TimedOut,
        Err(error) => Asked::Failed { error: error.to_string() },
        Ok(answer) => Asked::Answered {
            code: code(answer.response_code),
            records: answer.answers.iter().map(record).collect(),
            explanation: explanation(&answer),
        },
    }
}

fn record(record: &Record) -> NameRecord {
    let name = record.name.to_ascii();
    NameRecord {
        name: name.strip_suffix('.').unwrap_or(&name).to_owned(),
        kind: record.record_type().to_string(),
        ttl: record.ttl,
        data: printable(&record.data.to_string()),
    }
}

/// What an answer says about itself.
fn explanation(answer: &Message) -> Option<String> {
    let options = answer.edns.as_ref()?.options().as_ref();
    options.iter().find_map(|(code, option)| match option {
        EdnsOption::Unknown(_, data) if u16::from(*code) == EXTENDED_ERROR => {
            let text = String::from_utf8_lossy(data.get(2..)?).into_owned();
            (!text.is_empty()).then(|| printable(&text))
        }
        _ => None,
    })
}

/// The code as DNS tools write it.
#[must_use]
pub fn code(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => format!("RCODE{}", u16::from(other)),
    }
}

#[cfg(test)]
mod tests;
