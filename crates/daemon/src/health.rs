//! What is wrong, in order, and since when.
//!
//! Pure: what is found wrong now goes in with the time, the items that clients are told come out.

use std::collections::BTreeMap;

use postern_local_api::{cause::Cause, message::HealthItem};
use postern_proto::{id::ResourceId, time::UnixMillis};

/// Resources that are told of at most: a list of a thousand says no more than its beginning, and each is told of in its
/// own status besides.
pub const MAX_RESOURCES: usize = 20;

/// Something that is wrong now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub cause: Cause,
    pub resource: Option<ResourceId>,
    /// `None`: since it was first found.
    pub since: Option<UnixMillis>,
    /// When what is warned of happens.
    pub until: Option<UnixMillis>,
}

/// Remembers since when what is wrong has been so.
#[derive(Debug, Default)]
pub struct HealthBook {
    /// By what is said of what.
    since: BTreeMap<(String, Option<ResourceId>), UnixMillis>,
}

impl Found {
    /// Of the service as a whole.
    #[must_use]
    pub const fn new(cause: Cause) -> Self {
        Self { cause, resource: None, since: None, until: None }
    }
}

impl HealthBook {
    /// The items for everything that is wrong now: the worst first, then what has been so the longest.
    pub fn items(&mut self, found: Vec<Found>, now: UnixMillis) -> Vec<HealthItem> {
        let mut before = std::mem::take(&mut self.since);
        let mut items = Vec::new();
        for Found { cause, resource, since, until } in found {
            let mut item = cause.health(resource, since.unwrap_or(now));
            item.until = until;
            let key = (item.what.clone(), resource);
            item.since = since.or_else(|| before.remove(&key)).unwrap_or(now);
            self.since.insert(key, item.since);
            items.push(item);
        }
        items.sort_by(|a, b| {
            let order = (b.severity, a.since, &a.code).cmp(&(a.severity, b.since, &b.code));
            order.then_with(|| a.resource.cmp(&b.resource)).then_with(|| a.what.cmp(&b.what))
        });
        let mut resources = 0;
        items.retain(|item| {
            resources += usize::from(item.resource.is_some());
            item.resource.is_none() || resources <= MAX_RESOURCES
        });
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(n: u64) -> Found {
        let resource = Some(ResourceId::from_ulid(u128::from(n).into()));
        Found { cause: Cause::Slow { gateway: format!("gw-{n}"), millis: 400 }, resource, since: None, until: None }
    }

    #[test]
    fn the_worst_comes_first_and_then_what_has_lasted_longest() {
        let mut book = HealthBook::default();
        let password = || Found::new(Cause::PasswordOnce);
        book.items(vec![password()], UnixMillis(1));
        let found = vec![
            Found::new(Cause::RangeTaken { to: "100.91.0.0/16".to_owned(), because: Vec::new() }),
            slow(1),
            Found::new(Cause::CertificateEnded),
            password(),
        ];
        let items = book.items(found, UnixMillis(9));
        let told: Vec<_> = items.iter().map(|item| (item.code.as_str(), item.since.0)).collect();
        assert_eq!(told, [("certificate_ended", 9), ("password_once", 1), ("slow", 9), ("range_taken", 9)]);
    }

    #[test]
    fn what_was_over_and_comes_again_begins_anew() {
        let mut book = HealthBook::default();
        let since = |book: &mut HealthBook, now| book.items(vec![slow(1)], UnixMillis(now)).first().unwrap().since.0;
        assert_eq!(since(&mut book, 5), 5);
        assert_eq!(since(&mut book, 6), 5);
        assert!(book.items(Vec::new(), UnixMillis(7)).is_empty());
        assert_eq!(since(&mut book, 8), 8);
    }

    #[test]
    fn a_thousand_resources_do_not_drown_the_rest() {
        let mut found: Vec<_> = (0..1000).map(slow).collect();
        found.push(Found::new(Cause::FewFiles { limit: 64 }));
        let items = HealthBook::default().items(found, UnixMillis(1));
        assert_eq!(items.len(), MAX_RESOURCES + 1);
        assert!(items.iter().any(|item| item.code == "few_files"));
    }
}
