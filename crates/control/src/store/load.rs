//! Reads the catalogue from the database.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use imbl::OrdMap;
use postern_proto::{
    bind::zone_for,
    door::EntryCarrier,
    id::OrgId,
    resource::{BindAddress, BindMode, LoopbackAddress},
    sync::NetworkSettings,
};
use sqlx::AssertSqlSafe;

use super::{
    Entity, StoreError,
    read::{count, instant, json, optional_instant, optional_value, parse, port, signed, unsigned, value},
};
use crate::{
    catalogue::{
        Account, AccountKind, Catalogue, Cluster, Grant, MaintenanceWindow, Member, Node, NodeKind, Org, Resource,
        Role, Rule, RuleTarget,
    },
    clock::Clock,
    sql::{self, Connection, Row},
};

/// The organisation, its revision and its settings; `None` in a new database.
pub(super) async fn org(connection: &mut Connection) -> Result<Option<(Org, u64, NetworkSettings)>, StoreError> {
    let row = sql::query("SELECT id, name, epoch, rev, settings FROM org").fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let org = Org { id: value(&row, "id")?, name: row.try_get("name")?, epoch: row.try_get("epoch")? };
    let mut settings: serde_json::Value = parse(row.try_get("settings")?)?;
    if let Some(fields) = settings.as_object_mut() {
        // Older databases have no zone.
        fields.entry("dns_zone").or_insert_with(|| zone_for(&org.name).into());
    }
    let settings = serde_json::from_value(settings).map_err(|error| StoreError::Unreadable(error.to_string()))?;
    Ok(Some((org, count(&row, "rev")?, settings)))
}

pub(super) async fn create_org(connection: &mut Connection, name: &str, clock: &Clock) -> Result<(), StoreError> {
    let statement = "INSERT INTO org (id, name, rev, epoch, settings, created_at) VALUES ($1, $2, 0, $3, $4, $5)";
    sql::query(statement)
        .bind(OrgId::from_ulid(clock.ulid()).to_string())
        .bind(name)
        .bind(clock.ulid().to_string())
        .bind(json(&NetworkSettings { dns_zone: zone_for(name), ..NetworkSettings::default() })?)
        .bind(signed(clock.now().0))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn catalogue(connection: &mut Connection) -> Result<Catalogue, StoreError> {
    let (org, revision, settings) =
        org(connection).await?.ok_or_else(|| StoreError::Unreadable("no organisation".to_owned()))?;
    let mut catalogue = Catalogue::empty(org, revision, settings);
    fill::<Account>(connection, &mut catalogue).await?;
    fill::<Role>(connection, &mut catalogue).await?;
    fill::<Resource>(connection, &mut catalogue).await?;
    fill::<Member>(connection, &mut catalogue).await?;
    fill::<Grant>(connection, &mut catalogue).await?;
    fill::<Node>(connection, &mut catalogue).await?;
    fill::<Cluster>(connection, &mut catalogue).await?;
    fill::<MaintenanceWindow>(connection, &mut catalogue).await?;
    fill::<Rule>(connection, &mut catalogue).await?;
    for row in &sql::query("SELECT ip, resource_id FROM vnm_address").fetch_all(connection).await? {
        catalogue.note_past_address(value(row, "ip")?, value(row, "resource_id")?);
    }
    catalogue.index_all();
    Ok(catalogue)
}

async fn fill<E: Entity>(connection: &mut Connection, catalogue: &mut Catalogue) -> Result<(), StoreError> {
    let statement = format!("SELECT {} FROM {}", E::ROWS.columns, E::ROWS.table);
    let mut table = OrdMap::new();
    // One row after the other: a million rows at once are larger than what is read from them.
    let mut rows = sql::query(AssertSqlSafe(statement)).rows(connection);
    while let Some(row) = rows.try_next().await? {
        let entity = E::read(&row)?;
        table.insert(entity.id(), Arc::new(entity));
    }
    drop(rows);
    *E::table_mut(catalogue) = table;
    Ok(())
}

/// The row of one entity.
pub(super) async fn one<E: Entity>(id: E::Id, connection: &mut Connection) -> Result<Option<Row>, StoreError> {
    let statement = format!("SELECT {} FROM {} WHERE {}", E::ROWS.columns, E::ROWS.table, E::ROWS.key);
    let query = sql::query(AssertSqlSafe(statement));
    let query = E::key(id).split(' ').fold(query, sql::Query::bind);
    Ok(query.fetch_optional(connection).await?)
}

pub(super) fn account(row: &Row) -> Result<Account, StoreError> {
    let kind = match row.try_get("kind")? {
        "user" => AccountKind::User,
        "service" => AccountKind::Service,
        other => return Err(StoreError::Unreadable(other.to_owned())),
    };
    Ok(Account {
        id: value(row, "id")?,
        email: value(row, "email")?,
        name: row.try_get("name")?,
        kind,
        admin: row.try_get("admin")?,
        suspended: row.try_get("suspended")?,
        tags: parse(row.try_get("tags")?)?,
        created_at: instant(row, "created_at")?,
        revision: count(row, "rev")?,
    })
}

pub(super) fn role(row: &Row) -> Result<Role, StoreError> {
    Ok(Role {
        id: value(row, "id")?,
        name: row.try_get("name")?,
        tags: parse(row.try_get("tags")?)?,
        revision: count(row, "rev")?,
    })
}

pub(super) fn rule(row: &Row) -> Result<Rule, StoreError> {
    let (resources, query): (Option<&str>, Option<String>) = (row.try_get("resources")?, row.try_get("query")?);
    let what = match (resources, query) {
        (Some(resources), None) => RuleTarget::Resources(parse(resources)?),
        (None, Some(query)) => RuleTarget::Query(query),
        _ => return Err(StoreError::Unreadable("a rule is neither static nor dynamic".to_owned())),
    };
    Ok(Rule { id: value(row, "id")?, role: value(row, "role_id")?, what, revision: count(row, "rev")? })
}

pub(super) fn member(row: &Row) -> Result<Member, StoreError> {
    Ok(Member { role: value(row, "role_id")?, account: value(row, "account_id")?, revision: count(row, "rev")? })
}

pub(super) fn grant(row: &Row) -> Result<Grant, StoreError> {
    Ok(Grant {
        id: value(row, "id")?,
        account: value(row, "account_id")?,
        resource: value(row, "resource_id")?,
        ends_at: optional_instant(row, "ends_at")?,
        reason: row.try_get("reason")?,
        created_at: instant(row, "created_at")?,
        revision: count(row, "rev")?,
    })
}

pub(super) fn resource(row: &Row) -> Result<Resource, StoreError> {
    let mode = match row.try_get("bind_mode")? {
        "loopback" => BindMode::Loopback,
        "vnm" => BindMode::Vnm,
        "both" => BindMode::Both,
        other => return Err(StoreError::Unreadable(other.to_owned())),
    };
    // A resource in loopback mode has this address as its main one.
    let loopback = match optional_value(row, "loopback_ip")? {
        Some(ip) if mode.is_virtual() => Some(LoopbackAddress { ip, port: port(row, "loopback_port")? }),
        _ => None,
    };
    Ok(Resource {
        id: value(row, "id")?,
        name: row.try_get("name")?,
        kind: value(row, "kind")?,
        host: row.try_get("host")?,
        port: port(row, "port")?,
        ports: parse(row.try_get("ports")?)?,
        hosts: parse(row.try_get("hosts")?)?,
        tags: parse(row.try_get("tags")?)?,
        bind: BindAddress {
            mode,
            ip: value(row, "bind_ip")?,
            port: port(row, "bind_port")?,
            dns_name: optional_value(row, "dns_name")?,
            loopback,
        },
        allow_local: row.try_get("allow_local")?,
        strict: row.try_get("strict")?,
        egress: row.try_get("egress")?,
        cluster: optional_value(row, "cluster_id")?,
        created_at: instant(row, "created_at")?,
        revision: count(row, "rev")?,
    })
}

pub(super) fn node(row: &Row) -> Result<Node, StoreError> {
    let kind = match row.try_get("kind")? {
        "gateway" => NodeKind::Gateway,
        "relay" => NodeKind::Relay,
        "worker" => NodeKind::Worker,
        other => return Err(StoreError::Unreadable(other.to_owned())),
    };
    Ok(Node {
        id: value(row, "id")?,
        name: row.try_get("name")?,
        kind,
        group: row.try_get("peering")?,
        tags: parse(row.try_get("tags")?)?,
        advertise: row.try_get("advertise")?,
        spki_sha256: row.try_get("spki_sha256")?,
        enrolled_at: optional_instant(row, "enrolled_at")?,
        drain_ends_at: optional_instant(row, "drain_ends_at")?,
        planned_drain: row.try_get::<Option<i64>>("planned_drain")?.map(unsigned).transpose()?,
        cluster: optional_value(row, "cluster_id")?,
        access_key: optional_value(row, "access_key")?,
        created_at: instant(row, "created_at")?,
        revision: count(row, "rev")?,
    })
}

pub(super) fn cluster(row: &Row) -> Result<Cluster, StoreError> {
    let carrier = match row.try_get("carrier")? {
        "direct" => EntryCarrier::Direct,
        "websocket" => EntryCarrier::WebSocket,
        other => return Err(StoreError::Unreadable(other.to_owned())),
    };
    Ok(Cluster {
        id: value(row, "id")?,
        name: row.try_get("name")?,
        advertise: row.try_get("advertise")?,
        carrier,
        authority: row.try_get("authority")?,
        removed: parse(row.try_get("removed")?)?,
        tags: parse(row.try_get("tags")?)?,
        created_at: instant(row, "created_at")?,
        revision: count(row, "rev")?,
    })
}

pub(super) fn window(row: &Row) -> Result<MaintenanceWindow, StoreError> {
    Ok(MaintenanceWindow {
        id: value(row, "id")?,
        name: row.try_get("name")?,
        schedule: row.try_get("schedule")?,
        duration: count(row, "duration")?,
        require_idleness: row.try_get("require_idleness")?,
        nodes: row.try_get("nodes")?,
        created_at: instant(row, "created_at")?,
        revision: count(row, "rev")?,
    })
}
