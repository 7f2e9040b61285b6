//! How each kind of entity is kept: its row, its place in the catalogue, and what a change of it touches.

use std::{fmt::Display, future::Future, sync::Arc};

use postern_proto::{
    id::{AccountId, ClusterId, GrantId, NodeId, ResourceId, RoleId, RuleId, WindowId},
    name::name_key,
};
use serde::Serialize;

use super::{
    StoreError, load,
    read::{json, millis, signed},
};
use crate::{
    access::Touched,
    catalogue::{
        Account, Catalogue, Cluster, Grant, MaintenanceWindow, Member, Node, Resource, Role, Rule, RuleTarget, Table,
    },
    sql::{self, Connection, Row},
};

/// A kind of thing that is configured.
pub trait Entity: Serialize + Clone + Send + Sync + 'static {
    type Id: Copy + Ord + Send + Sync;
    /// The word for it in activities, for example `resource`.
    const KIND: &'static str;

    fn id(&self) -> Self::Id;
    /// The identifier as activities name it.
    fn subject_id(&self) -> String;
    /// What a person calls it.
    fn label(&self, catalogue: &Catalogue) -> String;
    /// Notes the revision of its last change.
    fn stamp(&mut self, revision: u64);
    fn table(catalogue: &Catalogue) -> &Table<Self::Id, Self>;
    fn table_mut(catalogue: &mut Catalogue) -> &mut Table<Self::Id, Self>;
    /// Brings the index up to date and notes what was touched.
    fn settle(catalogue: &mut Catalogue, touched: &mut Touched, before: Option<&Self>, after: Option<&Self>);
    /// Where its rows are.
    const ROWS: Rows;
    /// Reads a row.
    fn read(row: &Row) -> Result<Self, StoreError>;
    /// What its row is found by, as the log of entities names it: the values of its primary key, with spaces between.
    fn key(id: Self::Id) -> String;
    /// Reads such a key.
    fn parse_key(text: &str) -> Option<Self::Id>;
    /// Inserts or replaces its row.
    fn save(&self, connection: &mut Connection) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn erase(id: Self::Id, connection: &mut Connection) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Where the rows of a kind of entity are. Columns are named one by one: with `*`, a statement that PostgreSQL has
/// prepared would break when a newer program adds one.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub table: &'static str,
    pub columns: &'static str,
    /// Finds one, with the values of its key as `$1` and so on.
    pub key: &'static str,
}

/// The table of an entity, and its `revision` field.
macro_rules! kept_in {
    ($table:ident) => {
        fn stamp(&mut self, revision: u64) {
            self.revision = revision;
        }

        fn table(catalogue: &Catalogue) -> &Table<Self::Id, Self> {
            &catalogue.$table
        }

        fn table_mut(catalogue: &mut Catalogue) -> &mut Table<Self::Id, Self> {
            &mut catalogue.$table
        }
    };
}

/// The `id` field of an entity is its identifier.
macro_rules! named_by_id {
    () => {
        fn id(&self) -> Self::Id {
            self.id
        }

        fn subject_id(&self) -> String {
            self.id.to_string()
        }

        fn key(id: Self::Id) -> String {
            id.to_string()
        }

        fn parse_key(text: &str) -> Option<Self::Id> {
            text.parse().ok()
        }
    };
}

fn role_name(catalogue: &Catalogue, id: RoleId) -> String {
    catalogue.roles.get(&id).map_or_else(|| id.to_string(), |role| role.name.clone())
}

fn email(catalogue: &Catalogue, id: AccountId) -> String {
    catalogue.accounts.get(&id).map_or_else(|| id.to_string(), |account| account.email.to_string())
}

fn done(result: Result<u64, sqlx::Error>) -> Result<(), StoreError> {
    Ok(result.map(drop)?)
}

async fn delete(statement: &'static str, id: impl Display, connection: &mut Connection) -> Result<(), StoreError> {
    done(sql::query(statement).bind(id.to_string()).execute(connection).await)
}

impl Entity for Account {
    type Id = AccountId;
    const KIND: &'static str = "account";
    const ROWS: Rows = Rows {
        table: "account",
        columns: "id, email, name, kind, admin, suspended, tags, created_at, rev",
        key: "id = $1",
    };

    named_by_id!();

    fn label(&self, _: &Catalogue) -> String {
        self.email.to_string()
    }

    kept_in!(accounts);

    fn read(row: &Row) -> Result<Self, StoreError> {
        load::account(row)
    }

    fn settle(_: &mut Catalogue, touched: &mut Touched, before: Option<&Self>, after: Option<&Self>) {
        touched.accounts.extend(before.or(after).map(|account| account.id));
    }

    async fn save(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let statement = "INSERT INTO account (id, kind, email, name, admin, suspended, tags, created_at, rev)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT (id) DO UPDATE SET kind = $2, email = $3, name = $4, admin = $5, suspended = $6, tags = $7,
                rev = $9";
        let query = sql::query(statement)
            .bind(self.id.to_string())
            .bind(self.kind.as_str())
            .bind(self.email.as_str())
            .bind(&self.name)
            .bind(self.admin)
            .bind(self.suspended)
            .bind(json(&self.tags)?)
            .bind(signed(self.created_at.0))
            .bind(signed(self.revision));
        done(query.execute(connection).await)
    }

    async fn erase(id: AccountId, connection: &mut Connection) -> Result<(), StoreError> {
        delete("DELETE FROM account WHERE id = $1", id, connection).await
    }
}

impl Entity for Role {
    type Id = RoleId;
    const KIND: &'static str = "role";
    const ROWS: Rows = Rows { table: "role", columns: "id, name, tags, rev", key: "id = $1" };

    named_by_id!();

    fn label(&self, _: &Catalogue) -> String {
        self.name.clone()
    }

    kept_in!(roles);

    fn read(row: &Row) -> Result<Self, StoreError> {
        load::role(row)
    }

    fn settle(_: &mut Catalogue, touched: &mut Touched, before: Option<&Self>, after: Option<&Self>) {
        touched.roles.extend(before.or(after).map(|role| role.id));
    }

    async fn save(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let statement = "INSERT INTO role (id, name, name_key, tags, rev) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (id) DO UPDATE SET name = $2, name_key = $3, tags = $4, rev = $5";
        let query = sql::query(statement)
            .bind(self.id.to_string())
            .bind(&self.name)
            .bind(name_key(&self.name))
            .bind(json(&self.tags)?)
            .bind(signed(self.revision));
        done(query.execute(connection).await)
    }

    async fn erase(id: RoleId, connection: &mut Connection) -> Result<(), StoreError> {
        delete("DELETE FROM role WHERE id = $1", id, connection).await
    }
}

impl Entity for Rule {
    type Id = RuleId;
    const KIND: &'static str = "rule";
    const ROWS: Rows = Rows { table: "access_rule", columns: "id, role_id, resources, query, rev", key: "id = $1" };

    named_by_id!();

    fn label(&self, catalogue: &Catalogue) -> String {
        let role = role_name(catalogue, self.role);
        match &self.what {
            RuleTarget::Resources(ids) => format!("{} resources for {role}", ids.len()),
            RuleTarget::Query(query) => format!("{query} for {role}"),
        }
    }

    kept_in!(rules);

    fn read(row: &Row) -> Result<Self, StoreError> {
        load::rule(row)
    }

    fn settle(catalogue: &mut Catalogue, touched: &mut Touched, before: Option<&Self>, after: Option<&Self>) {
        catalogue.index_rule(before, after);
        touched.roles.extend(before.into_iter().chain(after).map(|rule| rule.role));
    }

    async fn save(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let statement = "INSERT INTO access_rule (id, role_id, resources, query, rev) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (id) DO UPDATE SET role_id = $2, resources = $3, query = $4, rev = $5";
        let (resources, query) = match &self.what {
            RuleTarget::Resources(ids) => (Some(json(ids)?), None),
            RuleTarget::Query(query) => (None, Some(query)),
        };
        let query = sql::query(statement)
            .bind(self.id.to_string())
            .bind(self.role.to_string())
            .bind(resources)
            .bind(query)
            .bind(signed(self.revision));
        done(query.execute(connection).await)
    }

    async fn erase(id: RuleId, connection: &mut Connection) -> Result<(), StoreError> {
        delete("DELETE FROM access_rule WHERE id = $1", id, connection).await
    }
}

impl Entity for Member {
    type Id = (RoleId, AccountId);
    const KIND: &'static str = "member";
    const ROWS: Rows =
        Rows { table: "role_member", columns: "role_id, account_id, rev", key: "role_id = $1 AND account_id = $2" };

    fn id(&self) -> (RoleId, AccountId) {
        (self.role, self.account)
    }

    fn subject_id(&self) -> String {
        self.role.to_string()
    }

    fn key((role, account): Self::Id) -> String {
        format!("{role} {account}")
    }

    fn parse_key(text: &str) -> Option<Self::Id> {
        let (role, account) = text.split_once(' ')?;
        Some((role.parse().ok()?, account.parse().ok()?))
    }

    fn label(&self, catalogue: &Catalogue) -> String {
        format!("{} in {}", email(catalogue, self.account), role_name(catalogue, self.role))
    }

    kept_in!(members);

    fn read(row: &Row) -> Result<Self, StoreError> {
        load::member(row)
    }

    fn settle(catalogue: &mut Catalogue, touched: &mut Touched, before: Option<&Self>, after: Option<&Self>) {
        if let Some(member) = before.or(after) {
            catalogue.index_member(member.role, member.account, after.is_some());
            touched.members.insert(member.id());
        }
    }

    async fn save(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let statement = "INSERT INTO role_member (role_id, account_id, rev) VALUES ($1, $2, $3)
            ON CONFLICT (role_id, account_id) DO UPDATE SET rev = $3";
        let query = sql::query(statement)
            .bind(self.role.to_string())
            .bind(self.account.to_string())
            .bind(signed(self.revision));
        done(query.execute(connection).await)
    }

    async fn erase((role, account): Self::Id, connection: &mut Connection) -> Result<(), StoreError> {
        let query = sql::query("DELETE FROM role_member WHERE role_id = $1 AND account_id = $2");
        done(query.bind(role.to_string()).bind(account.to_string()).execute(connection).await)
    }
}

impl Entity for Grant {
    type Id = GrantId;
    const KIND: &'static str = "grant";
    const ROWS: Rows = Rows {
        table: "account_grant",
        columns: "id, account_id, resource_id, ends_at, reason, created_at, rev",
        key: "id = $1",
    };

    named_by_id!();

    fn label(&self, catalogue: &Catalogue) -> String {
        let resource = catalogue.resources.get(&self.resource);
        let resource = resource.map_or_else(|| self.resource.to_string(), |resource| resource.name.clone());
        format!("{resource} to {}", email(catalogue, self.account))
    }

    kept_in!(grants);

    fn read(row: &Row) -> Result<Self, StoreError> {
        load::grant(row)
    }

    fn settle(catalogue: &mut Catalogue, touched: &mut Touched, before: Option<&Self>, after: Option<&Self>) {
        catalogue.index_grant(before, after);
        touched.grants.extend(before.into_iter().chain(after).map(|grant| (grant.account, grant.resource)));
    }

    async fn save(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let statement = "INSERT INTO account_grant (id, account_id, resource_id, ends_at, reason, created_at, rev)
            VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT (id) DO UPDATE SET account_id = $2, resource_id = $3, ends_at = $4, reason = $5, rev = $7";
        let query = sql::query(statement)
            .bind(self.id.to_string())
            .bind(self.account.to_string())
            .bind(self.resource.to_string())
            .bind(millis(self.ends_at))
            .bind(&self.reason)
            .bind(signed(self.created_at.0))
            .bind(signed(self.revision));
        done(query.execute(connection).await)
    }

    async fn erase(id: GrantId, connection: &mut Connection) -> Result<(), StoreError> {
        delete("DELETE FROM account_grant WHERE id = $1", id, connection).await
    }
}

impl Entity for Resource {
    type Id = ResourceId;
    const KIND: &'static str = "resource";
    const ROWS: Rows = Rows {
        table: "resource",
        columns: "id, name, kind, host, port, ports, hosts, tags, bind_mode, bind_ip, bind_port, dns_name, loopback_ip,
            loopback_port, allow_local, strict, egress, cluster_id, created_at, rev",
        key: "id = $1",
    };

    named_by_id!();

    fn label(&self, _: &Catalogue) -> String {
        self.name.clone()
    }

    kept_in!(resources);

    fn read(row: &Row) -> Result<Self, StoreError> {
        load::resource(row)
    }

    fn settle(catalogue: &mut Catalogue, touched: &mut Touched, before: Option<&Self>, after: Option<&Self>) {
        if let Some(resource) = before.or(after) {
            touched.resources.insert(resource.id);
        }
        catalogue.index_resource(before, after);
        if let Some(resource) = after {
            catalogue.note_address(resource);
        }
    }

    async fn save(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let statement =
            "INSERT INTO resource (id, name, name_key, kind, host, port, tags, bind_mode, bind_ip, bind_port,
                dns_name, allow_local, strict, created_at, rev, ports, hosts, loopback_ip, loopback_port, egress,
                cluster_id)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
            ON CONFLICT (id) DO UPDATE SET name = $2, name_key = $3, kind = $4, host = $5, port = $6, tags = $7,
                bind_mode = $8, bind_ip = $9, bind_port = $10, dns_name = $11, allow_local = $12, strict = $13,
                rev = $15, ports = $16, hosts = $17, loopback_ip = $18, loopback_port = $19,
                egress = $20, cluster_id = $21";
        let loopback = self.bind.loopback_address();
        let query = sql::query(statement)
            .bind(self.id.to_string())
            .bind(&self.name)
            .bind(name_key(&self.name))
            .bind(self.kind.as_str())
            .bind(&self.host)
            .bind(i64::from(self.port))
            .bind(json(&self.tags)?)
            .bind(self.bind.mode.as_str())
            .bind(self.bind.ip.to_string())
            .bind(i64::from(self.bind.port))
            .bind(self.bind.dns_name.as_ref().map(ToString::to_string))
            .bind(self.allow_local)
            .bind(self.strict)
            .bind(signed(self.created_at.0))
            .bind(signed(self.revision))
            .bind(json(&self.ports)?)
            .bind(json(&self.hosts)?)
            .bind(loopback.map(|address| address.ip().to_string()))
            .bind(loopback.map(|address| i64::from(address.port())))
            .bind(&self.egress)
            .bind(self.cluster.map(|cluster| cluster.to_string()));
        query.execute(&mut *connection).await?;
        if !self.bind.mode.is_virtual() {
            return Ok(());
        }
        let statement = "INSERT INTO vnm_address (ip, resource_id, rev) VALUES ($1, $2, $3)
            ON CONFLICT (ip, resource_id) DO NOTHING";
        let query =
            sql::query(statement).bind(self.bind.ip.to_string()).bind(self.id.to_string()).bind(signed(self.revision));
        done(query.execute(connection).await)
    }

    async fn erase(id: ResourceId, connection: &mut Connection) -> Result<(), StoreError> {
        delete("DELETE FROM resource WHERE id = $1", id, connection).await
    }
}

impl Entity for Node {
    type Id = NodeId;
    const KIND: &'static str = "gateway";
    const ROWS: Rows = Rows {
        table: "node",
        columns:
            "id, name, kind, peering, tags, advertise, spki_sha256, enrolled_at, drain_ends_at, planned_drain, cluster_id,
            access_key, created_at, rev",
        key: "id = $1",
    };

    named_by_id!();

    fn label(&self, _: &Catalogue) -> String {
        self.name.clone()
    }

    kept_in!(nodes);

    fn read(row: &Row) -> Result<Self, StoreError> {
        load::node(row)
    }

    fn settle(_: &mut Catalogue, touched: &mut Touched, before: Option<&Self>, after: Option<&Self>) {
        touched.nodes.extend(before.or(after).map(|node| node.id));
    }

    async fn save(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let statement =
            "INSERT INTO node (id, kind, name, name_key, advertise, spki_sha256, enrolled_at, created_at, rev, peering, tags,
                drain_ends_at, cluster_id, access_key, planned_drain)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
            ON CONFLICT (id) DO UPDATE SET kind = $2, name = $3, name_key = $4, advertise = $5, spki_sha256 = $6,
                enrolled_at = $7, rev = $9, peering = $10, tags = $11, drain_ends_at = $12, cluster_id = $13,
                access_key = $14, planned_drain = $15";
        let query = sql::query(statement)
            .bind(self.id.to_string())
            .bind(self.kind.as_str())
            .bind(&self.name)
            .bind(name_key(&self.name))
            .bind(&self.advertise)
            .bind(&self.spki_sha256)
            .bind(millis(self.enrolled_at))
            .bind(signed(self.created_at.0))
            .bind(signed(self.revision))
            .bind(&self.group)
            .bind(json(&self.tags)?)
            .bind(millis(self.drain_ends_at))
            .bind(self.cluster.map(|cluster| cluster.to_string()))
            .bind(self.access_key.map(|key| key.to_string()))
            .bind(self.planned_drain.map(signed));
        done(query.execute(connection).await)
    }

    async fn erase(id: NodeId, connection: &mut Connection) -> Result<(), StoreError> {
        delete("DELETE FROM node WHERE id = $1", id, connection).await
    }
}

impl Entity for Cluster {
    type Id = ClusterId;
    const KIND: &'static str = "cluster";
    const ROWS: Rows = Rows {
        table: "cluster",
        columns: "id, name, advertise, carrier, authority, removed, tags, created_at, rev",
        key: "id = $1",
    };

    named_by_id!();

    fn label(&self, _: &Catalogue) -> String {
        self.name.clone()
    }

    kept_in!(clusters);

    fn read(row: &Row) -> Result<Self, StoreError> {
        load::cluster(row)
    }

    fn settle(_: &mut Catalogue, touched: &mut Touched, before: Option<&Self>, after: Option<&Self>) {
        touched.clusters.extend(before.or(after).map(|cluster| cluster.id));
    }

    async fn save(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let statement =
            "INSERT INTO cluster (id, name, name_key, advertise, carrier, authority, tags, created_at, rev, removed)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            ON CONFLICT (id) DO UPDATE SET name = $2, name_key = $3, advertise = $4, carrier = $5, authority = $6,
                tags = $7, rev = $9, removed = $10";
        let query = sql::query(statement)
            .bind(self.id.to_string())
            .bind(&self.name)
            .bind(name_key(&self.name))
            .bind(&self.advertise)
            .bind(self.carrier.as_str())
            .bind(&self.authority)
            .bind(json(&self.tags)?)
            .bind(signed(self.created_at.0))
            .bind(signed(self.revision))
            .bind(json(&self.removed)?);
        done(query.execute(connection).await)
    }

    async fn erase(id: ClusterId, connection: &mut Connection) -> Result<(), StoreError> {
        delete("DELETE FROM cluster WHERE id = $1", id, connection).await
    }
}

impl Entity for MaintenanceWindow {
    type Id = WindowId;
    const KIND: &'static str = "maintenance_window";
    const ROWS: Rows = Rows {
        table: "maintenance_window",
        columns: "id, name, schedule, duration, require_idleness, nodes, created_at, rev",
        key: "id = $1",
    };

    named_by_id!();

    fn label(&self, _: &Catalogue) -> String {
        self.name.clone()
    }

    kept_in!(windows);

    fn read(row: &Row) -> Result<Self, StoreError> {
        load::window(row)
    }

    /// Nobody but control planes is told of it.
    fn settle(_: &mut Catalogue, _: &mut Touched, _: Option<&Self>, _: Option<&Self>) {}

    async fn save(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let statement =
            "INSERT INTO maintenance_window (id, name, name_key, schedule, duration, require_idleness, nodes,
                created_at, rev)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT (id) DO UPDATE SET name = $2, name_key = $3, schedule = $4, duration = $5,
                require_idleness = $6, nodes = $7, rev = $9";
        let query = sql::query(statement)
            .bind(self.id.to_string())
            .bind(&self.name)
            .bind(name_key(&self.name))
            .bind(&self.schedule)
            .bind(signed(self.duration))
            .bind(self.require_idleness)
            .bind(&self.nodes)
            .bind(signed(self.created_at.0))
            .bind(signed(self.revision));
        done(query.execute(connection).await)
    }

    async fn erase(id: WindowId, connection: &mut Connection) -> Result<(), StoreError> {
        delete("DELETE FROM maintenance_window WHERE id = $1", id, connection).await
    }
}

/// What a table holds under an id.
pub(super) fn find<E: Entity>(catalogue: &Catalogue, id: E::Id) -> Option<&Arc<E>> {
    E::table(catalogue).get(&id)
}
