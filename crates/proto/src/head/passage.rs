//! The head with which a client asks a gateway for a passage to a relay.

use std::{fmt, net::SocketAddr};

use super::{HOST, HeadError, LEASE, MAX_HEADERS, Request, find, is_name, is_token, parse_connect, require};
use crate::id::NodeId;

const CLIENT: &str = "Postern-Client";
const FORWARDED: &str = "Postern-Forwarded-By";

/// What a client asks a node for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// A stream to a resource that this node dials.
    Stream(Request),
    /// A passage to a relay, to which the client then speaks itself.
    Passage(Passage),
}

/// The request for a passage: `CONNECT nod_…:0 HTTP/1.1`. What follows it, and all that follows the relay's `200`, are
/// bytes without frames: a TLS session between client and relay.
#[derive(Clone, PartialEq, Eq)]
pub struct Passage {
    relay: NodeId,
    host: String,
    /// A lease of the client: it shows that the client has something to do here.
    lease: Option<String>,
    client: Option<SocketAddr>,
    forwarded_by: Option<NodeId>,
}

impl Head {
    /// Reads the text of a `HEAD` frame.
    pub fn read(text: &[u8]) -> Result<Self, HeadError> {
        if text.starts_with(b"CONNECT nod_") {
            Passage::read(text).map(Self::Passage)
        } else {
            Request::read(text).map(Self::Stream)
        }
    }
}

impl Passage {
    /// A client's wish. `host` is the name of the gateway; `lease` a PASETO token.
    pub fn new(relay: NodeId, host: impl Into<String>, lease: Option<String>) -> Result<Self, HeadError> {
        let host = host.into();
        if !is_name(&host) {
            return Err(HeadError::BadValue(HOST));
        }
        if lease.as_deref().is_some_and(|lease| !is_token(lease)) {
            return Err(HeadError::BadValue(LEASE));
        }
        Ok(Self { relay, host, lease, client: None, forwarded_by: None })
    }

    /// The same wish as a gateway passes it on to the relay: with the client's address and without its lease, which is
    /// none of the relay's business.
    #[must_use]
    pub fn for_relay(&self, client: SocketAddr) -> Self {
        Self { lease: None, client: Some(self.client.unwrap_or(client)), forwarded_by: None, ..self.clone() }
    }

    /// The same wish as a gateway passes it on to another gateway, where the relay has links.
    #[must_use]
    pub fn for_gateway(&self, own: NodeId, client: SocketAddr) -> Self {
        Self { client: Some(client), forwarded_by: Some(own), ..self.clone() }
    }

    #[must_use]
    pub const fn relay(&self) -> NodeId {
        self.relay
    }

    #[must_use]
    pub fn lease(&self) -> Option<&str> {
        self.lease.as_deref()
    }

    /// Where the client's connection came from, as a gateway says.
    #[must_use]
    pub const fn client(&self) -> Option<SocketAddr> {
        self.client
    }

    /// The gateway that passed it on. Such a wish is never passed on to another gateway.
    #[must_use]
    pub const fn forwarded_by(&self) -> Option<NodeId> {
        self.forwarded_by
    }

    /// The text for a `HEAD` frame.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let Self { relay, host, lease, client, forwarded_by } = self;
        let mut text = format!("CONNECT {relay}:0 HTTP/1.1\r\n{HOST}: {host}\r\n");
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        };
        add(LEASE, lease.clone());
        add(CLIENT, client.map(|client| client.to_string()));
        add(FORWARDED, forwarded_by.map(|node| node.to_string()));
        text.push_str("\r\n");
        text.into_bytes()
    }

    /// Reads the text of a `HEAD` frame.
    pub fn read(text: &[u8]) -> Result<Self, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let request = parse_connect(text, &mut headers)?;
        let relay = request.path.and_then(|path| path.strip_suffix(":0")).and_then(|node| node.parse().ok());
        let relay = relay.ok_or(HeadError::BadResource)?;
        let lease = find(request.headers, LEASE)?.map(ToOwned::to_owned);
        let client = find(request.headers, CLIENT)?;
        let client = client.map(|text| text.parse().map_err(|_| HeadError::BadValue(CLIENT))).transpose()?;
        let forwarded_by = find(request.headers, FORWARDED)?;
        let forwarded_by =
            forwarded_by.map(|text| text.parse().map_err(|_| HeadError::BadValue(FORWARDED))).transpose()?;
        let passage = Self::new(relay, require(request.headers, HOST)?, lease)?;
        Ok(Self { client, forwarded_by, ..passage })
    }
}

/// The lease stays out of logs.
impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passage")
            .field("relay", &self.relay)
            .field("host", &self.host)
            .field("client", &self.client)
            .field("forwarded_by", &self.forwarded_by)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId::from_ulid(Ulid(n))
    }

    #[test]
    fn a_passage_is_read_back_as_client_gateways_and_relay_send_it() {
        let asked = Passage::new(node(7), "gw.example", Some("v4.public.abc".into())).unwrap();
        let client: SocketAddr = "192.0.2.1:9".parse().unwrap();
        let passed = asked.for_gateway(node(1), client);
        let last = passed.for_relay("10.0.0.1:1".parse().unwrap());
        assert_eq!(last.client(), Some(client), "the relay hears of the client, not of the gateway between");
        assert_eq!((last.lease(), last.forwarded_by()), (None, None));
        for passage in [asked, passed, last] {
            assert_eq!(Head::read(&passage.write()), Ok(Head::Passage(passage.clone())));
            assert!(!format!("{passage:?}").contains("v4.public"));
        }
    }

    #[test]
    fn what_is_no_passage_is_refused() {
        let text = |path: &str, more: &str| format!("CONNECT {path} HTTP/1.1\r\nHost: gw\r\n{more}\r\n").into_bytes();
        let own = format!("{}:0", node(7));
        assert!(Head::read(&text(&own, "")).is_ok());
        for bad in [
            text(&format!("{}:1", node(7)), ""),
            text("nod_x:0", ""),
            text(&own, "Postern-Client: here\r\n"),
            text(&own, "Postern-Forwarded-By: me\r\n"),
            text(&own, "Postern-Lease: a b\r\n"),
            text(&own, "Content-Length: 1\r\n"),
            [text(&own, ""), b"x".to_vec()].concat(),
        ] {
            assert!(Head::read(&bad).is_err(), "{}", String::from_utf8_lossy(&bad));
        }
    }
}
