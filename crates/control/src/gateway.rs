//! Gateways before they are enrolled: their entry and their one-time token.

use std::{sync::Arc, time::Duration};

use postern_proto::{
    id::NodeId,
    name::{HostError, check_host, name_key},
    resource::Tags,
    time::UnixMillis,
};

use crate::{
    catalogue::{Catalogue, Node, NodeKind},
    secret::{NoEntropy, Token},
    sql,
    store::{Activity, Change, StoreError, Subject, read},
};

/// How long a token waits for its gateway.
pub const ENROL_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// What enrolment tokens begin with.
pub const TOKEN_PREFIX: &str = "postern_enrol_";

/// A one-time token, shown this once.
pub struct EnrolToken {
    pub token: Token,
    pub expires_at: UnixMillis,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A text that is not where a gateway is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("must be of the form host:port, with a port from 1 to 65535")]
    Form,
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Reads `host:port` and answers its canonical form.
pub fn check_address(text: &str) -> Result<String, AddressError> {
    let (host, port) = text.rsplit_once(':').ok_or(AddressError::Form)?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or(AddressError::Form)?;
    if host.contains(':') && !host.starts_with('[') {
        return Err(AddressError::Form);
    }
    let host = check_host(host)?;
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// The gateway of this name.
#[must_use]
pub fn by_name(catalogue: &Catalogue, name: &str) -> Option<Arc<Node>> {
    let key = name_key(name);
    catalogue.nodes.values().find(|node| name_key(&node.name) == key).cloned()
}

/// What a node is made from.
pub struct NewNode {
    /// It was checked.
    pub name: String,
    pub kind: NodeKind,
    pub group: String,
    pub tags: Tags,
    pub advertise: Option<String>,
}

impl NewNode {
    /// A gateway of the group without a name.
    #[must_use]
    pub fn gateway(name: impl Into<String>, advertise: Option<String>) -> Self {
        let (group, tags) = (String::new(), Tags::new());
        Self { name: name.into(), kind: NodeKind::Gateway, group, tags, advertise }
    }
}

/// Makes a node that waits for its enrolment.
pub async fn create(change: &mut Change, new: NewNode) -> Result<Arc<Node>, StoreError> {
    let NewNode { name, kind, group, tags, advertise } = new;
    let node = Node {
        id: NodeId::from_ulid(change.ulid()),
        name,
        kind,
        group,
        tags,
        advertise,
        spki_sha256: None,
        enrolled_at: None,
        drain_ends_at: None,
        planned_drain: None,
        cluster: None,
        access_key: None,
        created_at: change.now(),
        revision: change.revision(),
    };
    change.put(node).await
}

/// Makes a one-time token for a gateway. Tokens made before and not used are void.
pub async fn issue_token(change: &mut Change, node: &Node) -> Result<EnrolToken, IssueError> {
    let token = Token::draw(TOKEN_PREFIX)?;
    let expires_at = change.now().plus(ENROL_WITHIN);
    let (id, now) = (node.id.to_string(), read::signed(change.now().0));
    sql::query("DELETE FROM enrol_token WHERE node_id = $1 AND used_at IS NULL")
        .bind(&id)
        .execute(change.connection())
        .await
        .map_err(StoreError::from)?;
    sql::query("INSERT INTO enrol_token (hash, node_id, created_at, expires_at) VALUES ($1, $2, $3, $4)")
        .bind(token.hash().to_text())
        .bind(&id)
        .bind(now)
        .bind(read::signed(expires_at.0))
        .execute(change.connection())
        .await
        .map_err(StoreError::from)?;
    let subject = Subject { kind: node.kind.as_str(), id, name: node.name.clone() };
    change.note(&Activity::new(format!("{}.enrol_token_issued", node.kind.as_str()), subject)).await?;
    Ok(EnrolToken { token, expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, canonical) in [
            ("GW.example.com:5000", "gw.example.com:5000"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("[2001:DB8::1]:5000", "[2001:db8::1]:5000"),
        ] {
            assert_eq!(check_address(text).as_deref(), Ok(canonical), "{text}");
        }
        for bad in ["", "gw", "gw:", "gw:0", "gw:65536", "2001:db8::1:5000", "a b:1", "https://gw:1", "gw:5000\n"] {
            assert!(check_address(bad).is_err(), "{bad:?}");
        }
    }
}
