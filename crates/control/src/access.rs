//! Which account reaches which resource, and why. Pure: a catalogue and an instant in, an answer out.
//!
//! An account reaches a resource while it is not suspended and a role of its names the resource or a direct grant that
//! has not ended is for it. Everything else is denied.

use std::collections::{BTreeMap, BTreeSet};

use postern_proto::{
    id::{AccountId, GrantId, ResourceId, RoleId},
    time::UnixMillis,
};

use crate::catalogue::Catalogue;

/// Why an account may reach a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Role(RoleId),
    Grant { grant: GrantId, ends_at: Option<UnixMillis> },
}

impl Reason {
    /// The reason as leases name it: `rol_…` or `grt_…`.
    #[must_use]
    pub fn grant(self) -> String {
        match self {
            Self::Role(role) => role.to_string(),
            Self::Grant { grant, .. } => grant.to_string(),
        }
    }

    /// When access for this reason ends by itself.
    #[must_use]
    pub const fn ends_at(self) -> Option<UnixMillis> {
        match self {
            Self::Role(_) => None,
            Self::Grant { ends_at, .. } => ends_at,
        }
    }

    /// Whether access for this reason lasts longer than for `other`.
    fn outlasts(self, other: Self) -> bool {
        match (self.ends_at(), other.ends_at()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(end), Some(other)) => end > other,
        }
    }
}

/// The reason that lasts longest; of two that last equally long a role before a grant, the older before the newer.
#[must_use]
pub fn reason(catalogue: &Catalogue, account: AccountId, resource: ResourceId, now: UnixMillis) -> Option<Reason> {
    if !acts(catalogue, account) || !catalogue.resources.contains_key(&resource) {
        return None;
    }
    let index = &catalogue.index;
    let names = |role: &&RoleId| index.reach.get(*role).is_some_and(|reach| reach.contains(&resource));
    if let Some(role) = index.roles_of.get(&account).into_iter().flatten().find(names) {
        return Some(Reason::Role(*role));
    }
    grants(catalogue, account, now)
        .filter(|(granted, _)| *granted == resource)
        .map(|(_, reason)| reason)
        .reduce(|best, next| if next.outlasts(best) { next } else { best })
}

/// Everything that an account reaches, each with its [`reason`].
#[must_use]
pub fn reachable(catalogue: &Catalogue, account: AccountId, now: UnixMillis) -> BTreeMap<ResourceId, Reason> {
    let mut reachable = BTreeMap::new();
    if !acts(catalogue, account) {
        return reachable;
    }
    let index = &catalogue.index;
    for role in index.roles_of.get(&account).into_iter().flatten() {
        for resource in index.reach.get(role).into_iter().flatten() {
            reachable.entry(*resource).or_insert(Reason::Role(*role));
        }
    }
    for (resource, reason) in grants(catalogue, account, now) {
        let best = reachable.entry(resource).or_insert(reason);
        if reason.outlasts(*best) {
            *best = reason;
        }
    }
    reachable
}

/// The next instant at which a grant ends by itself.
#[must_use]
pub fn next_end(catalogue: &Catalogue) -> Option<UnixMillis> {
    catalogue.grants.values().filter_map(|grant| grant.ends_at).min()
}

/// Whether the account is there and not suspended.
fn acts(catalogue: &Catalogue, account: AccountId) -> bool {
    catalogue.accounts.get(&account).is_some_and(|account| !account.suspended)
}

/// The direct grants of an account that have not ended.
fn grants(
    catalogue: &Catalogue,
    account: AccountId,
    now: UnixMillis,
) -> impl Iterator<Item = (ResourceId, Reason)> + '_ {
    let ids = catalogue.index.grants_of.get(&account).into_iter().flatten();
    ids.filter_map(|id| catalogue.grants.get(id))
        .filter(move |grant| grant.ends_at.is_none_or(|end| end > now))
        .map(|grant| (grant.resource, Reason::Grant { grant: grant.id, ends_at: grant.ends_at }))
}

/// What a change touched.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    pub settings: bool,
    pub accounts: BTreeSet<AccountId>,
    /// Roles of which a rule or a member changed, or which are gone.
    pub roles: BTreeSet<RoleId>,
    pub members: BTreeSet<(RoleId, AccountId)>,
    pub grants: BTreeSet<(AccountId, ResourceId)>,
    pub resources: BTreeSet<ResourceId>,
    pub nodes: BTreeSet<postern_proto::id::NodeId>,
    pub clusters: BTreeSet<postern_proto::id::ClusterId>,
}

/// What a change means for one account and one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Gained,
    Lost,
    /// Reachable as before, but the resource itself is another.
    Updated,
}

/// What a change means for whom. Only pairs that it can concern are looked at.
///
/// Whether a grant has ended by the clock plays no part: it counts until it is removed, so that its end is an effect.
#[must_use]
pub fn effects(before: &Catalogue, after: &Catalogue, touched: &Touched) -> BTreeMap<(AccountId, ResourceId), Effect> {
    let mut effects = BTreeMap::new();
    for (account, resource) in concerned(before, after, touched) {
        let was = reason(before, account, resource, UnixMillis(0)).is_some();
        let is = reason(after, account, resource, UnixMillis(0)).is_some();
        let effect = match (was, is) {
            (false, true) => Effect::Gained,
            (true, false) => Effect::Lost,
            (true, true) if touched.resources.contains(&resource) => Effect::Updated,
            _ => continue,
        };
        effects.insert((account, resource), effect);
    }
    effects
}

fn concerned(before: &Catalogue, after: &Catalogue, touched: &Touched) -> BTreeSet<(AccountId, ResourceId)> {
    let mut pairs = touched.grants.clone();
    for account in &touched.accounts {
        if acts(before, *account) != acts(after, *account) {
            for catalogue in [before, after] {
                pairs.extend(named(catalogue, *account).map(|resource| (*account, resource)));
            }
        }
    }
    for (role, account) in &touched.members {
        for catalogue in [before, after] {
            pairs.extend(reach(catalogue, *role).map(|resource| (*account, resource)));
        }
    }
    for role in &touched.roles {
        let (was, is): (BTreeSet<_>, BTreeSet<_>) = (reach(before, *role).collect(), reach(after, *role).collect());
        for resource in was.symmetric_difference(&is) {
            for catalogue in [before, after] {
                pairs.extend(members(catalogue, *role).map(|account| (account, *resource)));
            }
        }
    }
    for resource in &touched.resources {
        for catalogue in [before, after] {
            pairs.extend(reachers(catalogue, *resource).map(|account| (account, *resource)));
        }
    }
    pairs
}

fn reach(catalogue: &Catalogue, role: RoleId) -> impl Iterator<Item = ResourceId> + '_ {
    catalogue.index.reach.get(&role).into_iter().flatten().copied()
}

fn members(catalogue: &Catalogue, role: RoleId) -> impl Iterator<Item = AccountId> + '_ {
    catalogue.index.members_of.get(&role).into_iter().flatten().copied()
}

/// What an account would reach if it were not suspended.
fn named(catalogue: &Catalogue, account: AccountId) -> impl Iterator<Item = ResourceId> + '_ {
    let roles = catalogue.index.roles_of.get(&account).into_iter().flatten();
    roles.flat_map(|role| reach(catalogue, *role)).chain(grants(catalogue, account, UnixMillis(0)).map(|(id, _)| id))
}

/// The accounts that a role or a grant lets reach a resource.
pub(crate) fn reachers(catalogue: &Catalogue, resource: ResourceId) -> impl Iterator<Item = AccountId> + '_ {
    let index = &catalogue.index;
    let asking = catalogue.resources.get(&resource).map(|found| catalogue.roles_asking(found)).unwrap_or_default();
    let naming = move |role: &RoleId| index.reach.get(role).is_some_and(|reach| reach.contains(&resource));
    let by_role = asking.into_iter().filter(naming).flat_map(|role| members(catalogue, role));
    let by_grant = index.grants_on.get(&resource).into_iter().flatten();
    by_role.chain(by_grant.filter_map(|id| catalogue.grants.get(id)).map(|grant| grant.account))
}

#[cfg(test)]
mod tests;
