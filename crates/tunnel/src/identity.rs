//! Who is at the other end of a TLS connection, read from its leaf certificate and from nothing else.
//!
//! The only name that counts is one URI among the subject's alternative names:
//! `postern://<org>/account/<acc>/device/<dev>` or `postern://<org>/node/<nod>`; a worker has the DNS name of its cluster
//! besides. Common names, wildcards and the rest of
//! the chain say nothing. The chain and the signature are checked before, by the TLS handshake.

use aws_lc_rs::digest;
use postern_proto::{
    door::Door,
    id::{AccountId, ClusterId, DeviceId, NodeId, OrgId},
    lease::Holder,
    record::hex,
    sync::Peer,
    time::UnixMillis,
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

/// A leaf longer than this is not looked at.
const MAX_LEAF: usize = 8 * 1024;

/// An authenticated peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub org: OrgId,
    pub peer: Peer,
    /// The cluster that a node is a worker of.
    pub cluster: Option<ClusterId>,
    /// SHA-256 of the leaf's SubjectPublicKeyInfo (DER).
    pub spki_sha256: [u8; 32],
    /// When the leaf ends; nothing new may begin after it.
    pub not_after: UnixMillis,
}

/// Why a certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificate is not readable")]
    Malformed,
    #[error("the certificate is that of an authority")]
    Authority,
    #[error("the certificate has no alternative name, or more names than its kind has")]
    Names,
    #[error("the certificate's URI is not of the form postern://<org>/account/<acc>/device/<dev> or …/node/<nod>")]
    BadUri,
    #[error("the certificate belongs to organisation {found}")]
    ForeignOrg { found: OrgId },
    #[error("the certificate is not made for this use")]
    WrongUse,
}

impl PeerIdentity {
    /// Reads a leaf (DER) of organisation `org`.
    pub fn from_leaf(leaf: &[u8], org: OrgId) -> Result<Self, IdentityError> {
        let certificate = parse(leaf)?;
        if certificate.is_ca() {
            return Err(IdentityError::Authority);
        }
        let (found, peer, cluster) = name(&certificate)?;
        if found != org {
            return Err(IdentityError::ForeignOrg { found });
        }
        check_use(&certificate, peer)?;
        let spki_sha256 = sha256(certificate.public_key().raw);
        Ok(Self { org, peer, cluster, spki_sha256, not_after: end_of(&certificate) })
    }

    /// The holder that this peer's leases must name; `None` for a node.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        match self.peer {
            Peer::Device { account, device } => {
                Some(Holder { org: self.org, account, device, cnf: hex(&self.spki_sha256) })
            }
            Peer::Node { .. } => None,
        }
    }

    /// Whether this peer may open that door to clients.
    #[must_use]
    pub fn opens(&self, door: Door) -> bool {
        match door {
            Door::Node(node) => self.peer == Peer::Node { node },
            Door::Cluster(cluster) => self.cluster == Some(cluster),
        }
    }

    /// Whether the certificate has ended.
    #[must_use]
    pub fn is_over(&self, now: UnixMillis) -> bool {
        self.not_after <= now
    }
}

/// The URI that names `peer` in its certificate.
#[must_use]
pub fn uri(org: OrgId, peer: Peer) -> String {
    match peer {
        Peer::Device { account, device } => format!("postern://{org}/account/{account}/device/{device}"),
        Peer::Node { node } => format!("postern://{org}/node/{node}"),
    }
}

/// SHA-256 of a leaf's SubjectPublicKeyInfo (DER): what the `cnf` of a lease holds in hex.
pub fn spki_sha256(leaf: &[u8]) -> Result<[u8; 32], IdentityError> {
    Ok(sha256(parse(leaf)?.public_key().raw))
}

/// When a certificate (DER) ends.
pub fn not_after(leaf: &[u8]) -> Result<UnixMillis, IdentityError> {
    Ok(end_of(&parse(leaf)?))
}

fn parse(leaf: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    if leaf.len() > MAX_LEAF {
        return Err(IdentityError::Malformed);
    }
    match X509Certificate::from_der(leaf) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(IdentityError::Malformed),
    }
}

fn end_of(certificate: &X509Certificate<'_>) -> UnixMillis {
    let seconds = certificate.validity().not_after.timestamp();
    UnixMillis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// A device has one name, its URI; a node has its URI and the one DNS name that follows from it, and a worker after that
/// the DNS name of its cluster.
fn name(certificate: &X509Certificate<'_>) -> Result<(OrgId, Peer, Option<ClusterId>), IdentityError> {
    if certificate.extensions().iter().any(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. })
            || matches!(extension.parsed_extension(), ParsedExtension::IssuerAlternativeName(_))
    }) {
        return Err(IdentityError::Malformed);
    }
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
    let names = &names.ok_or(IdentityError::Names)?.value.general_names;
    let mut uris = names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(IdentityError::Names);
    };
    let (org, peer) = read_uri(uri).ok_or(IdentityError::BadUri)?;
    let others: Vec<_> = names.iter().filter(|name| !matches!(name, GeneralName::URI(_))).collect();
    let cluster = match (peer, others.as_slice()) {
        (Peer::Device { .. }, []) => None,
        (Peer::Node { node }, [GeneralName::DNSName(own)]) if *own == node.tls_name() => None,
        (Peer::Node { node }, [GeneralName::DNSName(own), GeneralName::DNSName(name)]) if *own == node.tls_name() => {
            Some(ClusterId::from_tls_name(name).ok_or(IdentityError::Names)?)
        }
        _ => return Err(IdentityError::Names),
    };
    Ok((org, peer, cluster))
}

fn read_uri(uri: &str) -> Option<(OrgId, Peer)> {
    let mut parts = uri.strip_prefix("postern://")?.split('/');
    let org = parts.next()?.parse().ok()?;
    let peer = match (parts.next()?, parts.next()?) {
        ("node", node) => Peer::Node { node: node.parse::<NodeId>().ok()? },
        ("account", account) => {
            let account = account.parse::<AccountId>().ok()?;
            let "device" = parts.next()? else { return None };
            Peer::Device { account, device: parts.next()?.parse::<DeviceId>().ok()? }
        }
        _ => return None,
    };
    parts.next().is_none().then_some((org, peer))
}

/// A device may be a client and nothing else; a node may be both.
fn check_use(certificate: &X509Certificate<'_>, peer: Peer) -> Result<(), IdentityError> {
    let uses = certificate.extended_key_usage().map_err(|_| IdentityError::Malformed)?;
    let uses = uses.ok_or(IdentityError::WrongUse)?.value;
    let server = matches!(peer, Peer::Node { .. });
    let fits = uses.client_auth && uses.server_auth == server && !uses.any;
    if fits { Ok(()) } else { Err(IdentityError::WrongUse) }
}

#[cfg(test)]
mod tests;
