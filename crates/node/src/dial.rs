//! Dialling a resource: the name is resolved once, what came out is checked, and exactly that is dialled.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use postern_proto::{
    head::Wanted,
    problem::Problem,
    resource::{NodeResource, OutOfReach},
};
use postern_tunnel::happy_eyeballs;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};

use crate::address::{Forbidden, judge};

/// A target that does not answer within this time, name resolution included, is given up.
pub const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Dials resources. Clones share what is known of the control plane.
#[derive(Clone, Default)]
pub struct Dialer {
    control: Arc<RwLock<Vec<SocketAddr>>>,
}

/// Where to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub allow_local: bool,
}

/// Why a target was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("the name {host:?} cannot be resolved: {source}")]
    Unresolvable { host: String, source: io::Error },
    #[error("{host:?} leads to {ip}, {why}, which this node dials only for resources that allow it")]
    Forbidden { host: String, ip: IpAddr, why: Forbidden },
    #[error("{address} does not accept the connection: {source}")]
    Refused { address: String, source: io::Error },
    #[error("no way leads from this node to {address}: {source}")]
    Unroutable { address: String, source: io::Error },
    #[error("the system of this node does not let it connect to {address}: {source}")]
    NotPermitted { address: String, source: io::Error },
    /// Nothing was learnt of the target: the node ran out of files, ports or memory.
    #[error("this node could not try {address}: {source}")]
    NotTried { address: String, source: io::Error },
    #[error("{address} did not answer within {} s", DIAL_LIMIT.as_secs())]
    TimedOut { address: String },
}

/// Its own port on its own host.
impl From<&NodeResource> for Target {
    fn from(resource: &NodeResource) -> Self {
        Self { host: resource.host.clone(), port: resource.port, allow_local: resource.allow_local }
    }
}

impl Target {
    /// Where to dial for what is wanted of a resource, within its ports and hosts.
    pub fn of(resource: &NodeResource, wanted: &Wanted) -> Result<Self, OutOfReach> {
        let (host, port) = resource.target(wanted)?;
        Ok(Self { host: host.to_owned(), port, allow_local: resource.allow_local })
    }

    /// As `host:port`, with brackets round an IPv6 literal.
    #[must_use]
    pub fn address(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl Dialer {
    /// Where the control plane answers: no resource leads there unless it is allowed to.
    pub fn set_control(&self, addresses: Vec<SocketAddr>) {
        *self.control.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Connects to the first address of the target that answers, and says which one that is.
    pub async fn dial(&self, target: &Target) -> Result<(TcpStream, SocketAddr), DialError> {
        let deadline = Instant::now() + DIAL_LIMIT;
        let silent = |_| DialError::Unresolvable { host: target.host.clone(), source: no_answer_from_dns() };
        let resolved = timeout_at(deadline, resolve(target)).await.map_err(silent)??;
        let addresses = self.admit(target, &resolved)?;
        let left = deadline.saturating_duration_since(Instant::now());
        happy_eyeballs::connect(&addresses, left).await.map_err(|source| DialError::of(target.address(), source))
    }

    /// The addresses that may be dialled; the reason against the first when there is none.
    fn admit(&self, target: &Target, resolved: &[SocketAddr]) -> Result<Vec<SocketAddr>, DialError> {
        let judge = |address: &SocketAddr| (*address, self.forbids(*address, target.allow_local));
        let judged: Vec<_> = resolved.iter().map(judge).collect();
        let admitted: Vec<_> = judged.iter().filter(|(_, why)| why.is_none()).map(|(address, _)| *address).collect();
        match judged.first() {
            Some((address, Some(why))) if admitted.is_empty() => {
                Err(DialError::Forbidden { host: target.host.clone(), ip: address.ip(), why: *why })
            }
            _ => Ok(admitted),
        }
    }

    fn forbids(&self, address: SocketAddr, allow_local: bool) -> Option<Forbidden> {
        let why = judge(address.ip())
            .or_else(|| self.is_control(address).then_some(Forbidden::ControlPlane))
            .or_else(|| is_own(address.ip()).then_some(Forbidden::OwnAddress))?;
        (!(allow_local && why.can_be_allowed())).then_some(why)
    }

    fn is_control(&self, address: SocketAddr) -> bool {
        let same = |control: &SocketAddr| {
            control.port() == address.port() && control.ip().to_canonical() == address.ip().to_canonical()
        };
        self.control.read().unwrap_or_else(PoisonError::into_inner).iter().any(same)
    }
}

impl DialError {
    /// What a failed connect tells of the target, and what of the way to it.
    fn of(address: String, source: io::Error) -> Self {
        use io::ErrorKind::{
            ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable,
            PermissionDenied, TimedOut,
        };
        match source.kind() {
            ConnectionRefused | ConnectionReset | ConnectionAborted => Self::Refused { address, source },
            HostUnreachable | NetworkUnreachable | NetworkDown => Self::Unroutable { address, source },
            PermissionDenied => Self::NotPermitted { address, source },
            TimedOut => Self::TimedOut { address },
            _ => Self::NotTried { address, source },
        }
    }

    /// What the client is told. A client that does not know a code lays out title and detail.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (status, code, title) = match self {
            Self::Unresolvable { .. } => (502, "target_unresolvable", "The node cannot resolve the resource's name"),
            Self::Forbidden { .. } => (403, "target_forbidden", "The node may not dial the resource's address"),
            Self::Refused { .. } => (502, "target_refused", "The resource does not accept connections"),
            Self::Unroutable { .. } => (502, "target_unroutable", "No way leads from the node to the resource"),
            Self::NotPermitted { .. } => (502, "target_not_permitted", "The node's system forbids the connection"),
            Self::NotTried { .. } => (502, "dial_failed", "The node cannot open another connection now"),
            Self::TimedOut { .. } => (504, "target_timed_out", "The resource did not answer in time"),
        };
        Problem::new(status, code, title).with_detail(format!("{self}."))
    }
}

/// Resolves once. An IP literal needs no resolver; every other spelling goes through it and is judged by what comes out.
async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(ip) = target.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    let unresolvable = |source| DialError::Unresolvable { host: target.host.clone(), source };
    let found: Vec<_> =
        lookup_host((target.host.as_str(), target.port)).await.map_err(unresolvable)?.take(MAX_ADDRESSES).collect();
    if found.is_empty() {
        return Err(unresolvable(io::ErrorKind::NotFound.into()));
    }
    Ok(found)
}

fn no_answer_from_dns() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", DIAL_LIMIT.as_secs()))
}

/// Whether an address belongs to this machine: then the kernel would use it as the source of a packet to itself. No
/// packet is sent.
fn is_own(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let local = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    local.is_ok_and(|local| local.ip() == ip)
}

#[cfg(test)]
mod tests;
