//! Where the secrets of a sign-in are kept: in the system's keyring, in files that only the user may read, or nowhere
//! but in memory. Never in two places, and never in one that nobody chose while there is no keyring.
//!
//! A keyring may ask a person for a password and wait for it. Each call therefore has a thread of its own and a
//! deadline, and one that comes too late has no effect.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use postern_local_api::cause::Cause;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::store::{DeviceKey, SaveError, SignInRecord, Store};

mod keyring;

pub use keyring::{InKeyring, look, unlock as unlock_keyring};

/// What must not be read by anybody else: the device key, and the sign-in with its token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Secrets {
    pub key: DeviceKey,
    pub record: SignInRecord,
}

/// A place for the secrets of one sign-in. Calls may block.
pub trait SecretStore: fmt::Debug + Send + Sync {
    /// What was kept last; a word about what made no sense goes into `warnings`.
    ///
    /// # Errors
    /// A place that does not answer, or gives nothing out.
    fn load(&self, warnings: &mut Vec<String>) -> Result<Option<Secrets>, Failure>;

    /// Keeps them instead of what was there; they are durable when this returns.
    ///
    /// # Errors
    /// A place that does not take them; what was there before may still be.
    fn save(&self, secrets: &Secrets) -> Result<(), Failure>;

    /// Leaves nothing behind.
    ///
    /// # Errors
    /// A place where something may still be.
    fn remove(&self) -> Result<(), Failure>;

    /// What is told when it does not answer in time.
    fn silent(&self, after: Duration) -> Failure;
}

/// Why secrets are not where they should be.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Disk(#[from] SaveError),
    #[error("{0}")]
    Keyring(Fault),
}

/// Why a keyring cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{name} is locked: {reason}")]
    Locked { name: String, reason: String },
    #[error("there is no keyring: {reason}")]
    Missing { reason: String },
}

/// What a look at the keyring shows. Looking asks nobody for a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    Open { name: String },
    Closed(Fault),
}

/// Nowhere: what is in memory is kept by whoever uses it.
#[derive(Clone, Copy, Debug)]
pub struct InMemory;

/// In two files of the state folder.
#[derive(Clone, Debug)]
pub struct InFiles(pub Store);

/// A store that is asked on threads of its own.
#[derive(Clone, Debug)]
pub struct Vault {
    store: Arc<dyn SecretStore>,
    /// A call is under way, perhaps one that nobody waits for any more.
    busy: Arc<AtomicBool>,
}

impl Failure {
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Disk(error) => Cause::NotSaved { error: error.to_string() },
            Self::Keyring(fault) => fault.cause(),
        }
    }
}

impl Fault {
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self.clone() {
            Self::Locked { name, reason } => Cause::KeyringLocked { keyring: name, reason },
            Self::Missing { reason } => Cause::KeyringMissing { reason },
        }
    }
}

impl SecretStore for InMemory {
    fn load(&self, _warnings: &mut Vec<String>) -> Result<Option<Secrets>, Failure> {
        Ok(None)
    }

    fn save(&self, _secrets: &Secrets) -> Result<(), Failure> {
        Ok(())
    }

    fn remove(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn silent(&self, after: Duration) -> Failure {
        timed_out(PathBuf::new(), after)
    }
}

impl SecretStore for InFiles {
    fn load(&self, warnings: &mut Vec<String>) -> Result<Option<Secrets>, Failure> {
        let Some(record) = self.0.load_or_warn::<SignInRecord>(warnings) else { return Ok(None) };
        let Some(key) = self.0.load_or_warn::<DeviceKey>(warnings) else {
            warnings.push("The device key or certificate is missing; sign in again.".to_owned());
            return Ok(None);
        };
        Ok(Some(Secrets { key, record }))
    }

    /// The record comes last: without it the key counts as no sign-in.
    fn save(&self, secrets: &Secrets) -> Result<(), Failure> {
        self.0.save(&secrets.key)?;
        Ok(self.0.save(&secrets.record)?)
    }

    fn remove(&self) -> Result<(), Failure> {
        self.0.remove::<SignInRecord>()?;
        Ok(self.0.remove::<DeviceKey>()?)
    }

    fn silent(&self, after: Duration) -> Failure {
        timed_out(self.0.path::<DeviceKey>(), after)
    }
}

fn timed_out(path: PathBuf, after: Duration) -> Failure {
    let reason = format!("the disk did not answer within {} s", after.as_secs());
    SaveError { path, error: io::Error::new(io::ErrorKind::TimedOut, reason) }.into()
}

impl InFiles {
    /// Whether there are any.
    #[must_use]
    pub fn hold_something(&self) -> bool {
        self.0.path::<SignInRecord>().exists() || self.0.path::<DeviceKey>().exists()
    }
}

impl Vault {
    #[must_use]
    pub fn new(store: impl SecretStore + 'static) -> Self {
        Self { store: Arc::new(store), busy: Arc::default() }
    }

    /// See [`SecretStore::load`].
    ///
    /// # Errors
    /// Those of the store, and one that takes longer than `patience`.
    pub async fn load(&self, patience: Duration) -> Result<(Option<Secrets>, Vec<String>), Failure> {
        let load = |store: &dyn SecretStore| {
            let mut warnings = Vec::new();
            store.load(&mut warnings).map(|secrets| (secrets, warnings))
        };
        self.ask(patience, load, |_| {}).await
    }

    /// See [`SecretStore::save`]. What is saved too late is taken away again.
    ///
    /// # Errors
    /// Those of the store, and one that takes longer than `patience`.
    pub async fn save(&self, secrets: Secrets, patience: Duration) -> Result<(), Failure> {
        let forget = |store: &dyn SecretStore| {
            if let Err(error) = store.remove() {
                tracing::warn!("secrets that were kept too late could not be taken away: {error}");
            }
        };
        self.ask(patience, move |store| store.save(&secrets), forget).await
    }

    /// See [`SecretStore::remove`].
    ///
    /// # Errors
    /// Those of the store, and one that takes longer than `patience`.
    pub async fn remove(&self, patience: Duration) -> Result<(), Failure> {
        self.ask(patience, |store| store.remove(), |_| {}).await
    }

    /// `late` is done after work that nobody waited for.
    async fn ask<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&dyn SecretStore) -> Result<T, Failure> + Send + 'static,
        late: impl FnOnce(&dyn SecretStore) + Send + 'static,
    ) -> Result<T, Failure> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(self.store.silent(patience));
        }
        let (reply, answer) = oneshot::channel();
        let (store, turn) = (Arc::clone(&self.store), Turn(Arc::clone(&self.busy)));
        // Not one of the runtime's threads: a program that ends would wait for those.
        let thread = std::thread::Builder::new().name("secrets".to_owned()).spawn(move || {
            let result = work(store.as_ref());
            let kept = result.is_ok();
            // Before the answer: whoever gets it may ask again at once.
            let result = if reply.is_closed() {
                Some(result)
            } else {
                drop(turn);
                reply.send(result).err()
            };
            if result.is_some() && kept {
                late(store.as_ref());
            }
        });
        match thread {
            Ok(_) => match tokio::time::timeout(patience, answer).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) | Err(_) => Err(self.store.silent(patience)),
            },
            Err(error) => Err(SaveError { path: PathBuf::new(), error }.into()),
        }
    }
}

/// The right to be the only call; given back even by a panic.
struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Secrets {
    fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        serde_json::to_vec(self).map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests;
