//! Identifiers: a prefix that names the kind and a ULID, for example `res_01JABCDEFGHJKMNPQRSTVWXYZ0`.
//!
//! A value of one type cannot stand where another is expected, and a string with the wrong prefix does not parse.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use ulid::Ulid;

/// Why a string is not an identifier of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not an identifier of the form {prefix}_ and 26 letters and digits")]
pub struct IdError {
    prefix: &'static str,
    value: String,
}

macro_rules! make_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// What every identifier of this kind begins with, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an identifier from a ULID that the caller drew.
            #[must_use]
            pub const fn from_ulid(ulid: Ulid) -> Self {
                Self(ulid)
            }

            /// The ULID without its prefix.
            #[must_use]
            pub const fn ulid(self) -> Ulid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let ulid = text.strip_prefix(concat!($prefix, "_")).and_then(|rest| canonical_ulid(rest));
                ulid.map(Self).ok_or_else(|| IdError { prefix: $prefix, value: text.chars().take(64).collect() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

make_id!(/** An organisation: one control plane, one CA. */ OrgId, "org");
make_id!(/** A user or a service account. */ AccountId, "acc");
make_id!(/** One key on one machine of an account. */ DeviceId, "dev");
make_id!(/** A role. */ RoleId, "rol");
make_id!(/** A rule of a role. */ RuleId, "rul");
make_id!(/** A direct grant. */ GrantId, "grt");
make_id!(/** A resource. */ ResourceId, "res");
make_id!(/** A gateway, relay or worker. */ NodeId, "nod");
make_id!(/** A proxy cluster: workers behind one address. */ ClusterId, "clu");
make_id!(/** A key pair of a proxy cluster: its access key. */ AccessKeyId, "key");
make_id!(/** A maintenance window. */ WindowId, "win");
make_id!(/** One carried connection; also the `Postern-Stream` header. */ StreamId, "str");
make_id!(/** A signed-in session of an account on a device. */ LoginId, "log");
make_id!(/** A token of a service account. */ TokenId, "tok");
make_id!(/** An administrative event. */ ActivityId, "act");

impl NodeId {
    /// The DNS name in a node's certificate. Clients verify it; nobody resolves it.
    #[must_use]
    pub fn tls_name(self) -> String {
        format!("{}.node.postern.internal", self.0.to_string().to_ascii_lowercase())
    }
}

impl ClusterId {
    /// The DNS name that the certificates of a cluster's workers have beside their own. Clients verify it; nobody
    /// resolves it.
    #[must_use]
    pub fn tls_name(self) -> String {
        format!("{}.cluster.postern.internal", self.0.to_string().to_ascii_lowercase())
    }

    /// The cluster of such a name.
    #[must_use]
    pub fn from_tls_name(name: &str) -> Option<Self> {
        let label = name.strip_suffix(".cluster.postern.internal")?;
        let cluster = canonical_ulid(&label.to_ascii_uppercase()).map(Self)?;
        (cluster.tls_name() == name).then_some(cluster)
    }
}

/// Reads a ULID only in the form in which it is written, so that one identifier has one spelling.
fn canonical_ulid(text: &str) -> Option<Ulid> {
    let ulid = Ulid::from_string(text).ok()?;
    (ulid.to_string() == text).then_some(ulid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "res_01JABCDEFGHJKMNPQRSTVWXYZ0";

    #[test]
    fn an_identifier_survives_printing_and_parsing() {
        let id: ResourceId = TEXT.parse().unwrap();
        assert_eq!(id.to_string(), TEXT);
        assert_eq!(serde_json::from_str::<ResourceId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn a_cluster_is_known_by_the_name_in_its_certificates() {
        let cluster = ClusterId::from_ulid(Ulid(7));
        assert_eq!(ClusterId::from_tls_name(&cluster.tls_name()), Some(cluster));
        let node = NodeId::from_ulid(Ulid(7)).tls_name();
        for other in [
            node.as_str(),
            "x.cluster.postern.internal",
            ".cluster.postern.internal",
            &cluster.tls_name().to_uppercase(),
        ] {
            assert_eq!(ClusterId::from_tls_name(other), None, "{other}");
        }
    }

    #[test]
    fn another_prefix_or_another_spelling_does_not_parse() {
        for bad in [
            "dev_01JABCDEFGHJKMNPQRSTVWXYZ0",
            "res_01jabcdefghjkmnpqrstvwxyz0",
            "res_",
            "01JABCDEFGHJKMNPQRSTVWXYZ0",
            "res_01JABCDEFGHJKMNPQRSTVWXYZ",
        ] {
            assert!(bad.parse::<ResourceId>().is_err(), "{bad}");
        }
    }
}
