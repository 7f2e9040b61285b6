//! Activities: who changed what, from what to what, when and from where.

use std::net::IpAddr;

use postern_proto::{
    id::{AccessKeyId, AccountId, ActivityId, NodeId},
    time::UnixMillis,
};
use serde::Serialize;
use serde_json::Value;

use super::{
    StoreError,
    read::{json, signed},
};
use crate::sql::{self, Connection};

/// Who changes something, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub who: Who,
    pub address: Option<IpAddr>,
    /// The program, as its `User-Agent` header says.
    pub agent: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Account {
        id: AccountId,
        email: String,
    },
    Node {
        id: NodeId,
        name: String,
    },
    /// Who has a key pair of a cluster.
    AccessKey {
        id: AccessKeyId,
        /// The cluster's name.
        cluster: String,
    },
    /// Somebody with access to the data folder, at the command line.
    Operator,
    /// The control plane itself, for example when a grant ends.
    System,
}

impl Actor {
    #[must_use]
    pub const fn system() -> Self {
        Self { who: Who::System, address: None, agent: None }
    }

    #[must_use]
    pub const fn operator() -> Self {
        Self { who: Who::Operator, address: None, agent: None }
    }
}

impl Who {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Account { .. } => "account",
            Self::Node { .. } => "node",
            Self::AccessKey { .. } => "access_key",
            Self::Operator => "operator",
            Self::System => "system",
        }
    }

    pub(crate) fn id(&self) -> Option<String> {
        match self {
            Self::Account { id, .. } => Some(id.to_string()),
            Self::Node { id, .. } => Some(id.to_string()),
            Self::AccessKey { id, .. } => Some(id.to_string()),
            Self::Operator | Self::System => None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Account { email, .. } => email,
            Self::Node { name, .. } => name,
            Self::AccessKey { cluster, .. } => cluster,
            Self::Operator => "command line",
            Self::System => "control plane",
        }
    }
}

/// What an activity is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub kind: &'static str,
    pub id: String,
    pub name: String,
}

/// One administrative event.
#[derive(Clone, Debug, PartialEq)]
pub struct Activity {
    /// For example `resource.updated`.
    pub verb: String,
    pub subject: Subject,
    /// The state before and after, without secrets; `None` where there was or is none.
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl Activity {
    /// An activity without states.
    #[must_use]
    pub fn new(verb: impl Into<String>, subject: Subject) -> Self {
        Self { verb: verb.into(), subject, before: None, after: None }
    }

    #[must_use]
    pub fn before(mut self, state: &impl Serialize) -> Self {
        self.before = serde_json::to_value(state).ok();
        self
    }

    #[must_use]
    pub fn after(mut self, state: &impl Serialize) -> Self {
        self.after = serde_json::to_value(state).ok();
        self
    }

    /// Writes it. In a change, [`super::Change::note`] does so; alone, for what moves no revision, this is called with
    /// the connection of an [`super::Append`].
    pub async fn insert(
        &self,
        connection: &mut Connection,
        actor: &Actor,
        revision: u64,
        (id, now): (ActivityId, UnixMillis),
    ) -> Result<(), StoreError> {
        let statement = "INSERT INTO activity (seq, id, at, rev, actor_kind, actor_id, actor_name, verb, subject_kind,
                subject_id, subject_name, before_state, after_state, address, agent)
            VALUES ((SELECT COALESCE(MAX(seq), 0) + 1 FROM activity), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
                $13, $14)";
        sql::query(statement)
            .bind(id.to_string())
            .bind(signed(now.0))
            .bind(signed(revision))
            .bind(actor.who.kind())
            .bind(actor.who.id())
            .bind(actor.who.name())
            .bind(&self.verb)
            .bind(self.subject.kind)
            .bind(&self.subject.id)
            .bind(&self.subject.name)
            .bind(self.before.as_ref().map(json).transpose()?)
            .bind(self.after.as_ref().map(json).transpose()?)
            .bind(actor.address.map(|address| address.to_string()))
            .bind(&actor.agent)
            .execute(connection)
            .await?;
        Ok(())
    }
}
