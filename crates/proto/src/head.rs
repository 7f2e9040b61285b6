//! The texts that begin a stream: the request in a `HEAD` frame and the answer in a `REPLY` frame (DESIGN §4.2).
//!
//! Both have the form of HTTP/1.1, so that they are readable in a capture and can grow by headers that older peers pass
//! over. They are never part of an HTTP connection: the frame says where they end, and nothing may follow.
//!
//! A [`Request`] or [`Reply`] that exists can be written: control characters and line ends never get into one.

use std::{fmt, str::FromStr, time::Duration};

use ulid::Ulid;

use crate::{
    frame::MAX_TEXT,
    id::{NodeId, ResourceId, StreamId},
    lease,
    name::DnsName,
    problem::{self, Problem},
};

/// More headers than this are refused.
const MAX_HEADERS: usize = 32;
const MAX_NAME: usize = 255;
/// Milliseconds: more than any stream is tried for, in twelve digits.
const MAX_AGE: u64 = 999_999_999_999;
/// What is left for a problem beside status line and headers.
const MAX_BODY: usize = MAX_TEXT - 1024;

/// The request for a stream: `CONNECT res_…:0 HTTP/1.1`.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    resource: ResourceId,
    wanted: Wanted,
    host: String,
    lease: String,
    stream: StreamId,
    age: Option<Duration>,
}

/// What of a resource is to be reached. The node that dials it checks this against what it knows of the resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// 0: the resource's own port.
    pub port: u16,
    /// Under a wildcard alias the name that was asked for; `None`: the resource's own host.
    pub host: Option<DnsName>,
}

/// `host:port`; a part that is the resource's own is left out.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_ref().map_or("", DnsName::as_str);
        if self.port == 0 { f.write_str(host) } else { write!(f, "{host}:{}", self.port) }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 200: the target is connected.
    Opened,
    Refused(Refused),
}

/// Why a stream was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Refused {
    /// Status 400–599; `code` and `title` reach the user as they are.
    pub problem: Problem,
    /// With 421: where the stream belongs.
    pub route: Option<Route>,
}

/// A node and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    node: NodeId,
    address: String,
}

/// Why a text is no [`Request`] or [`Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the text is longer than {MAX_TEXT} bytes")]
    TooLong,
    #[error("the text is not HTTP/1.1")]
    NotHttp,
    #[error("the text stops in the middle")]
    Incomplete,
    #[error("a line does not end in CR LF")]
    BareLineEnd,
    #[error("something follows the text")]
    Trailing,
    #[error("the request is not a CONNECT")]
    NotConnect,
    #[error("the request does not name a resource and a port as res_…:0")]
    BadResource,
    #[error("header {0} is missing")]
    Missing(&'static str),
    #[error("header {0} is there more than once")]
    Repeated(&'static str),
    #[error("header {0} has a value that it cannot have")]
    BadValue(&'static str),
    #[error("the reply has a status that it cannot have")]
    BadStatus,
    #[error("the reply does not say why it refuses")]
    NoProblem,
}

mod passage;

pub use self::passage::{Head, Passage};

const HOST: &str = "Host";
const LEASE: &str = "Postern-Lease";
const STREAM: &str = "Postern-Stream";
const AGE: &str = "Postern-Age";
const ASKED_HOST: &str = "Postern-Host";
const ROUTE: &str = "Postern-Route";
const LENGTH: &str = "Content-Length";
const TYPE: &str = "Content-Type";
/// Headers that would say where a body ends. A request has none, a reply has [`LENGTH`].
const CODING: &str = "Transfer-Encoding";

impl Request {
    /// A request for the resource's own port on its own host.
    ///
    /// `host` is the name of the cluster or gateway that the client believes to speak to; `lease` a PASETO token.
    pub fn new(
        resource: ResourceId,
        host: impl Into<String>,
        lease: impl Into<String>,
        stream: StreamId,
    ) -> Result<Self, HeadError> {
        let (host, lease) = (host.into(), lease.into());
        if !is_name(&host) {
            return Err(HeadError::BadValue(HOST));
        }
        if !is_token(&lease) {
            return Err(HeadError::BadValue(LEASE));
        }
        Ok(Self { resource, wanted: Wanted::default(), host, lease, stream, age: None })
    }

    /// The same request for another port or host of the resource.
    #[must_use]
    pub fn wanting(self, wanted: Wanted) -> Self {
        Self { wanted, ..self }
    }

    /// The same request, which says how long ago the stream was first tried with what is sent now: zero with the first
    /// try. Whoever says it leaves it to the node to refuse what it may have opened before it began to remember
    /// (`docs/decisions/0008`), so that the node need not answer before the target does. Milliseconds travel, rounded up.
    #[must_use]
    pub fn aged(self, age: Duration) -> Self {
        let millis = age.as_nanos().div_ceil(1_000_000);
        Self { age: Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX).min(MAX_AGE))), ..self }
    }

    /// See [`Request::aged`]; `None` when the client does not say.
    #[must_use]
    pub const fn age(&self) -> Option<Duration> {
        self.age
    }

    #[must_use]
    pub const fn resource(&self) -> ResourceId {
        self.resource
    }

    #[must_use]
    pub const fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The lease as it was sent; nothing about it is checked but its letters.
    #[must_use]
    pub fn lease(&self) -> &str {
        &self.lease
    }

    #[must_use]
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    /// The text for a `HEAD` frame.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let Self { resource, wanted, host, lease, stream, age } = self;
        let (port, stream) = (wanted.port, stream.ulid());
        let age = age.map(|age| format!("{AGE}: {}\r\n", age.as_millis())).unwrap_or_default();
        let asked = wanted.host.as_ref().map(|host| format!("{ASKED_HOST}: {host}\r\n")).unwrap_or_default();
        format!(
            "CONNECT {resource}:{port} HTTP/1.1\r\n{HOST}: {host}\r\n{LEASE}: {lease}\r\n{STREAM}: {stream}\r\n{age}{asked}\r\n"
        )
        .into_bytes()
    }

    /// Reads the text of a `HEAD` frame.
    pub fn read(text: &[u8]) -> Result<Self, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let request = parse_connect(text, &mut headers)?;
        let (resource, port) = request.path.and_then(|path| path.rsplit_once(':')).ok_or(HeadError::BadResource)?;
        let resource = resource.parse().map_err(|_| HeadError::BadResource)?;
        let port = read_port(port).ok_or(HeadError::BadResource)?;
        let asked = find(request.headers, ASKED_HOST)?;
        let host = asked.map(|host| read_asked(host).ok_or(HeadError::BadValue(ASKED_HOST))).transpose()?;
        let stream = require(request.headers, STREAM)?;
        let stream = read_stream(stream).ok_or(HeadError::BadValue(STREAM))?;
        let age = find(request.headers, AGE)?;
        let age = age.map(|age| read_age(age).ok_or(HeadError::BadValue(AGE))).transpose()?;
        let request = Self::new(resource, require(request.headers, HOST)?, require(request.headers, LEASE)?, stream)?;
        Ok(Self { age, ..request.wanting(Wanted { port, host }) })
    }
}

/// The lease stays out of logs.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("resource", &self.resource)
            .field("wanted", &self.wanted)
            .field("host", &self.host)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Reply {
    /// The text for a `REPLY` frame. A problem that is too long for one loses its violations, then its detail.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let refused = match self {
            Self::Opened => return b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
            Self::Refused(refused) => refused,
        };
        let problem = writable(&refused.problem);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let (status, reason, length) = (problem.status, reason(problem.status), body.len());
        let route = refused.route.as_ref().map(|route| format!("{ROUTE}: {route}\r\n")).unwrap_or_default();
        let media = problem::MEDIA_TYPE;
        let mut text =
            format!("HTTP/1.1 {status} {reason}\r\n{route}{TYPE}: {media}\r\n{LENGTH}: {length}\r\n\r\n").into_bytes();
        text.extend_from_slice(&body);
        text
    }

    /// Reads the text of a `REPLY` frame. Control characters in a problem are replaced.
    pub fn read(text: &[u8]) -> Result<Self, HeadError> {
        check_length(text)?;
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let end = finished(response.parse(text))?;
        check_lines(text, end)?;
        let body = text.get(end..).unwrap_or_default();
        if response.version != Some(1) {
            return Err(HeadError::NotHttp);
        }
        if find(response.headers, CODING)?.is_some() {
            return Err(HeadError::BadValue(CODING));
        }
        let length = match find(response.headers, LENGTH)? {
            Some(length) => read_length(length).ok_or(HeadError::BadValue(LENGTH))?,
            None => 0,
        };
        match length.cmp(&body.len()) {
            std::cmp::Ordering::Less => return Err(HeadError::Trailing),
            std::cmp::Ordering::Greater => return Err(HeadError::Incomplete),
            std::cmp::Ordering::Equal => {}
        }
        match response.code {
            Some(200) if body.is_empty() => Ok(Self::Opened),
            Some(status @ 400..=599) => {
                let problem = read_problem(status, body).ok_or(HeadError::NoProblem)?;
                let route = find(response.headers, ROUTE)?.map(str::parse).transpose()?;
                Ok(Self::Refused(Refused { problem, route }))
            }
            _ => Err(HeadError::BadStatus),
        }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problem, route: None }
    }
}

impl Route {
    /// `address` is `host:port`.
    pub fn new(node: NodeId, address: impl Into<String>) -> Result<Self, HeadError> {
        let address = address.into();
        if is_name(&address) { Ok(Self { node, address }) } else { Err(HeadError::BadValue(ROUTE)) }
    }

    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.node, self.address)
    }
}

impl FromStr for Route {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let (node, address) = text.split_once(' ').ok_or(HeadError::BadValue(ROUTE))?;
        Self::new(node.parse().map_err(|_| HeadError::BadValue(ROUTE))?, address)
    }
}

const fn check_length(text: &[u8]) -> Result<(), HeadError> {
    if text.len() > MAX_TEXT { Err(HeadError::TooLong) } else { Ok(()) }
}

/// A whole `CONNECT` request with nothing behind it, and nothing announced.
fn parse_connect<'h, 't>(
    text: &'t [u8],
    headers: &'h mut [httparse::Header<'t>],
) -> Result<httparse::Request<'h, 't>, HeadError> {
    check_length(text)?;
    let mut request = httparse::Request::new(headers);
    let end = finished(request.parse(text))?;
    check_lines(text, end)?;
    if end != text.len() {
        return Err(HeadError::Trailing);
    }
    if request.method != Some("CONNECT") || request.version != Some(1) {
        return Err(HeadError::NotConnect);
    }
    for forbidden in [LENGTH, CODING] {
        if find(request.headers, forbidden)?.is_some() {
            return Err(HeadError::BadValue(forbidden));
        }
    }
    Ok(request)
}

fn finished(status: httparse::Result<usize>) -> Result<usize, HeadError> {
    match status {
        Ok(httparse::Status::Complete(end)) => Ok(end),
        Ok(httparse::Status::Partial) => Err(HeadError::Incomplete),
        Err(_) => Err(HeadError::NotHttp),
    }
}

/// The parser takes empty lines before the first one and lines that end in LF alone; both are refused here, so that one
/// text has one reading.
fn check_lines(text: &[u8], end: usize) -> Result<(), HeadError> {
    let head = text.get(..end).unwrap_or_default();
    if head.starts_with(b"\r") || head.starts_with(b"\n") {
        return Err(HeadError::NotHttp);
    }
    let mut before = 0;
    for &byte in head {
        if (byte == b'\n') != (before == b'\r') {
            return Err(HeadError::BareLineEnd);
        }
        before = byte;
    }
    Ok(())
}

fn find<'a>(headers: &[httparse::Header<'a>], name: &'static str) -> Result<Option<&'a str>, HeadError> {
    let mut values = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(HeadError::Repeated(name));
    }
    std::str::from_utf8(first.value).map(Some).map_err(|_| HeadError::BadValue(name))
}

fn require<'a>(headers: &[httparse::Header<'a>], name: &'static str) -> Result<&'a str, HeadError> {
    find(headers, name)?.ok_or(HeadError::Missing(name))
}

fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(letter)
}

fn is_token(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=lease::MAX_TOKEN).contains(&text.len()) && text.bytes().all(letter)
}

fn read_stream(text: &str) -> Option<StreamId> {
    let ulid = Ulid::from_string(text).ok()?;
    (ulid.to_string() == text).then(|| StreamId::from_ulid(ulid))
}

/// A port in the one form that is written.
fn read_port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

/// A host name in the one form that is written.
fn read_asked(text: &str) -> Option<DnsName> {
    text.parse().ok().filter(|name: &DnsName| name.as_str() == text)
}

fn read_length(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn read_age(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok().map(Duration::from_millis)).flatten()
}

fn read_problem(status: u16, body: &[u8]) -> Option<Problem> {
    let mut problem: Problem = serde_json::from_slice(body).ok()?;
    if problem.status != status {
        return None;
    }
    problem.code = printable(&problem.code);
    problem.title = printable(&problem.title);
    problem.detail = problem.detail.as_deref().map(printable);
    for violation in &mut problem.violations {
        violation.field = printable(&violation.field);
        violation.value = printable(&violation.value);
        violation.rule = printable(&violation.rule);
    }
    Some(problem)
}

fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

/// The problem in a form that fits into a reply: a status that refuses, and not too long.
fn writable(problem: &Problem) -> Problem {
    let status = if (400..=599).contains(&problem.status) { problem.status } else { 500 };
    let mut problem = Problem { status, ..problem.clone() };
    let fits = |problem: &Problem| serde_json::to_vec(problem).is_ok_and(|body| body.len() <= MAX_BODY);
    if !fits(&problem) {
        problem.violations.clear();
    }
    if !fits(&problem) {
        problem.detail = None;
    }
    if !fits(&problem) {
        problem.code = problem.code.chars().take(64).collect();
        problem.title = problem.title.chars().take(256).collect();
    }
    problem
}

const fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        421 => "Misdirected Request",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Refused",
    }
}

#[cfg(test)]
mod tests;
