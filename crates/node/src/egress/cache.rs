//! The leases whose signatures were checked already, least recently used first out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use postern_proto::lease::Claims;

/// Claims by the SHA-256 of their token.
pub(super) struct LeaseCache {
    capacity: usize,
    entries: HashMap<[u8; 32], Entry>,
    by_use: BTreeMap<u64, [u8; 32]>,
    uses: u64,
}

struct Entry {
    claims: Arc<Claims>,
    used: u64,
}

impl LeaseCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, entries: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    pub(super) fn get(&mut self, hash: &[u8; 32]) -> Option<Arc<Claims>> {
        let entry = self.entries.get_mut(hash)?;
        self.by_use.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(self.uses, *hash);
        Some(Arc::clone(&entry.claims))
    }

    pub(super) fn insert(&mut self, hash: [u8; 32], claims: Arc<Claims>) {
        self.uses += 1;
        if let Some(before) = self.entries.insert(hash, Entry { claims, used: self.uses }) {
            self.by_use.remove(&before.used);
        }
        self.by_use.insert(self.uses, hash);
        while self.entries.len() > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else { return };
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.by_use.clear();
    }
}

#[cfg(test)]
mod tests {
    use postern_proto::{
        id::{AccountId, DeviceId, OrgId, ResourceId},
        time::UnixMillis,
    };
    use ulid::Ulid;

    use super::*;

    fn claims() -> Arc<Claims> {
        Arc::new(Claims {
            org: OrgId::from_ulid(Ulid::nil()),
            account: AccountId::from_ulid(Ulid::nil()),
            device: DeviceId::from_ulid(Ulid::nil()),
            cnf: String::new(),
            resource: ResourceId::from_ulid(Ulid::nil()),
            revision: 0,
            grant: String::new(),
            issued_at: UnixMillis(0),
            not_after: UnixMillis(0),
            grant_ends: None,
            cluster: None,
        })
    }

    #[test]
    fn the_least_recently_used_lease_goes_first() {
        let mut cache = LeaseCache::new(2);
        cache.insert([1; 32], claims());
        cache.insert([2; 32], claims());
        assert!(cache.get(&[1; 32]).is_some());
        cache.insert([3; 32], claims());
        cache.insert([3; 32], claims());
        assert!(cache.get(&[1; 32]).is_some() && cache.get(&[2; 32]).is_none() && cache.get(&[3; 32]).is_some());
        assert_eq!((cache.entries.len(), cache.by_use.len()), (2, 2));
        cache.clear();
        assert!(cache.get(&[1; 32]).is_none());
    }
}
