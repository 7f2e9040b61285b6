use std::sync::Arc;

use postern_proto::{
    id::{OrgId, RuleId},
    resource::{BindAddress, Kind, Tags},
    sync::NetworkSettings,
};
use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::{
    catalogue::{Account, AccountKind, Grant, Member, Org, Resource, Role, Rule, RuleTarget},
    store::Entity,
};

const ACCOUNTS: u8 = 4;
const ROLES: u8 = 3;
const RESOURCES: u8 = 5;
const GRANTS: u8 = 6;
const RULES: u8 = 5;
const ENDS: u64 = 4;

fn ulid(n: u8) -> Ulid {
    Ulid::from_parts(u64::from(n) + 1, 0)
}

fn account_id(n: u8) -> AccountId {
    AccountId::from_ulid(ulid(n))
}

fn role_id(n: u8) -> RoleId {
    RoleId::from_ulid(ulid(n))
}

fn resource_id(n: u8) -> ResourceId {
    ResourceId::from_ulid(ulid(n))
}

fn grant_id(n: u8) -> GrantId {
    GrantId::from_ulid(ulid(n))
}

/// One change, as an administrator makes it.
#[derive(Clone, Debug)]
enum Step {
    Account { n: u8, suspended: bool },
    NoAccount(u8),
    Role(u8),
    NoRole(u8),
    Rule { n: u8, role: u8, what: What },
    NoRule(u8),
    Member { role: u8, account: u8 },
    NoMember { role: u8, account: u8 },
    Resource { n: u8, prod: bool, kind: Kind },
    NoResource(u8),
    Grant { n: u8, account: u8, resource: u8, ends_at: Option<u64> },
    NoGrant(u8),
}

#[derive(Clone, Debug)]
enum What {
    Fixed(BTreeSet<u8>),
    Prod,
    OfKind(Kind),
    ProdOfKind(Kind),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || prop_oneof![Just(Kind::Tcp), Just(Kind::Postgres)];
    let what = prop_oneof![
        prop::collection::btree_set(0..RESOURCES, 0..4).prop_map(What::Fixed),
        Just(What::Prod),
        kind().prop_map(What::OfKind),
        kind().prop_map(What::ProdOfKind),
    ];
    prop_oneof![
        1 => (0..ACCOUNTS, prop::bool::weighted(0.2)).prop_map(|(n, suspended)| Step::Account { n, suspended }),
        1 => (0..ACCOUNTS).prop_map(Step::NoAccount),
        1 => (0..ROLES).prop_map(Step::Role),
        1 => (0..ROLES).prop_map(Step::NoRole),
        2 => (0..RULES, 0..ROLES, what).prop_map(|(n, role, what)| Step::Rule { n, role, what }),
        1 => (0..RULES).prop_map(Step::NoRule),
        3 => (0..ROLES, 0..ACCOUNTS).prop_map(|(role, account)| Step::Member { role, account }),
        1 => (0..ROLES, 0..ACCOUNTS).prop_map(|(role, account)| Step::NoMember { role, account }),
        3 => (0..RESOURCES, any::<bool>(), kind()).prop_map(|(n, prod, kind)| Step::Resource { n, prod, kind }),
        1 => (0..RESOURCES).prop_map(Step::NoResource),
        2 => (0..GRANTS, 0..ACCOUNTS, 0..RESOURCES, prop::option::of(1..ENDS))
            .prop_map(|(n, account, resource, ends_at)| Step::Grant { n, account, resource, ends_at }),
        1 => (0..GRANTS).prop_map(Step::NoGrant),
    ]
}

/// The same state as plain lists, and access by asking for everything each time.
#[derive(Clone, Default)]
struct Model {
    accounts: BTreeMap<u8, bool>,
    roles: BTreeSet<u8>,
    rules: BTreeMap<u8, (u8, What)>,
    members: BTreeSet<(u8, u8)>,
    resources: BTreeMap<u8, (bool, Kind)>,
    grants: BTreeMap<u8, (u8, u8, Option<u64>)>,
}

impl Model {
    fn names(&self, role: u8, resource: u8) -> bool {
        let Some((prod, kind)) = self.resources.get(&resource) else { return false };
        self.rules.values().filter(|(of, _)| *of == role).any(|(_, what)| match what {
            What::Fixed(ids) => ids.contains(&resource),
            What::Prod => *prod,
            What::OfKind(wanted) => kind == wanted,
            What::ProdOfKind(wanted) => *prod && kind == wanted,
        })
    }

    /// The end of the access that lasts longest: `Some(None)` for access without an end.
    fn reach(&self, account: u8, resource: u8, now: u64) -> Option<Option<u64>> {
        if self.accounts.get(&account) != Some(&false) || !self.resources.contains_key(&resource) {
            return None;
        }
        let by_role = self.members.iter().any(|(role, member)| *member == account && self.names(*role, resource));
        let ends = self
            .grants
            .values()
            .filter(|(to, of, end)| *to == account && *of == resource && end.is_none_or(|end| end > now))
            .map(|(_, _, end)| end.unwrap_or(u64::MAX));
        let longest = ends.max().map(|end| (end < u64::MAX).then_some(end));
        if by_role { Some(None) } else { longest }
    }

    /// Takes a step that the API would allow; false otherwise.
    fn take(&mut self, step: &Step) -> bool {
        match step.clone() {
            Step::Account { n, suspended } => self.accounts.insert(n, suspended) != Some(suspended),
            Step::NoAccount(n) => {
                self.members.retain(|(_, account)| *account != n);
                self.grants.retain(|_, (account, _, _)| *account != n);
                self.accounts.remove(&n).is_some()
            }
            Step::Role(n) => self.roles.insert(n),
            Step::NoRole(n) => {
                self.members.retain(|(role, _)| *role != n);
                self.rules.retain(|_, (role, _)| *role != n);
                self.roles.remove(&n)
            }
            Step::Rule { n, role, what } => {
                let allowed = self.roles.contains(&role) && self.rules.get(&n).is_none_or(|(of, _)| *of == role);
                if allowed {
                    self.rules.insert(n, (role, what));
                }
                allowed
            }
            Step::NoRule(n) => self.rules.remove(&n).is_some(),
            Step::Member { role, account } => {
                self.roles.contains(&role)
                    && self.accounts.contains_key(&account)
                    && self.members.insert((role, account))
            }
            Step::NoMember { role, account } => self.members.remove(&(role, account)),
            Step::Resource { n, prod, kind } => self.resources.insert(n, (prod, kind)) != Some((prod, kind)),
            Step::NoResource(n) => {
                self.grants.retain(|_, (_, resource, _)| *resource != n);
                for (_, what) in self.rules.values_mut() {
                    if let What::Fixed(ids) = what {
                        ids.remove(&n);
                    }
                }
                self.resources.remove(&n).is_some()
            }
            Step::Grant { n, account, resource, ends_at } => {
                let allowed = self.accounts.contains_key(&account)
                    && self.resources.contains_key(&resource)
                    && self.grants.get(&n).is_none_or(|(to, of, _)| (*to, *of) == (account, resource));
                if allowed {
                    self.grants.insert(n, (account, resource, ends_at));
                }
                allowed
            }
            Step::NoGrant(n) => self.grants.remove(&n).is_some(),
        }
    }
}

/// The catalogue as the store's changes make it, without the database.
struct Real {
    catalogue: Catalogue,
    touched: Touched,
}

impl Real {
    fn put<E: Entity>(&mut self, entity: E) {
        let table = E::table_mut(&mut self.catalogue);
        let before = table.insert(entity.id(), Arc::new(entity.clone()));
        E::settle(&mut self.catalogue, &mut self.touched, before.as_deref(), Some(&entity));
    }

    fn remove<E: Entity>(&mut self, id: E::Id) {
        if let Some(before) = E::table_mut(&mut self.catalogue).remove(&id) {
            E::settle(&mut self.catalogue, &mut self.touched, Some(&before), None);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Account { n, suspended } => self.put(account(n, suspended)),
            Step::NoAccount(n) => {
                for role in 0..ROLES {
                    self.remove::<Member>((role_id(role), account_id(n)));
                }
                let of = |grant: &&Arc<Grant>| grant.account == account_id(n);
                let grants: Vec<_> = self.catalogue.grants.values().filter(of).map(|grant| grant.id).collect();
                grants.into_iter().for_each(|grant| self.remove::<Grant>(grant));
                self.remove::<Account>(account_id(n));
            }
            Step::Role(n) => self.put(Role { id: role_id(n), name: n.to_string(), tags: Tags::new(), revision: 0 }),
            Step::NoRole(n) => {
                for account in 0..ACCOUNTS {
                    self.remove::<Member>((role_id(n), account_id(account)));
                }
                let of = |rule: &&Arc<Rule>| rule.role == role_id(n);
                let rules: Vec<_> = self.catalogue.rules.values().filter(of).map(|rule| rule.id).collect();
                rules.into_iter().for_each(|rule| self.remove::<Rule>(rule));
                self.remove::<Role>(role_id(n));
            }
            Step::Rule { n, role, what } => {
                self.put(Rule { id: RuleId::from_ulid(ulid(n)), role: role_id(role), what: target(what), revision: 0 });
            }
            Step::NoRule(n) => self.remove::<Rule>(RuleId::from_ulid(ulid(n))),
            Step::Member { role, account } => {
                self.put(Member { role: role_id(role), account: account_id(account), revision: 0 });
            }
            Step::NoMember { role, account } => self.remove::<Member>((role_id(role), account_id(account))),
            Step::Resource { n, prod, kind } => self.put(resource(n, prod, kind)),
            Step::NoResource(n) => {
                let of = |grant: &&Arc<Grant>| grant.resource == resource_id(n);
                let grants: Vec<_> = self.catalogue.grants.values().filter(of).map(|grant| grant.id).collect();
                grants.into_iter().for_each(|grant| self.remove::<Grant>(grant));
                for rule in self.catalogue.rules.clone().values() {
                    let mut rule = Rule::clone(rule);
                    if let RuleTarget::Resources(ids) = &mut rule.what
                        && ids.remove(&resource_id(n))
                    {
                        self.put(rule);
                    }
                }
                self.remove::<Resource>(resource_id(n));
            }
            Step::Grant { n, account, resource, ends_at } => self.put(Grant {
                id: grant_id(n),
                account: account_id(account),
                resource: resource_id(resource),
                ends_at: ends_at.map(UnixMillis),
                reason: String::new(),
                created_at: UnixMillis(0),
                revision: 0,
            }),
            Step::NoGrant(n) => self.remove::<Grant>(grant_id(n)),
        }
    }
}

fn account(n: u8, suspended: bool) -> Account {
    Account {
        id: account_id(n),
        email: format!("{n}@example.org").parse().unwrap(),
        name: n.to_string(),
        kind: AccountKind::User,
        admin: false,
        suspended,
        tags: Tags::new(),
        created_at: UnixMillis(0),
        revision: 0,
    }
}

fn resource(n: u8, prod: bool, kind: Kind) -> Resource {
    let env = if prod { "Prod" } else { "dev" };
    Resource {
        id: resource_id(n),
        name: n.to_string(),
        kind,
        host: "h".to_owned(),
        port: 1,
        ports: postern_proto::port::PortSet::default(),
        hosts: Vec::new(),
        tags: Tags::from([("env".to_owned(), env.to_owned())]),
        bind: BindAddress::loopback([127, 0, 0, 1].into(), 10000 + u16::from(n)),
        allow_local: false,
        strict: false,
        egress: None,
        cluster: None,
        created_at: UnixMillis(0),
        revision: 0,
    }
}

fn target(what: What) -> RuleTarget {
    match what {
        What::Fixed(ids) => RuleTarget::Resources(ids.into_iter().map(resource_id).collect()),
        What::Prod => RuleTarget::Query("tags:env=prod".to_owned()),
        What::OfKind(kind) => RuleTarget::Query(format!("kind:{kind}")),
        What::ProdOfKind(kind) => RuleTarget::Query(format!("tags:ENV=p* kind:{kind}")),
    }
}

fn pairs() -> impl Iterator<Item = (u8, u8)> {
    (0..ACCOUNTS).flat_map(|account| (0..RESOURCES).map(move |resource| (account, resource)))
}

fn check_access(catalogue: &Catalogue, model: &Model) -> Result<(), TestCaseError> {
    for now in 0..=ENDS {
        for (account, resource) in pairs() {
            let got = reason(catalogue, account_id(account), resource_id(resource), UnixMillis(now));
            let ends = got.map(|reason| reason.ends_at().map(|end| end.0));
            prop_assert_eq!(ends, model.reach(account, resource, now), "{} {} at {}", account, resource, now);
            let listed = reachable(catalogue, account_id(account), UnixMillis(now));
            prop_assert_eq!(listed.get(&resource_id(resource)).copied(), got, "both ways tell the same");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn access_and_its_changes_are_those_of_a_model_that_asks_for_everything(
        steps in prop::collection::vec(step(), 1..50),
    ) {
        let org = Org { id: OrgId::from_ulid(ulid(0)), name: "o".to_owned(), epoch: "e".to_owned() };
        let catalogue = Catalogue::empty(org, 0, NetworkSettings::default());
        let mut real = Real { catalogue, touched: Touched::default() };
        let mut model = Model::default();
        for step in steps {
            let (before, model_before) = (real.catalogue.clone(), model.clone());
            if !model.take(&step) {
                model = model_before;
                continue;
            }
            real.touched = Touched::default();
            real.take(step);

            let mut rebuilt = real.catalogue.clone();
            rebuilt.index_all();
            prop_assert_eq!(&rebuilt.index, &real.catalogue.index, "the index is kept as if it were built anew");
            check_access(&real.catalogue, &model)?;

            let got = effects(&before, &real.catalogue, &real.touched);
            let expected: BTreeMap<_, _> = pairs().filter_map(|(account, resource)| {
                let was = model_before.reach(account, resource, 0).is_some();
                let is = model.reach(account, resource, 0).is_some();
                let updated = model_before.resources.get(&resource) != model.resources.get(&resource);
                let effect = match (was, is) {
                    (false, true) => Effect::Gained,
                    (true, false) => Effect::Lost,
                    (true, true) if updated => Effect::Updated,
                    _ => return None,
                };
                Some(((account_id(account), resource_id(resource)), effect))
            }).collect();
            prop_assert_eq!(got, expected);
        }
    }
}

#[test]
fn of_two_reasons_the_one_that_lasts_longer_is_given_and_a_role_before_a_grant() {
    let org = Org { id: OrgId::from_ulid(ulid(0)), name: "o".to_owned(), epoch: "e".to_owned() };
    let catalogue = Catalogue::empty(org, 0, NetworkSettings::default());
    let mut real = Real { catalogue, touched: Touched::default() };
    let grant = |n, ends_at| Step::Grant { n, account: 0, resource: 0, ends_at };
    real.take(Step::Account { n: 0, suspended: false });
    real.take(Step::Resource { n: 0, prod: true, kind: Kind::Tcp });
    let why = |real: &Real, now| reason(&real.catalogue, account_id(0), resource_id(0), UnixMillis(now));
    real.take(grant(0, Some(2)));
    real.take(grant(1, Some(3)));
    assert_eq!(why(&real, 1), Some(Reason::Grant { grant: grant_id(1), ends_at: Some(UnixMillis(3)) }));
    assert_eq!(next_end(&real.catalogue), Some(UnixMillis(2)));
    assert_eq!(why(&real, 3), None, "the end itself is over");
    real.take(grant(2, None));
    assert_eq!(why(&real, 1).unwrap().grant(), grant_id(2).to_string());
    real.take(Step::Role(0));
    real.take(Step::Rule { n: 0, role: 0, what: What::Prod });
    real.take(Step::Member { role: 0, account: 0 });
    assert_eq!(why(&real, 1), Some(Reason::Role(role_id(0))));
}
