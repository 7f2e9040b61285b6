//! What callers give for a resource.

use std::net::IpAddr;

use postern_proto::{
    bind::Wish,
    port::{PortSet, PortSetError},
    resource::{BindAddress, BindMode, Kind, Tags},
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use utoipa::ToSchema;

use super::super::{Given, Violations, input::Unknown};

const KNOWN_BIND: &[&str] = &["mode", "ip", "port", "dns_name", "loopback"];
const KNOWN_LOOPBACK: &[&str] = &["ip", "port"];

/// What a resource is created from or changed to. In a change, what is left out stays.
#[derive(Deserialize, ToSchema)]
pub(super) struct ResourceInput {
    /// Unique; without quotes, angle brackets and control characters. Must be given at creation.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) name: Given<String>,
    /// `tcp` when left out. Known kinds: tcp, http, postgres, mysql, redis, ssh.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) kind: Given<Kind>,
    /// A host name or an IP address, as the gateway sees it. Must be given at creation.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) host: Given<String>,
    /// That of the kind when left out: tcp 49150, http 80, postgres 5432, mysql 3306, redis 6379, ssh 22.
    #[serde(default)]
    #[schema(value_type = Option<u16>)]
    pub(super) port: Given<i64>,
    /// Ports beside its own that may be reached in the virtual network: a list of ports and ranges such as `7000-7005`, or
    /// one text with commas. At most 64; replaces all. Without `port` the kind's port, else the first of them, is its own.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub(super) ports: Given<PortsInput>,
    /// Which hosts under its wildcard alias may be reached: names, and patterns such as `*.eu.kafka.internal`. At most 64;
    /// replaces all. Empty, null or left out at creation: all that lie under the alias.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub(super) hosts: Given<Vec<String>>,
    /// Replaces all tags.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub(super) tags: Given<Tags>,
    #[serde(default)]
    #[schema(value_type = Option<BindInput>)]
    pub(super) bind: Given<BindInput>,
    /// Whether loopback, link-local, metadata and the gateway's own addresses may be dialled for it.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    pub(super) allow_local: Given<bool>,
    /// Whether new streams need a control plane heard from within 15 s.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    pub(super) strict: Given<bool>,
    /// Which nodes may dial it, as a filter over nodes, for example `kind:relay tags:site=fra`; null: all.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) egress: Given<String>,
    /// The id of the cluster over which alone it is reached; null or left out at creation: gateways and relays.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) cluster: Given<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub(super) unknown: Unknown,
}

/// Where a resource is to appear on the user's machine. What is null, or left out at creation, is assigned: in loopback
/// mode the next free port, in Virtual Networking Mode the next free address, the resource's own port, a name in the
/// organisation's zone, and a loopback address.
#[derive(Deserialize, ToSchema)]
pub(super) struct BindInput {
    /// `loopback` (when left out), `vnm`, or `both`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) mode: Given<BindMode>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) ip: Given<IpAddr>,
    /// 1024 to 64999 in loopback mode, 1 to 65535 in Virtual Networking Mode; unique per IP.
    #[serde(default)]
    #[schema(value_type = Option<u16>)]
    pub(super) port: Given<i64>,
    /// Unique; only in Virtual Networking Mode. It may be the resource's real host name, so that certificates of that name
    /// are verified as ever, or a wildcard such as `*.kafka.internal` for a resource of several hosts.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) dns_name: Given<String>,
    /// Only in Virtual Networking Mode: the loopback address beside the virtual one.
    #[serde(default)]
    #[schema(value_type = Option<LoopbackInput>)]
    pub(super) loopback: Given<LoopbackInput>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub(super) unknown: Unknown,
}

/// A bind address in loopback mode; what is null or left out is assigned.
#[derive(Deserialize, ToSchema)]
pub(super) struct LoopbackInput {
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    ip: Given<IpAddr>,
    /// 1024 to 64999; unique per IP.
    #[serde(default)]
    #[schema(value_type = Option<u16>)]
    port: Given<i64>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

/// Ports and ranges: a list of texts and numbers, one text with commas, or one number.
pub(super) struct PortsInput(pub(super) PortSet);

impl<'de> Deserialize<'de> for PortsInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entry = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let read = match Value::deserialize(deserializer)? {
            Value::String(text) => text.parse(),
            Value::Array(values) => {
                let entries: Vec<String> = values.iter().map(entry).collect();
                PortSet::read(entries.iter().map(String::as_str))
            }
            other => PortSet::read([other.to_string().as_str()]),
        };
        read.map(Self).map_err(|error: PortSetError| D::Error::custom(error))
    }
}

/// What is asked for the bind address; `None` when a field is not even of the right type.
pub(super) fn wish(broken: &mut Violations, given: Given<BindInput>, known: Option<&BindAddress>) -> Option<Wish> {
    let reset = matches!(given, Given::Null);
    let wrong = matches!(given, Given::Wrong(..));
    let Some(input) = broken.optional("bind", given) else {
        let mode = known.filter(|_| reset).map_or(BindMode::Loopback, |known| known.mode);
        return (!wrong).then(|| Wish::any(mode));
    };
    broken.unknown_in("bind.", &input.unknown, KNOWN_BIND);
    let mut wrong = matches!(input.mode, Given::Wrong(..))
        || matches!(input.ip, Given::Wrong(..))
        || matches!(input.port, Given::Wrong(..))
        || matches!(input.dns_name, Given::Wrong(..))
        || matches!(input.loopback, Given::Wrong(..));
    let mode = broken.optional("bind.mode", input.mode);
    let mode = mode.unwrap_or_else(|| known.map_or(BindMode::Loopback, |known| known.mode));
    let kept = known.map_or_else(|| Wish::any(mode), |known| kept(known, mode));
    let mut wish = Wish {
        mode,
        ip: kept_or(broken, "bind.ip", input.ip, kept.ip),
        port: kept_or(broken, "bind.port", input.port, kept.port),
        dns_name: kept_or(broken, "bind.dns_name", input.dns_name, kept.dns_name),
        loopback_ip: kept.loopback_ip,
        loopback_port: kept.loopback_port,
    };
    match input.loopback {
        Given::Absent => {}
        Given::Value(loopback) => {
            broken.unknown_in("bind.loopback.", &loopback.unknown, KNOWN_LOOPBACK);
            wrong |= matches!(loopback.ip, Given::Wrong(..)) || matches!(loopback.port, Given::Wrong(..));
            wish.loopback_ip = kept_or(broken, "bind.loopback.ip", loopback.ip, wish.loopback_ip);
            wish.loopback_port = kept_or(broken, "bind.loopback.port", loopback.port, wish.loopback_port);
        }
        other => {
            broken.optional("bind.loopback", other);
            (wish.loopback_ip, wish.loopback_port) = (None, None);
        }
    }
    (!wrong).then_some(wish)
}

/// What of an address stays in a mode: the virtual one between the modes that have one, the loopback one always.
fn kept(known: &BindAddress, mode: BindMode) -> Wish {
    let loopback = known.loopback_address();
    let (loopback_ip, loopback_port) = (loopback.map(|at| at.ip()), loopback.map(|at| at.port().into()));
    let any = Wish::any(mode);
    match (known.mode.is_virtual(), mode.is_virtual()) {
        (true, true) | (false, false) => Wish { mode, ..Wish::keep(known) },
        (true, false) => Wish { ip: loopback_ip, port: loopback_port, ..any },
        (false, true) => Wish { loopback_ip, loopback_port, ..any },
    }
}

fn kept_or<T>(broken: &mut Violations, field: &str, given: Given<T>, kept: Option<T>) -> Option<T> {
    if matches!(given, Given::Absent) { kept } else { broken.optional(field, given) }
}
