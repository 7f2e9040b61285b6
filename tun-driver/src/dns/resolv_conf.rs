//! The text of `resolv.conf`, read as glibc reads it and kept byte for byte. Pure.

use std::net::IpAddr;

/// What glibc takes up (`MAXNS`); further servers are never asked.
const MAX_SERVERS: usize = 3;
/// How the first line of a file of ours begins.
const MARK: &[u8] = b"# postern-netd wrote this file: ";
const NOTE: &[u8] = b"only the zones of virtual networks are answered here, the rest goes to the servers of before.\n\
# The file of before comes back when the last virtual network ends. To bring it back by hand: postern doctor\n";

/// The lines of a file, with their line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf<'a> {
    lines: Vec<Line<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Server(Server<'a>, &'a [u8]),
    /// Search lists, options, comments, blank lines, and what nobody understands.
    Other(&'a [u8]),
}

/// A name server; `fe80::1%eth0` has a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server<'a> {
    pub address: IpAddr,
    pub scope: Option<&'a str>,
}

impl<'a> ResolvConf<'a> {
    /// Reads any bytes: a line that makes no sense is kept and means nothing.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Self {
        Self { lines: text.split_inclusive(|byte| *byte == b'\n').map(Line::parse).collect() }
    }

    /// The servers that programs ask, in order.
    #[must_use]
    pub fn servers(&self) -> Vec<Server<'a>> {
        self.all_servers().take(MAX_SERVERS).collect()
    }

    fn all_servers(&self) -> impl Iterator<Item = Server<'a>> {
        self.lines.iter().filter_map(|line| match line {
            Line::Server(server, _) => Some(*server),
            Line::Other(_) => None,
        })
    }

    /// Whether it is a file of ours, changed by others since or not.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.lines.iter().any(|line| line.bytes().starts_with(MARK))
    }

    /// Whether programs ask `stub`.
    #[must_use]
    pub fn asks(&self, stub: IpAddr) -> bool {
        self.all_servers().any(|server| server.address == stub)
    }

    /// This file with our mark and with `stub` in place of its servers. Search lists and options stay as they are.
    #[must_use]
    pub fn with_stub(&self, stub: IpAddr) -> Vec<u8> {
        let mut text = [MARK, NOTE].concat();
        text.extend_from_slice(format!("nameserver {stub}\n").as_bytes());
        for line in self.lines.iter().filter(|line| matches!(line, Line::Other(_))) {
            text.extend_from_slice(line.bytes());
        }
        text
    }

    /// A file of ours that somebody changed, without `stub`: its place is taken by the servers of `before`, and what was
    /// changed stays.
    #[must_use]
    pub fn without_stub(&self, stub: IpAddr, before: &ResolvConf<'_>) -> Vec<u8> {
        let mut servers: Vec<u8> = Vec::new();
        for line in before.lines.iter().filter(|line| matches!(line, Line::Server(..))) {
            servers.extend_from_slice(line.bytes());
            if !servers.ends_with(b"\n") {
                servers.push(b'\n');
            }
        }
        let notes: Vec<&[u8]> = NOTE.split_inclusive(|byte| *byte == b'\n').skip(1).collect();
        let mut text = Vec::new();
        for line in &self.lines {
            match line {
                Line::Server(server, _) if server.address == stub => text.append(&mut servers),
                line if line.bytes().starts_with(MARK) || notes.contains(&line.bytes()) => {}
                line => text.extend_from_slice(line.bytes()),
            }
        }
        text
    }
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Self {
        Self::server(line).map_or(Self::Other(line), |server| Self::Server(server, line))
    }

    /// glibc: the keyword stands at the very beginning, and blanks follow it.
    fn server(line: &'a [u8]) -> Option<Server<'a>> {
        let rest = line.strip_prefix(b"nameserver")?;
        let rest = std::str::from_utf8(rest).ok().filter(|rest| rest.starts_with([' ', '\t']))?;
        let (address, scope) = match rest.split_ascii_whitespace().next()?.split_once('%') {
            Some((address, scope)) => (address, Some(scope)),
            None => (rest.split_ascii_whitespace().next()?, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let scoped = |scope: &str| address.is_ipv6() && !scope.is_empty() && scope.len() < 16;
        scope.is_none_or(scoped).then_some(Server { address, scope })
    }

    const fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Server(_, bytes) | Self::Other(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests;
