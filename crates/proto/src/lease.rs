//! Leases: short signed proofs that one device may reach one resource (DESIGN §4.4).
//!
//! A lease is a PASETO v4.public token. The control plane signs it; the egress node checks it against the key of the
//! TLS client that presents it, and never takes another node's word.

use std::{collections::BTreeMap, time::Duration};

use pasetors::{
    keys::{AsymmetricPublicKey, AsymmetricSecretKey},
    token::UntrustedToken,
    version4::{PublicToken, V4},
};
use serde::{Deserialize, Serialize};

use crate::{
    id::{AccountId, ClusterId, DeviceId, NodeId, OrgId, ResourceId},
    time::UnixMillis,
};

/// How long a lease lasts.
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// When its holder asks for the next one.
pub const RENEW_AFTER: Duration = Duration::from_secs(10 * 60);
/// How long new streams go on with cached leases while the control plane is away.
pub const FAIL_STATIC: Duration = Duration::from_secs(60 * 60);
/// The same for resources marked `strict`.
pub const FAIL_STATIC_STRICT: Duration = Duration::from_secs(15);
/// How far the clocks of two machines may differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// No lease is longer than this; a longer header is refused before it is read.
pub const MAX_TOKEN: usize = 2048;

/// What a lease says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub org: OrgId,
    pub account: AccountId,
    pub device: DeviceId,
    /// SHA-256 of the device's SubjectPublicKeyInfo (DER), in lower-case hex.
    pub cnf: String,
    pub resource: ResourceId,
    /// The revision of the resource when the lease was signed.
    pub revision: u64,
    /// Why the account may reach it: a role (`rol_…`) or a direct grant (`grt_…`).
    pub grant: String,
    pub issued_at: UnixMillis,
    pub not_after: UnixMillis,
    /// When the grant itself ends; streams are cut then. `None`: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_ends: Option<UnixMillis>,
    /// The cluster over which alone the resource was reached when the lease was signed. A node that does not know the
    /// resource can thus tell the client that it came to the wrong one; which resources a node dials, it goes by what the
    /// control plane told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
}

/// How lately the node heard from its control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// The sync connection is up.
    Connected,
    /// It has been down since then.
    AwaySince(UnixMillis),
}

/// Why a lease opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the lease is not readable")]
    Malformed,
    #[error("the lease is signed with a key that this node does not know")]
    UnknownKey,
    #[error("the signature of the lease does not fit")]
    BadSignature,
    #[error("the lease was given to another organisation")]
    ForeignOrg,
    #[error("the lease was given to another account, device or key")]
    ForeignHolder,
    #[error("the lease is for another resource")]
    OtherResource,
    #[error("the lease lies in the future; the clocks differ too much")]
    NotYetValid,
    #[error("the lease has ended")]
    Expired,
    #[error("the grant behind the lease has ended")]
    GrantEnded,
    #[error("the control plane has been away too long for new connections")]
    ControlPlaneAway,
}

impl Refusal {
    /// Whether a fresh lease may help (HTTP 401: renew and try once more).
    #[must_use]
    pub const fn renewable(self) -> bool {
        matches!(self, Self::Expired | Self::UnknownKey)
    }
}

/// The TLS client that presents a lease, as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub org: OrgId,
    pub account: AccountId,
    pub device: DeviceId,
    pub cnf: String,
}

impl Claims {
    /// Whether this lease opens a stream to `resource` for `holder` now. The signature is checked already.
    pub fn check(
        &self,
        holder: &Holder,
        resource: ResourceId,
        strict: bool,
        contact: Contact,
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        if self.org != holder.org {
            return Err(Refusal::ForeignOrg);
        }
        if self.account != holder.account || self.device != holder.device || self.cnf != holder.cnf {
            return Err(Refusal::ForeignHolder);
        }
        if self.resource != resource {
            return Err(Refusal::OtherResource);
        }
        if self.issued_at > now.plus(CLOCK_SKEW) {
            return Err(Refusal::NotYetValid);
        }
        if self.grant_ends.is_some_and(|end| end <= now) {
            return Err(Refusal::GrantEnded);
        }
        let window = if strict { FAIL_STATIC_STRICT } else { FAIL_STATIC };
        match contact {
            Contact::Connected if self.not_after <= now => Err(Refusal::Expired),
            Contact::Connected => Ok(()),
            Contact::AwaySince(since) if now.since(since) > window => Err(Refusal::ControlPlaneAway),
            // What had ended before the outage is not revived by it.
            Contact::AwaySince(since) if self.not_after <= since => Err(Refusal::Expired),
            Contact::AwaySince(_) => Ok(()),
        }
    }
}

/// Signs leases. Only the control plane has one.
pub struct Signer {
    key_id: String,
    secret: AsymmetricSecretKey<V4>,
}

/// A key that cannot be used for leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease key is not an Ed25519 key")]
pub struct BadKey;

impl Signer {
    /// `secret` is the 64-byte Ed25519 key (seed, then public key).
    pub fn new(key_id: impl Into<String>, secret: &[u8]) -> Result<Self, BadKey> {
        Ok(Self { key_id: key_id.into(), secret: AsymmetricSecretKey::from(secret).map_err(|_| BadKey)? })
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, BadKey> {
        let payload = serde_json::to_vec(claims).map_err(|_| BadKey)?;
        PublicToken::sign(&self.secret, &payload, Some(self.key_id.as_bytes()), None).map_err(|_| BadKey)
    }
}

/// Checks signatures of leases with the public keys that the control plane announced.
#[derive(Default)]
pub struct Verifier {
    keys: BTreeMap<String, AsymmetricPublicKey<V4>>,
}

impl Verifier {
    /// `keys`: key id and 32-byte Ed25519 public key. Keys that are no keys are left out.
    pub fn new<'a>(keys: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let keys = keys
            .into_iter()
            .filter_map(|(id, key)| Some((id.to_owned(), AsymmetricPublicKey::from(key).ok()?)))
            .collect();
        Self { keys }
    }

    /// The claims of a token whose signature fits. Nothing else is checked: see [`Claims::check`].
    pub fn open(&self, token: &str) -> Result<Claims, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::Malformed);
        }
        let untrusted = UntrustedToken::<pasetors::Public, V4>::try_from(token).map_err(|_| Refusal::Malformed)?;
        let key_id = std::str::from_utf8(untrusted.untrusted_footer()).map_err(|_| Refusal::Malformed)?;
        let key = self.keys.get(key_id).ok_or(Refusal::UnknownKey)?;
        let trusted =
            PublicToken::verify(key, &untrusted, Some(key_id.as_bytes()), None).map_err(|_| Refusal::BadSignature)?;
        serde_json::from_str(trusted.payload()).map_err(|_| Refusal::Malformed)
    }
}

/// What a stream leaves behind to be found again by a revocation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamSubject {
    pub account: AccountId,
    pub device: DeviceId,
    pub resource: ResourceId,
    pub grant: String,
}

/// What is revoked. A stream or lease that matches is worth nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RevokedSubject {
    Account {
        account: AccountId,
    },
    Device {
        device: DeviceId,
    },
    Grant {
        grant: String,
    },
    Resource {
        resource: ResourceId,
    },
    /// One account lost one resource, whatever the reason was that had granted it.
    Access {
        account: AccountId,
        resource: ResourceId,
    },
    Node {
        node: NodeId,
    },
}

/// A revocation: matching streams are cut, matching leases signed at or before `at` open nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revocation {
    #[serde(flatten)]
    pub subject: RevokedSubject,
    pub at: UnixMillis,
    /// Said to the user and written into the session record.
    pub reason: String,
}

impl RevokedSubject {
    #[must_use]
    pub fn matches(&self, stream: &StreamSubject) -> bool {
        match self {
            Self::Account { account } => *account == stream.account,
            Self::Device { device } => *device == stream.device,
            Self::Grant { grant } => *grant == stream.grant,
            Self::Resource { resource } => *resource == stream.resource,
            Self::Access { account, resource } => *account == stream.account && *resource == stream.resource,
            Self::Node { .. } => false,
        }
    }
}

impl Revocation {
    /// Whether this revocation makes a lease worthless.
    #[must_use]
    pub fn voids(&self, claims: &Claims) -> bool {
        claims.issued_at <= self.at
            && self.subject.matches(&StreamSubject {
                account: claims.account,
                device: claims.device,
                resource: claims.resource,
                grant: claims.grant.clone(),
            })
    }
}

#[cfg(test)]
mod tests;
