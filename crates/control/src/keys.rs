//! Where the keys of the authority and of leases lie: in files of the data folder, or, where several control planes share
//! a database, sealed in it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use anyhow::Context as _;
use postern_proto::{id::OrgId, time::UnixMillis};

use crate::{
    authority::Authority,
    lease_keys::{LeaseKeys, PREFIX},
    sealed::{self, Keyring},
    store::Store,
};

/// What the authority's secret is called.
pub(crate) const AUTHORITY: &str = "ca";

/// Where the keys lie.
#[derive(Clone)]
pub enum Keys {
    Folder(PathBuf),
    Shared { store: Store, keyring: Arc<Keyring> },
}

impl Keys {
    /// Opens the authority, or makes it at the first start. Its certificate is put into the data folder for clients.
    pub async fn authority(&self, data: &Path, store: &Store, now: UnixMillis) -> anyhow::Result<Authority> {
        let org = store.org();
        let Self::Shared { keyring, .. } = self else {
            return Ok(Authority::open_or_create(data, org.id, &org.name, now)?);
        };
        // With the turn: of any number that start at once, one makes it.
        let mut append = store.append().await?;
        let found = keyring.list(append.connection(), org.id, AUTHORITY, true).await?;
        let authority = match found.first() {
            Some(found) => Authority::from_secret(&found.secret, org.id)?,
            None => {
                let secret = Authority::draw(org.id, &org.name, now)?;
                keyring.put(append.connection(), org.id, (AUTHORITY, now), secret.as_bytes()).await?;
                Authority::from_secret(secret.as_bytes(), org.id)?
            }
        };
        append.commit().await?;
        authority.publish(data)?;
        Ok(authority)
    }

    /// Reads the lease keys, and makes the first one.
    pub async fn lease_keys(&self, org: OrgId, now: UnixMillis) -> anyhow::Result<LeaseKeys> {
        match self {
            Self::Folder(data) => Ok(LeaseKeys::open_or_create(data, now)?),
            Self::Shared { store, keyring } => {
                Self::renew(store, keyring, org, now).await?;
                Self::read(store, keyring, org).await
            }
        }
    }

    /// Makes the next key when it is time to, forgets old ones, and takes over what other control planes did. True when
    /// other keys are announced now.
    pub async fn rotate(&self, org: OrgId, keys: &RwLock<LeaseKeys>, now: UnixMillis) -> anyhow::Result<bool> {
        let Self::Shared { store, keyring } = self else {
            return Ok(write(keys).rotate(now)?);
        };
        if read(keys).is_due(now) {
            Self::renew(store, keyring, org, now).await?;
        }
        let next = Self::read(store, keyring, org).await?;
        let changed = !read(keys).is_same(&next);
        if changed {
            *write(keys) = next;
        }
        Ok(changed)
    }

    async fn renew(store: &Store, keyring: &Keyring, org: OrgId, now: UnixMillis) -> anyhow::Result<()> {
        let mut append = store.append().await?;
        let keys = LeaseKeys::from_secrets(keyring.list(append.connection(), org, PREFIX, true).await?)?;
        if keys.is_new_due(now) {
            let (name, secret) = LeaseKeys::draw(now)?;
            keyring.put(append.connection(), org, (&name, now), &secret).await?;
        }
        for name in keys.over(now) {
            sealed::remove(append.connection(), &name).await?;
        }
        append.commit().await.context("the lease keys")
    }

    async fn read(store: &Store, keyring: &Keyring, org: OrgId) -> anyhow::Result<LeaseKeys> {
        let mut connection = store.reader().acquire().await?;
        Ok(LeaseKeys::from_secrets(keyring.list(&mut connection, org, PREFIX, false).await?)?)
    }
}

fn read(keys: &RwLock<LeaseKeys>) -> std::sync::RwLockReadGuard<'_, LeaseKeys> {
    keys.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write(keys: &RwLock<LeaseKeys>) -> std::sync::RwLockWriteGuard<'_, LeaseKeys> {
    keys.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
