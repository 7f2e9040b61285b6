//! The keys that leases are signed with, in files of the data folder, and their rotation.
//!
//! A new key is announced before it signs, and an old one stays announced until no lease signed with it can be in use.

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::{
    digest,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use postern_proto::{
    lease::{self, Claims, Signer},
    record::hex,
    sync::Item,
    time::UnixMillis,
};
use postern_tunnel::private_file;
use zeroize::Zeroizing;

use crate::{
    sealed::Opened,
    secret::{self, NoEntropy},
};

/// How old the signing key becomes before the next one is made.
pub const ROTATE_AFTER: Duration = Duration::from_secs(30 * 86_400);
/// How long a new key is announced before it signs, so that every connected node knows it.
pub const ANNOUNCE: Duration = Duration::from_secs(10 * 60);
/// How long an old key stays announced after its successor began to sign: the longest that a lease may be used.
pub const RETIRE_AFTER: Duration =
    Duration::from_secs(lease::LIFETIME.as_secs() + lease::FAIL_STATIC.as_secs() + lease::CLOCK_SKEW.as_secs());

pub(crate) const SUFFIX: &str = ".lease-key";
/// What keys are called that lie in a database.
pub(crate) const PREFIX: &str = "lease-key:";

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LeaseKeyError {
    #[error("cannot read or write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} holds no Ed25519 key: restore it from a backup, or remove it and a new one is made", .0.display())]
    Unusable(PathBuf),
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
}

/// All keys of the data folder, oldest first; never empty.
pub struct LeaseKeys {
    folder: PathBuf,
    keys: Vec<LeaseKey>,
}

struct LeaseKey {
    id: String,
    public: [u8; 32],
    created: UnixMillis,
    path: PathBuf,
    signer: Signer,
}

impl LeaseKeys {
    /// Reads the keys of the folder and makes the first one when there is none.
    pub fn open_or_create(folder: &Path, now: UnixMillis) -> Result<Self, LeaseKeyError> {
        let mut keys = Vec::new();
        let file_error = |source| LeaseKeyError::File { path: folder.to_owned(), source };
        for entry in std::fs::read_dir(folder).map_err(file_error)? {
            let path = entry.map_err(file_error)?.path();
            if let Some(created) = created_of(&path) {
                keys.push(LeaseKey::read(path, created)?);
            }
        }
        keys.sort_by_key(|key| key.created);
        let mut keys = Self { folder: folder.to_owned(), keys };
        if keys.keys.is_empty() {
            keys.add(now)?;
        }
        Ok(keys)
    }

    /// Makes a new key when it is time to and forgets those that have had their time. True when the announced keys
    /// changed.
    pub fn rotate(&mut self, now: UnixMillis) -> Result<bool, LeaseKeyError> {
        let due = self.is_new_due(now);
        if due {
            self.add(now)?;
        }
        let retired = self.retired(now);
        for key in self.keys.drain(..retired) {
            std::fs::remove_file(&key.path).map_err(|source| LeaseKeyError::File { path: key.path, source })?;
        }
        Ok(due || retired > 0)
    }

    /// Keys that lie elsewhere, oldest first.
    pub fn from_secrets(secrets: Vec<Opened>) -> Result<Self, LeaseKeyError> {
        let key = |opened: &Opened| {
            let path = PathBuf::from(&opened.name);
            LeaseKey::of(&opened.secret, path.clone(), opened.created_at).ok_or(LeaseKeyError::Unusable(path))
        };
        let keys = secrets.iter().map(key).collect::<Result<_, _>>()?;
        Ok(Self { folder: PathBuf::new(), keys })
    }

    /// A new key that is to lie elsewhere: its name, and what must be kept of it.
    pub fn draw(now: UnixMillis) -> Result<(String, Zeroizing<Vec<u8>>), LeaseKeyError> {
        let name = format!("{PREFIX}{:015}", now.0);
        let secret = draw(Path::new(&name))?;
        Ok((name, secret))
    }

    /// Whether a new key is due, or an old one to be forgotten.
    #[must_use]
    pub fn is_due(&self, now: UnixMillis) -> bool {
        self.is_new_due(now) || self.retired(now) > 0
    }

    /// Whether a new key is due.
    #[must_use]
    pub fn is_new_due(&self, now: UnixMillis) -> bool {
        self.keys.last().is_none_or(|key| now.since(key.created) >= ROTATE_AFTER)
    }

    /// The names of the keys that have had their time.
    #[must_use]
    pub fn over(&self, now: UnixMillis) -> Vec<String> {
        let over = self.keys.iter().take(self.retired(now));
        over.map(|key| key.path.to_string_lossy().into_owned()).collect()
    }

    /// Whether both are the same keys.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.keys.iter().map(|key| &key.id).eq(other.keys.iter().map(|key| &key.id))
    }

    /// The public keys, as items of the `org` scope.
    pub fn announced(&self) -> impl Iterator<Item = Item> {
        self.keys.iter().map(|key| Item::LeaseKey { id: key.id.clone(), public: hex(&key.public) })
    }

    /// Signs with the newest key that has been announced long enough. `None`: the key cannot sign.
    #[must_use]
    pub fn sign(&self, claims: &Claims, now: UnixMillis) -> Option<String> {
        let announced = |key: &&LeaseKey| now.since(key.created) >= ANNOUNCE;
        let key = self.keys.iter().rev().find(announced).or_else(|| self.keys.first())?;
        key.signer.sign(claims).ok()
    }

    /// How many of the oldest keys no lease in use can be signed with.
    fn retired(&self, now: UnixMillis) -> usize {
        let over = |successor: &LeaseKey| now.since(successor.created) >= ANNOUNCE + RETIRE_AFTER;
        self.keys.iter().skip(1).take_while(|successor| over(successor)).count()
    }

    fn add(&mut self, now: UnixMillis) -> Result<(), LeaseKeyError> {
        let path = self.folder.join(format!("{:015}{SUFFIX}", now.0));
        let secret = draw(&path)?;
        private_file::write(&path, &secret).map_err(|source| LeaseKeyError::File { path: path.clone(), source })?;
        self.keys.push(LeaseKey::read(path, now)?);
        Ok(())
    }
}

impl LeaseKey {
    fn read(path: PathBuf, created: UnixMillis) -> Result<Self, LeaseKeyError> {
        let secret = match private_file::read(&path) {
            Ok(secret) => Zeroizing::new(secret),
            Err(source) => return Err(LeaseKeyError::File { path, source }),
        };
        Self::of(&secret, path.clone(), created).ok_or(LeaseKeyError::Unusable(path))
    }

    fn of(secret: &[u8], path: PathBuf, created: UnixMillis) -> Option<Self> {
        let (id, public, signer) = Self::parse(secret)?;
        Some(Self { id, public, created, path, signer })
    }

    /// Checks also that the public half belongs to the seed: a signature with another one would give the seed away.
    fn parse(secret: &[u8]) -> Option<(String, [u8; 32], Signer)> {
        let (seed, public) = secret.split_at_checked(32)?;
        let public: [u8; 32] = public.try_into().ok()?;
        Ed25519KeyPair::from_seed_and_public_key(seed, &public).ok()?;
        let id: String = hex(digest::digest(&digest::SHA256, &public).as_ref()).chars().take(16).collect();
        let signer = Signer::new(id.clone(), secret).ok()?;
        Some((id, public, signer))
    }
}

impl fmt::Debug for LeaseKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

/// The seed and the public half of a new key; `path` is what it will be called.
fn draw(path: &Path) -> Result<Zeroizing<Vec<u8>>, LeaseKeyError> {
    let seed = Zeroizing::new(secret::entropy::<32>()?);
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice());
    let pair = pair.map_err(|_| LeaseKeyError::Unusable(path.to_owned()))?;
    Ok(Zeroizing::new([seed.as_slice(), pair.public_key().as_ref()].concat()))
}

fn created_of(path: &Path) -> Option<UnixMillis> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok().map(UnixMillis)
}
