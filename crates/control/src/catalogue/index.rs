//! What follows from the tables, kept up to date with each change of them, so that no question walks through all of them.

use std::collections::BTreeSet;

use imbl::OrdSet;
use postern_proto::{
    filter::{Filter, TagKey},
    id::{AccountId, GrantId, ResourceId, RoleId, RuleId},
};
use ulid::Ulid;

use super::{Catalogue, Grant, Links, Resource, Rule, RuleTarget};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    pub rules_of: Links<RoleId, RuleId>,
    /// What the rules of a role name.
    pub reach: Links<RoleId, ResourceId>,
    pub members_of: Links<RoleId, AccountId>,
    pub roles_of: Links<AccountId, RoleId>,
    pub grants_of: Links<AccountId, GrantId>,
    pub grants_on: Links<ResourceId, GrantId>,
    /// Which resources have a tag.
    tagged: OrdSet<(TagKey, ResourceId)>,
    /// Which roles have a rule that can only name resources of this kind.
    asked: OrdSet<(Anchor, RoleId)>,
}

/// What a resource must be for a rule to name it, as far as it can be looked up. Rules are found by it from a resource and
/// resources from a rule; whether the rule does name the resource is asked afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Anchor {
    Any,
    Tagged(TagKey),
    This(ResourceId),
}

impl Catalogue {
    /// Builds the whole index from the tables.
    pub(crate) fn index_all(&mut self) {
        self.index = Index::default();
        for member in self.members.clone().values() {
            self.index_member(member.role, member.account, true);
        }
        for grant in self.grants.clone().values() {
            self.index_grant(None, Some(grant));
        }
        let tags = self.resources.values().flat_map(|resource| tags(resource).map(|tag| (tag, resource.id)));
        self.index.tagged = tags.collect();
        for rule in self.rules.clone().values() {
            link(&mut self.index.rules_of, rule.role, rule.id);
        }
        for role in self.roles.clone().keys() {
            self.index_role(*role);
        }
    }

    pub(crate) fn index_resource(&mut self, before: Option<&Resource>, after: Option<&Resource>) {
        let Some(id) = before.or(after).map(|resource| resource.id) else { return };
        let concerned: BTreeSet<RoleId> =
            before.into_iter().chain(after).flat_map(|resource| self.roles_asking(resource)).collect();
        for tag in before.into_iter().flat_map(tags) {
            self.index.tagged.remove(&(tag, id));
        }
        for tag in after.into_iter().flat_map(tags) {
            self.index.tagged.insert((tag, id));
        }
        for role in concerned {
            if after.is_some_and(|resource| self.names(role, resource)) {
                link(&mut self.index.reach, role, id);
            } else {
                unlink(&mut self.index.reach, role, id);
            }
        }
    }

    pub(crate) fn index_rule(&mut self, before: Option<&Rule>, after: Option<&Rule>) {
        if let Some(rule) = before {
            unlink(&mut self.index.rules_of, rule.role, rule.id);
            for anchor in Matcher::of(&rule.what).anchors() {
                self.index.asked.remove(&(anchor, rule.role));
            }
        }
        if let Some(rule) = after {
            link(&mut self.index.rules_of, rule.role, rule.id);
        }
        for role in BTreeSet::from_iter(before.into_iter().chain(after).map(|rule| rule.role)) {
            self.index_role(role);
        }
    }

    pub(crate) fn index_member(&mut self, role: RoleId, account: AccountId, member: bool) {
        let change =
            if member { (link as fn(&mut _, _, _), link as fn(&mut _, _, _)) } else { (unlink as _, unlink as _) };
        change.0(&mut self.index.members_of, role, account);
        change.1(&mut self.index.roles_of, account, role);
    }

    pub(crate) fn index_grant(&mut self, before: Option<&Grant>, after: Option<&Grant>) {
        if let Some(grant) = before {
            unlink(&mut self.index.grants_of, grant.account, grant.id);
            unlink(&mut self.index.grants_on, grant.resource, grant.id);
        }
        if let Some(grant) = after {
            link(&mut self.index.grants_of, grant.account, grant.id);
            link(&mut self.index.grants_on, grant.resource, grant.id);
        }
    }

    /// The roles that have a rule which may name this resource. Those that do name it are among them.
    pub(crate) fn roles_asking(&self, resource: &Resource) -> BTreeSet<RoleId> {
        let anchors = [Anchor::Any, Anchor::This(resource.id)].into_iter().chain(tags(resource).map(Anchor::Tagged));
        let least = RoleId::from_ulid(Ulid::nil());
        let asking = |anchor: Anchor| {
            let from = self.index.asked.range((anchor, least)..);
            from.take_while(move |(its, _)| *its == anchor).map(|(_, role)| *role)
        };
        anchors.flat_map(asking).collect()
    }

    /// Notes what the rules of a role name, and how they are found. The anchors of rules that went are gone already; those of
    /// the rules that stayed may have gone with them, and come back here.
    fn index_role(&mut self, role: RoleId) {
        let matchers = self.matchers(role);
        let anchors: Vec<Anchor> = matchers.iter().flat_map(Matcher::anchors).collect();
        let named = |resource: &&Resource| matchers.iter().any(|matcher| matcher.names(resource));
        let reach: OrdSet<ResourceId> = if anchors.contains(&Anchor::Any) {
            self.resources.values().map(AsRef::as_ref).filter(named).map(|resource| resource.id).collect()
        } else {
            anchors.iter().flat_map(|anchor| self.resources_at(*anchor)).filter(named).map(|found| found.id).collect()
        };
        self.index.asked.extend(anchors.into_iter().map(|anchor| (anchor, role)));
        if reach.is_empty() {
            self.index.reach.remove(&role);
        } else {
            self.index.reach.insert(role, reach);
        }
    }

    /// The resources that a rule with this anchor may name; none for [`Anchor::Any`].
    fn resources_at(&self, anchor: Anchor) -> Vec<&Resource> {
        let found = |id: &ResourceId| self.resources.get(id).map(AsRef::as_ref);
        match anchor {
            Anchor::Any => Vec::new(),
            Anchor::This(id) => found(&id).into_iter().collect(),
            Anchor::Tagged(tag) => {
                let from = self.index.tagged.range((tag, ResourceId::from_ulid(Ulid::nil()))..);
                from.take_while(|(its, _)| *its == tag).filter_map(|(_, id)| found(id)).collect()
            }
        }
    }

    /// Whether a rule of the role names the resource.
    fn names(&self, role: RoleId, resource: &Resource) -> bool {
        self.matchers(role).iter().any(|matcher| matcher.names(resource))
    }

    fn matchers(&self, role: RoleId) -> Vec<Matcher<'_>> {
        let rules = self.index.rules_of.get(&role).into_iter().flatten();
        rules.filter_map(|rule| self.rules.get(rule)).map(|rule| Matcher::of(&rule.what)).collect()
    }
}

fn tags(resource: &Resource) -> impl Iterator<Item = TagKey> + '_ {
    resource.tags.iter().map(|(key, value)| TagKey::of(key, value))
}

/// A rule that is ready to be asked.
enum Matcher<'a> {
    Static(&'a BTreeSet<ResourceId>),
    Dynamic(Filter),
    /// A query that cannot be read names nothing.
    Nothing,
}

impl<'a> Matcher<'a> {
    fn of(target: &'a RuleTarget) -> Self {
        match target {
            RuleTarget::Resources(ids) => Self::Static(ids),
            RuleTarget::Query(query) => {
                Filter::parse(query, Resource::RULE_FIELDS).map_or(Self::Nothing, Self::Dynamic)
            }
        }
    }

    fn anchors(&self) -> Vec<Anchor> {
        match self {
            Self::Static(ids) => ids.iter().copied().map(Anchor::This).collect(),
            Self::Dynamic(filter) => vec![filter.needed_tag().map_or(Anchor::Any, Anchor::Tagged)],
            Self::Nothing => Vec::new(),
        }
    }

    fn names(&self, resource: &Resource) -> bool {
        match self {
            Self::Static(ids) => ids.contains(&resource.id),
            Self::Dynamic(filter) => filter.matches(resource),
            Self::Nothing => false,
        }
    }
}

pub(super) fn link<K: Copy + Ord, V: Copy + Ord>(links: &mut Links<K, V>, key: K, value: V) {
    links.entry(key).or_default().insert(value);
}

/// An entry without links is removed, so that equal states are equal values.
fn unlink<K: Copy + Ord, V: Copy + Ord>(links: &mut Links<K, V>, key: K, value: V) {
    if let Some(values) = links.get_mut(&key) {
        values.remove(&value);
        if values.is_empty() {
            links.remove(&key);
        }
    }
}
