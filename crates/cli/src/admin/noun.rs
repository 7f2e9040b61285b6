//! The things that are administered: where they are in the API, by what they are named, and the columns of their tables.

use postern_proto::time::UnixMillis;
use serde_json::Value;

use super::show::{flag, health, id, instant, micros, number, permille, seconds, size, state, tags, text};
use crate::{
    table::{Field, Tone},
    text as words,
};

/// One kind of thing.
pub(super) struct Noun {
    pub(super) singular: &'static str,
    pub(super) plural: &'static str,
    /// Its path after `/api/v1/`.
    pub(super) collection: &'static str,
    /// What its ids begin with.
    pub(super) prefix: &'static str,
    /// The fields that a person may name it by, best first; the first one is shown.
    pub(super) names: &'static [&'static str],
    pub(super) columns: &'static [Column],
}

pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) show: fn(&Value) -> Field,
}

const fn column(title: &'static str, show: fn(&Value) -> Field) -> Column {
    Column { title, show }
}

pub(super) const ACCOUNT: Noun = Noun {
    singular: "account",
    plural: "accounts",
    collection: "accounts",
    prefix: "acc_",
    names: &["email", "name"],
    columns: &[
        column("EMAIL", |it| text(it, "/email")),
        column("NAME", |it| text(it, "/name")),
        column("KIND", |it| text(it, "/kind")),
        column("ADMIN", |it| flag(it, "/admin", Tone::Warn)),
        column("SUSPENDED", |it| flag(it, "/suspended", Tone::Bad)),
        column("TAGS", |it| tags(it, "/tags")),
        column("ID", id),
    ],
};

pub(super) const TOKEN: Noun = Noun {
    singular: "token",
    plural: "tokens",
    collection: "tokens",
    prefix: "tok_",
    names: &["name"],
    columns: &[
        column("NAME", |it| text(it, "/name")),
        column("CREATED", |it| instant(it, "/created_at")),
        column("ENDS", |it| instant(it, "/expires_at")),
        column("LAST USED", |it| instant(it, "/last_used_at")),
        column("ID", id),
    ],
};

pub(super) const ROLE: Noun = Noun {
    singular: "role",
    plural: "roles",
    collection: "roles",
    prefix: "rol_",
    names: &["name"],
    columns: &[column("NAME", |it| text(it, "/name")), column("TAGS", |it| tags(it, "/tags")), column("ID", id)],
};

pub(super) const RULE: Noun = Noun {
    singular: "rule",
    plural: "rules",
    collection: "rules",
    prefix: "rul_",
    names: &[],
    columns: &[
        column("ID", |it| text(it, "/id")),
        column("QUERY", |it| text(it, "/query")),
        column("RESOURCES", |it| text(it, "/resources")),
    ],
};

pub(super) const MEMBER: Noun = Noun {
    singular: "member",
    plural: "members",
    collection: "members",
    prefix: "acc_",
    names: &[],
    columns: &[
        column("EMAIL", |it| text(it, "/email")),
        column("NAME", |it| text(it, "/name")),
        column("ID", |it| text(it, "/account")),
    ],
};

pub(super) const GRANT: Noun = Noun {
    singular: "grant",
    plural: "grants",
    collection: "grants",
    prefix: "grt_",
    names: &[],
    columns: &[
        column("ID", |it| text(it, "/id")),
        column("ACCOUNT", |it| text(it, "/account")),
        column("RESOURCE", |it| text(it, "/resource")),
        column("ENDS", |it| instant(it, "/ends_at")),
        column("REASON", |it| text(it, "/reason")),
    ],
};

pub(super) const RESOURCE: Noun = Noun {
    singular: "resource",
    plural: "resources",
    collection: "resources",
    prefix: "res_",
    names: &["name"],
    columns: &[
        column("NAME", |it| text(it, "/name")),
        column("KIND", |it| text(it, "/kind")),
        column("TARGET", |it| Field::from(format!("{}:{}", plain(it, "/host"), ports(it)))),
        column("APPEARS AT", |it| Field::from(places(it))),
        column("DNS NAME", |it| text(it, "/bind/dns_name")),
        column("HEALTH", |it| health(it, "/health")),
        column("TAGS", |it| tags(it, "/tags")),
        column("ID", id),
    ],
};

pub(super) const GATEWAY: Noun = Noun {
    singular: "gateway",
    plural: "gateways",
    collection: "gateways",
    prefix: "nod_",
    names: &["name"],
    columns: &[
        column("NAME", |it| text(it, "/name")),
        column("KIND", |it| text(it, "/kind")),
        column("GROUP", |it| text(it, "/group")),
        column("ADDRESS", |it| text(it, "/advertise")),
        column("STATE", |it| state(it, "/state")),
        column("LAST SEEN", |it| instant(it, "/last_seen_at")),
        column("PROGRAM", |it| text(it, "/agent")),
        column("ID", id),
    ],
};

pub(super) const CLUSTER: Noun = Noun {
    singular: "cluster",
    plural: "clusters",
    collection: "clusters",
    prefix: "clu_",
    names: &["name"],
    columns: &[
        column("NAME", |it| text(it, "/name")),
        column("ADDRESS", |it| text(it, "/advertise")),
        column("CARRIER", |it| text(it, "/carrier")),
        column(">WORKERS", |it| number(it, "/workers")),
        column(">CONNECTED", |it| number(it, "/connected")),
        column(">RESOURCES", |it| number(it, "/resources")),
        column("TAGS", |it| tags(it, "/tags")),
        column("ID", id),
    ],
};

/// A key pair of a cluster.
pub(super) const CLUSTER_KEY: Noun = Noun {
    singular: "key pair",
    plural: "key pairs",
    collection: "keys",
    prefix: "key_",
    names: &[],
    columns: &[
        column("ACCESS KEY", id),
        column("CREATED", |it| instant(it, "/created_at")),
        column("ROTATED", |it| instant(it, "/rotated_at")),
        column("LAST USED", |it| instant(it, "/last_used_at")),
    ],
};

/// A gateway or a relay, as those see it who run it.
pub(super) const NODE: Noun = Noun {
    singular: "node",
    plural: "nodes",
    collection: "nodes",
    prefix: "nod_",
    names: &["name"],
    columns: &[
        column("NAME", |it| text(it, "/name")),
        column("ROLE", |it| text(it, "/role")),
        column("GROUP", |it| text(it, "/group")),
        column("STATE", |it| state(it, "/state")),
        column(">STREAMS", |it| number(it, "/streams")),
        column(">CPU", |it| permille(it, "/cpu_permille")),
        column("VERSION", |it| text(it, "/version")),
        column("LAST SEEN", |it| instant(it, "/last_seen_at")),
        column("DRAIN ENDS", |it| instant(it, "/drain_ends_at")),
        column("DRAIN PLANNED", |it| Field::from(planned(it))),
        column("TAGS", |it| tags(it, "/tags")),
        column("ID", id),
    ],
};

/// A maintenance window.
pub(super) const WINDOW: Noun = Noun {
    singular: "maintenance window",
    plural: "maintenance windows",
    collection: "maintenance",
    prefix: "win_",
    names: &["name"],
    columns: &[
        column("NAME", |it| text(it, "/name")),
        column("SCHEDULE", |it| text(it, "/schedule")),
        column("OPEN FOR", |it| seconds(it, "/duration")),
        column("ONLY IDLE", |it| flag(it, "/require_idleness", Tone::Warn)),
        column("OPEN", |it| flag(it, "/open", Tone::Good)),
        column("OPENS", |it| instant(it, "/opens_at")),
        column("CLOSES", |it| instant(it, "/closes_at")),
        column(">FOR", |it| number(it, "/bound")),
        column("NODES", |it| text(it, "/nodes")),
        column("ID", id),
    ],
};

pub(super) const DEVICE: Noun = Noun {
    singular: "device",
    plural: "devices",
    collection: "devices",
    prefix: "dev_",
    names: &["name"],
    columns: &[
        column("NAME", |it| text(it, "/name")),
        column("OS", |it| text(it, "/os")),
        column("ACCOUNT", |it| text(it, "/email")),
        column("LAST SEEN", |it| instant(it, "/last_seen_at")),
        column("REVOKED", |it| instant(it, "/revoked_at")),
        column("ID", id),
    ],
};

pub(super) const SESSION: Noun = Noun {
    singular: "session",
    plural: "sessions",
    collection: "sessions",
    prefix: "str_",
    names: &[],
    columns: &[
        column("STARTED", |it| instant(it, "/started_at")),
        column("ACCOUNT", |it| text(it, "/account_email")),
        column("RESOURCE", |it| text(it, "/resource_name")),
        column("GATEWAY", |it| text(it, "/node_name")),
        column("ENDED", |it| instant(it, "/ended_at")),
        column(">UP", |it| size(it, "/bytes_up")),
        column(">DOWN", |it| size(it, "/bytes_down")),
        column("WHY", |it| text(it, "/reason")),
        column("ID", id),
    ],
};

pub(super) const ACTIVITY: Noun = Noun {
    singular: "activity",
    plural: "activities",
    collection: "activities",
    prefix: "act_",
    names: &[],
    columns: &[
        column("AT", |it| instant(it, "/at")),
        column("WHO", |it| text(it, "/actor/name")),
        column("DID", |it| text(it, "/verb")),
        column("TO", |it| text(it, "/subject/name")),
        column(">REVISION", |it| number(it, "/revision")),
        column("ID", id),
    ],
};

/// The records of one gateway, each bound to the one before.
pub(super) const CHAIN: Noun = Noun {
    singular: "chain",
    plural: "chains",
    collection: "audit/verify",
    prefix: "nod_",
    names: &[],
    columns: &[
        column("GATEWAY", |it| text(it, "/node_name")),
        column(">RECORDS", |it| number(it, "/records")),
        column("CHAIN", |it| match it.get("ok").and_then(Value::as_bool) {
            Some(true) => Field::new("whole", Tone::Good),
            _ => Field::new(
                format!("broken at record {}: {}", plain(it, "/broken/seq"), plain(it, "/broken/why")),
                Tone::Bad,
            ),
        }),
    ],
};

/// What one gateway saw of a resource.
pub(super) const SEEN: Noun = Noun {
    singular: "gateway",
    plural: "gateways",
    collection: "gateways",
    prefix: "nod_",
    names: &["name"],
    columns: &[
        column("GATEWAY", |it| text(it, "/name")),
        column("HEALTH", |it| health(it, "/health")),
        column(">CONNECT", |it| micros(it, "/connect_micros")),
        column("CHECKED", |it| instant(it, "/checked_at")),
    ],
};

/// A node found a resource otherwise than before.
pub(super) const TURN: Noun = Noun {
    singular: "change",
    plural: "changes",
    collection: "health",
    prefix: "",
    names: &[],
    columns: &[
        column("SINCE", |it| instant(it, "/at")),
        column("NODE", |it| text(it, "/node_name")),
        column("HEALTH", turn),
    ],
};

/// A node came or went.
pub(super) const ATTENDANCE: Noun = Noun {
    singular: "change",
    plural: "changes",
    collection: "history",
    prefix: "",
    names: &[],
    columns: &[column("SINCE", |it| instant(it, "/at")), column("STATE", |it| state(it, "/state"))],
};

/// How a node found a resource, or what became of the node.
fn turn(item: &Value) -> Field {
    match item.pointer("/node_state").and_then(Value::as_str) {
        Some("away") => Field::new("node away", Tone::Warn),
        Some(_) => Field::new("node back", Tone::Dim),
        None => health(item, "/health"),
    }
}

fn plain(item: &Value, pointer: &str) -> String {
    super::show::plain(item.pointer(pointer).unwrap_or(&Value::Null))
}

/// The own port, then the further ones.
fn ports(resource: &Value) -> String {
    let further = resource.get("ports").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    std::iter::once(plain(resource, "/port").as_str()).chain(further).collect::<Vec<_>>().join(",")
}

/// Where it appears: with mode `both` at two addresses.
fn places(resource: &Value) -> String {
    let main = format!("{}:{}", plain(resource, "/bind/ip"), plain(resource, "/bind/port"));
    if plain(resource, "/bind/mode") == "both" {
        let loopback = |field| plain(resource, &format!("/bind/loopback/{field}"));
        format!("{main}, {}:{}", loopback("ip"), loopback("port"))
    } else {
        main
    }
}

/// When a drain that waits for a maintenance window begins; nothing where none does.
pub(super) fn planned(node: &Value) -> String {
    let Some(plan) = node.get("drain_planned").filter(|plan| plan.is_object()) else { return String::new() };
    let says = |field: &str| plan.get(field).and_then(Value::as_bool).unwrap_or_default();
    let begins = plan.get("begins_at").and_then(Value::as_u64).map(|at| words::instant(UnixMillis(at)));
    match (begins, says("open"), says("require_idleness")) {
        (None, ..) => "no window is for it".to_owned(),
        (Some(_), true, true) => "when idle".to_owned(),
        (Some(_), true, false) => "now".to_owned(),
        (Some(at), false, true) => format!("{at}, when idle"),
        (Some(at), false, false) => at,
    }
}
