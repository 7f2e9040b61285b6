//! The one way in which configuration is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use postern_proto::{
    id::{AccountId, ActivityId, GrantId, ResourceId},
    lease::{Revocation, RevokedSubject},
    sync::{CLUSTERS, ItemKey, NetworkSettings},
    time::UnixMillis,
};
use tokio::sync::OwnedMutexGuard;
use ulid::Ulid;

use super::{
    Activity, Actor, ChangeEntry, Changes, Entity, Op, Store, StoreError, Subject, entity, load, log,
    read::{json, signed},
};
use crate::{
    access::{self, Effect, Touched},
    catalogue::{Account, Catalogue, Grant, Leaving, Member, Resource, Role, Rule, RuleTarget},
    sql::{self, Connection},
};

/// A change of the configuration under way: the write transaction, and the catalogue as it will be.
///
/// Check what is asked against [`Change::catalogue`], not against an older one: nobody else can write meanwhile, so what
/// is free there is free.
pub struct Change {
    store: Store,
    // Dropped before the turn: the next writer finds the connection free.
    tx: Connection,
    _turn: OwnedMutexGuard<()>,
    actor: Actor,
    now: UnixMillis,
    before: Arc<Catalogue>,
    after: Catalogue,
    touched: Touched,
    entries: Vec<ChangeEntry>,
    /// Kind and key of each entity that was saved or erased.
    logged: Vec<(&'static str, String)>,
    revocations: Vec<Revocation>,
    lost: &'static str,
}

impl Change {
    pub(super) async fn begin(
        store: Store,
        mut tx: Connection,
        turn: OwnedMutexGuard<()>,
        actor: Actor,
    ) -> Result<Self, StoreError> {
        let mut before = store.catalogue();
        let (org, newest, _) =
            load::org(&mut tx).await?.ok_or_else(|| StoreError::Unreadable("no organisation".to_owned()))?;
        if org.epoch != before.org.epoch || newest < before.revision {
            // Another database than a moment ago: `catch_up` sees to it.
            return Err(StoreError::Busy);
        }
        if newest != before.revision {
            // Another process wrote; its changes come first.
            before = store.advance(&mut tx).await?;
        }
        let revision = newest.saturating_add(1);
        sql::query("UPDATE org SET rev = $1").bind(signed(revision)).execute(&mut tx).await?;
        let mut after = Catalogue::clone(&before);
        after.revision = revision;
        let now = store.clock().now();
        Ok(Self {
            store,
            tx,
            _turn: turn,
            actor,
            now,
            before,
            after,
            touched: Touched::default(),
            entries: Vec::new(),
            logged: Vec::new(),
            revocations: Vec::new(),
            lost: "access was withdrawn",
        })
    }

    /// The catalogue with what this change did so far.
    #[must_use]
    pub const fn catalogue(&self) -> &Catalogue {
        &self.after
    }

    /// The revision that this change makes.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.after.revision
    }

    /// The instant of this change, the same for all that it writes.
    #[must_use]
    pub const fn now(&self) -> UnixMillis {
        self.now
    }

    /// A new ULID.
    #[must_use]
    pub fn ulid(&self) -> Ulid {
        self.store.clock().ulid()
    }

    #[must_use]
    pub const fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The connection, for rows that are not in the catalogue (credentials, tokens, logins, devices).
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.tx
    }

    /// Adds an entity or replaces it, with an activity. One that stays the same is left alone.
    pub async fn put<E: Entity + PartialEq>(&mut self, entity: E) -> Result<Arc<E>, StoreError> {
        let (entity, before) = self.keep(entity).await?;
        let verb = match &before {
            Some(before) if Arc::ptr_eq(before, &entity) => return Ok(entity),
            Some(_) => "updated",
            None => "created",
        };
        let activity = Activity { before: state(before.as_deref()), ..self.activity(verb, &*entity) };
        self.note(&activity.after(&*entity)).await?;
        Ok(entity)
    }

    /// The same without an activity: that of something else tells. Gives what was there before as well.
    pub(crate) async fn keep<E: Entity + PartialEq>(
        &mut self,
        mut entity: E,
    ) -> Result<(Arc<E>, Option<Arc<E>>), StoreError> {
        let before = entity::find::<E>(&self.after, entity.id()).cloned();
        if let Some(before) = &before {
            let mut same = entity.clone();
            same.stamp(0);
            let mut known = E::clone(before);
            known.stamp(0);
            if same == known {
                return Ok((Arc::clone(before), Some(Arc::clone(before))));
            }
        }
        entity.stamp(self.after.revision);
        entity.save(&mut self.tx).await?;
        self.logged.push((E::KIND, E::key(entity.id())));
        let entity = Arc::new(entity);
        E::table_mut(&mut self.after).insert(entity.id(), Arc::clone(&entity));
        E::settle(&mut self.after, &mut self.touched, before.as_deref(), Some(&entity));
        Ok((entity, before))
    }

    /// Removes an entity, with an activity. What hangs on it must be removed before: see the `remove_…` methods.
    pub(crate) async fn erase<E: Entity>(&mut self, id: E::Id) -> Result<Option<Arc<E>>, StoreError> {
        let Some(entity) = self.forget::<E>(id).await? else { return Ok(None) };
        self.note(&self.activity("deleted", &*entity).before(&*entity)).await?;
        Ok(Some(entity))
    }

    /// Removes an account with its memberships and grants. Credentials, tokens, devices and logins go with its row.
    pub async fn remove_account(&mut self, id: AccountId) -> Result<Option<Arc<Account>>, StoreError> {
        for role in linked(self.after.index.roles_of.get(&id)) {
            self.forget::<Member>((role, id)).await?;
        }
        for grant in linked(self.after.index.grants_of.get(&id)) {
            self.forget::<Grant>(grant).await?;
        }
        self.erase::<Account>(id).await
    }

    /// Removes a role with its rules and members.
    pub async fn remove_role(&mut self, id: postern_proto::id::RoleId) -> Result<Option<Arc<Role>>, StoreError> {
        for account in linked(self.after.index.members_of.get(&id)) {
            self.forget::<Member>((id, account)).await?;
        }
        for rule in linked(self.after.index.rules_of.get(&id)) {
            self.forget::<Rule>(rule).await?;
        }
        self.erase::<Role>(id).await
    }

    /// Removes a resource with the grants of it, and takes it out of static rules.
    pub async fn remove_resource(&mut self, id: ResourceId) -> Result<Option<Arc<Resource>>, StoreError> {
        for grant in linked(self.after.index.grants_on.get(&id)) {
            self.forget::<Grant>(grant).await?;
        }
        let naming = |rule: &&Arc<Rule>| matches!(&rule.what, RuleTarget::Resources(ids) if ids.contains(&id));
        let rules: Vec<Arc<Rule>> = self.after.rules.values().filter(naming).cloned().collect();
        for rule in rules {
            let mut rule = Rule::clone(&rule);
            if let RuleTarget::Resources(ids) = &mut rule.what {
                ids.remove(&id);
            }
            self.put(rule).await?;
        }
        self.erase::<Resource>(id).await
    }

    /// Removes a grant whose time has come.
    pub async fn end_grant(&mut self, id: GrantId) -> Result<(), StoreError> {
        let Some(grant) = self.forget::<Grant>(id).await? else { return Ok(()) };
        self.note(&self.activity("ended", &*grant).before(&*grant)).await
    }

    /// Replaces the network settings.
    pub async fn put_settings(&mut self, settings: NetworkSettings) -> Result<(), StoreError> {
        if *self.after.settings == settings {
            return Ok(());
        }
        let text = json(&settings)?;
        sql::query("UPDATE org SET settings = $1").bind(text).execute(&mut self.tx).await?;
        let before = std::mem::replace(&mut self.after.settings, Arc::new(settings));
        self.touched.settings = true;
        let subject = Subject { kind: "network", id: self.after.org.id.to_string(), name: self.after.org.name.clone() };
        let activity = Activity::new("network.updated", subject).before(&*before).after(&*self.after.settings);
        self.note(&activity).await
    }

    /// Writes an activity.
    pub async fn note(&mut self, activity: &Activity) -> Result<(), StoreError> {
        let id = ActivityId::from_ulid(self.ulid());
        activity.insert(&mut self.tx, &self.actor, self.after.revision, (id, self.now)).await
    }

    /// Announces an item that is not in the catalogue (a lease key).
    pub fn announce(&mut self, entry: ChangeEntry) {
        self.entries.push(entry);
    }

    /// Revokes something that the catalogue does not show (a device). What follows from the catalogue (access that was
    /// lost, accounts suspended or deleted, resources and nodes deleted) is revoked without being asked.
    pub fn revoke(&mut self, subject: RevokedSubject, reason: &str) {
        self.revocations.push(Revocation { subject, at: self.now, reason: reason.to_owned() });
    }

    /// What the user is told of access that this change takes away; "access was withdrawn" unless set.
    pub fn because(&mut self, reason: &'static str) {
        self.lost = reason;
    }

    /// Writes change log and revocations, commits, and publishes the new catalogue.
    ///
    /// Runs to its end even when the caller is dropped, so that what is committed is always published.
    pub async fn commit(self) -> Result<Arc<Catalogue>, StoreError> {
        tokio::spawn(self.finish()).await.map_err(|_| StoreError::Closed)?
    }

    async fn finish(mut self) -> Result<Arc<Catalogue>, StoreError> {
        let effects = access::effects(&self.before, &self.after, &self.touched);
        let store = self.store.clone();
        let _settled = store.shared.settled.write().await;
        // Not the begin of the change: leases were given out since.
        let at = store.instant(&mut self.tx).await?;
        let mut changes = Changes {
            revision: self.after.revision,
            entries: std::mem::take(&mut self.entries),
            revocations: std::mem::take(&mut self.revocations),
        };
        self.list_entries(&effects, &mut changes.entries);
        self.list_revocations(&effects, &mut changes.revocations);
        changes.revocations.iter_mut().for_each(|revocation| revocation.at = at);
        log::append(&mut self.tx, &changes, self.now).await?;
        log::append_entities(&mut self.tx, self.after.revision, &self.logged, self.now).await?;
        let tx = self.tx;
        store.timed("commit", async { Ok(tx.commit().await?) }).await?;
        Ok(self.store.publish(self.after, changes))
    }

    /// Removes an entity without an activity of its own: that of the entity it hangs on tells.
    async fn forget<E: Entity>(&mut self, id: E::Id) -> Result<Option<Arc<E>>, StoreError> {
        let Some(entity) = E::table_mut(&mut self.after).remove(&id) else { return Ok(None) };
        E::erase(id, &mut self.tx).await?;
        self.logged.push((E::KIND, E::key(id)));
        E::settle(&mut self.after, &mut self.touched, Some(&entity), None);
        Ok(Some(entity))
    }

    fn activity<E: Entity>(&self, verb: &str, entity: &E) -> Activity {
        let subject = Subject { kind: E::KIND, id: entity.subject_id(), name: entity.label(&self.after) };
        Activity::new(format!("{}.{verb}", E::KIND), subject)
    }

    fn list_entries(&self, effects: &BTreeMap<(AccountId, ResourceId), Effect>, entries: &mut Vec<ChangeEntry>) {
        let entry = |scope: String, there: bool, key: ItemKey| ChangeEntry {
            scope,
            op: if there { Op::Put } else { Op::Delete },
            key,
        };
        if self.touched.settings {
            entries.push(entry("org".to_owned(), true, ItemKey::Settings));
        }
        for id in &self.touched.nodes {
            let node = self.after.nodes.get(id);
            let dialled = node.is_some_and(|node| node.entry(Leaving::default()).is_some());
            entries.push(entry("org".to_owned(), dialled, ItemKey::Gateway { id: *id }));
            let relay = node.is_some_and(|node| node.relay(Leaving::default(), &[]).is_some());
            entries.push(entry("org".to_owned(), relay, ItemKey::Relay { id: *id }));
            entries.push(entry(format!("node:{id}"), node.is_some(), ItemKey::Node { id: *id }));
        }
        for id in &self.touched.resources {
            let (was, is) = (self.before.resources.get(id), self.after.resources.get(id));
            let key = ItemKey::Resource { id: *id };
            let (from, to) = (was.and_then(|was| was.cluster), is.and_then(|is| is.cluster));
            entries.push(entry("gateways".to_owned(), is.is_some() && to.is_none(), key.clone()));
            for cluster in BTreeSet::from_iter(from.into_iter().chain(to)) {
                entries.push(entry(format!("cluster:{cluster}"), to == Some(cluster), key.clone()));
            }
        }
        for id in &self.touched.clusters {
            let (there, key) = (self.after.clusters.contains_key(id), ItemKey::Cluster { id: *id });
            entries.push(entry(CLUSTERS.to_owned(), there, key.clone()));
            entries.push(entry(format!("cluster:{id}"), there, key));
        }
        for id in &self.touched.accounts {
            let there = self.after.accounts.contains_key(id);
            entries.push(entry(format!("account:{id}"), there, ItemKey::Account { id: *id }));
        }
        for ((account, resource), effect) in effects {
            let there = *effect != Effect::Lost;
            entries.push(entry(format!("account:{account}"), there, ItemKey::Access { id: *resource }));
        }
    }

    /// One revocation says as much as it can: that of a resource or an account stands for all that hangs on it.
    fn list_revocations(&self, effects: &BTreeMap<(AccountId, ResourceId), Effect>, list: &mut Vec<Revocation>) {
        let mut revoke = |subject: RevokedSubject, reason: &str| {
            list.push(Revocation { subject, at: self.now, reason: reason.to_owned() });
        };
        let acted = |id: &AccountId| self.before.accounts.get(id).is_some_and(|account| !account.suspended);
        let mut silenced = Vec::new();
        for id in self.touched.accounts.iter().filter(|id| acted(id)) {
            match self.after.accounts.get(id) {
                Some(account) if !account.suspended => continue,
                Some(_) => revoke(RevokedSubject::Account { account: *id }, "the account was suspended"),
                None => revoke(RevokedSubject::Account { account: *id }, "the account was deleted"),
            }
            silenced.push(*id);
        }
        let gone = |id: &ResourceId| !self.after.resources.contains_key(id);
        for id in self.touched.resources.iter().filter(|id| gone(id) && self.before.resources.contains_key(*id)) {
            revoke(RevokedSubject::Resource { resource: *id }, "the resource was deleted");
        }
        for id in &self.touched.nodes {
            if self.before.nodes.contains_key(id) && !self.after.nodes.contains_key(id) {
                revoke(RevokedSubject::Node { node: *id }, "the node was deleted");
            }
        }
        for ((account, resource), effect) in effects {
            if *effect == Effect::Lost && !gone(resource) && !silenced.contains(account) {
                revoke(RevokedSubject::Access { account: *account, resource: *resource }, self.lost);
            }
        }
    }
}

fn state<E: Entity>(entity: Option<&E>) -> Option<serde_json::Value> {
    entity.and_then(|entity| serde_json::to_value(entity).ok())
}

/// A copy of links, because what is walked over is changed on the way.
fn linked<T: Copy + Ord>(links: Option<&imbl::OrdSet<T>>) -> Vec<T> {
    links.into_iter().flatten().copied().collect()
}
