//! Where the device key and the sign-in are kept, and what happens when the keyring does not open.
//!
//! The keyring is where they go unless somebody chose otherwise. While it is locked or missing they are in memory
//! alone, the status says so, and a person chooses: memory, files, or the keyring once it is open.

use std::time::Duration;

use postern_local_api::{
    cause::Cause,
    message::{KeyPlace, KeyStorage},
};
use postern_proto::problem::Problem;

use super::{Parts, Shell, work::Outcome};
use crate::{
    clock,
    secrets::{self, Failure, Fault, InFiles, InKeyring, InMemory, Look, Secrets, Vault},
    store::{DeviceKey, KeyStorageChosen, KeyringItem, SaveError, Store},
};

/// How long the service waits for a store: it does nothing else meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a keyring that did not open is looked at: often at first, since a session may just be starting.
const LOOK_OFTEN: Duration = Duration::from_secs(5);
const LOOK_SELDOM: Duration = Duration::from_secs(60);
const OFTEN: u32 = 24;

/// The three places, and which of them counts.
#[derive(Clone, Debug)]
struct Vaults {
    memory: Vault,
    files: Vault,
    keyring: Vault,
}

#[derive(Debug)]
pub(super) struct Keys {
    vaults: Vaults,
    /// As it is on disk, or would be.
    chosen: KeyStorageChosen,
    /// The keyring's own name, once it was seen open.
    keyring: Option<String>,
    /// Why they are not where they should be.
    failure: Option<Failure>,
    /// The sign-in of the last run is in the keyring, which did not give it out yet.
    awaited: bool,
    looks: u32,
    look_at: Duration,
    looking: bool,
}

impl Vaults {
    fn new(store: &Store) -> Self {
        let folder = store.path::<DeviceKey>();
        let folder = folder.parent().unwrap_or(&folder).display().to_string();
        Self {
            memory: Vault::new(InMemory),
            files: Vault::new(InFiles(store.clone())),
            keyring: Vault::new(InKeyring { folder }),
        }
    }

    const fn at(&self, place: KeyPlace) -> &Vault {
        match place {
            KeyPlace::Memory => &self.memory,
            KeyPlace::File => &self.files,
            KeyPlace::Keyring => &self.keyring,
        }
    }
}

impl Keys {
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            vaults: Vaults::new(&parts.store),
            chosen: KeyStorageChosen { place: KeyPlace::File, keyring: KeyringItem::None },
            keyring: None,
            failure: None,
            awaited: false,
            looks: 0,
            look_at: Duration::ZERO,
            looking: false,
        }
    }

    fn fault(&self) -> Option<&Fault> {
        match &self.failure {
            Some(Failure::Keyring(fault)) => Some(fault),
            _ => None,
        }
    }

    /// Whether there is something to do once the keyring opens.
    fn waits(&self) -> bool {
        self.chosen.keyring == KeyringItem::Leftover
            || (self.chosen.place == KeyPlace::Keyring && self.fault().is_some())
    }

    /// When the keyring is looked at next, if it is waited for.
    pub(super) fn due(&self) -> Option<Duration> {
        (self.waits() && !self.looking).then_some(self.look_at)
    }

    fn begin_waiting(&mut self) {
        (self.looks, self.look_at) = (0, clock::now().boot + LOOK_OFTEN);
    }
}

impl Shell {
    /// What was kept by the last run. Takes away what should not be where it is.
    pub(super) async fn resume_keys(&mut self) -> Option<Secrets> {
        let store = &self.parts.store;
        let kept = store.load_or_warn::<KeyStorageChosen>(&mut self.parts.warnings);
        let in_files = InFiles(store.clone()).hold_something();
        self.keys.chosen = kept.unwrap_or_else(|| {
            // Who signed in before there was a choice had files.
            let place = if in_files { KeyPlace::File } else { self.parts.key_place };
            KeyStorageChosen { place, keyring: KeyringItem::None }
        });
        let place = self.keys.chosen.place;
        if in_files && place != KeyPlace::File {
            self.note(self.keys.vaults.files.clone().remove(PATIENCE).await);
        }
        let item = self.keys.chosen.keyring;
        // A move between places that broke off may have left a second copy.
        if item == KeyringItem::Leftover || (item == KeyringItem::Secrets && place != KeyPlace::Keyring) {
            self.clear_keyring().await;
        }
        self.load_keys().await
    }

    async fn load_keys(&mut self) -> Option<Secrets> {
        let place = self.keys.chosen.place;
        if place == KeyPlace::Keyring
            && let Err(fault) = self.look_at_keyring().await
        {
            tracing::warn!("{fault}");
            self.keys.awaited = self.keys.chosen.keyring == KeyringItem::Secrets;
            self.keys.failure = Some(Failure::Keyring(fault));
            self.keys.begin_waiting();
            return None;
        }
        match self.keys.vaults.at(place).load(PATIENCE).await {
            Ok((found, warnings)) => {
                self.parts.warnings.extend(warnings);
                self.keys.failure = None;
                self.keys.awaited = false;
                found.filter(|_| place != KeyPlace::Keyring || self.keys.chosen.keyring != KeyringItem::Leftover)
            }
            failed @ Err(_) => {
                self.keys.awaited = true;
                self.note(failed.map(drop));
                None
            }
        }
    }

    async fn look_at_keyring(&mut self) -> Result<(), Fault> {
        match secrets::look().await {
            Look::Open { name } => {
                self.keys.keyring = Some(name);
                Ok(())
            }
            Look::Closed(fault) => Err(fault),
        }
    }

    /// Remembers what went wrong, and looks again later.
    fn note(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = &result {
            tracing::warn!("keys: {failure}");
            self.keys.begin_waiting();
        }
        self.keys.failure = result.err();
    }

    /// Keeps the secrets of a sign-in where they are to be. Where that cannot be, they stay in memory and the status
    /// says so.
    pub(super) async fn save_secrets(&mut self, secrets: Secrets) {
        let result = self.save_at(self.keys.chosen.place, secrets).await;
        self.keys.awaited = false;
        self.note(result);
    }

    async fn save_at(&mut self, place: KeyPlace, secrets: Secrets) -> Result<(), Failure> {
        if place == KeyPlace::Keyring {
            self.look_at_keyring().await.map_err(Failure::Keyring)?;
            // Before the item: what may be in the keyring is never forgotten.
            self.keys.chosen.keyring = KeyringItem::Secrets;
            self.save_choice().await?;
        }
        self.keys.vaults.at(place).save(secrets, PATIENCE).await
    }

    async fn save_choice(&self) -> Result<(), Failure> {
        let (store, chosen) = (self.parts.store.clone(), self.keys.chosen);
        self.saver.run(move || store.save(&chosen)).await;
        self.saver.flush().await;
        match self.saver.failure() {
            None => Ok(()),
            Some(error) => {
                let path = self.parts.store.path::<KeyStorageChosen>();
                Err(SaveError { path, error: std::io::Error::other(error) }.into())
            }
        }
    }

    /// Leaves nothing of a sign-in anywhere. A keyring that does not open now is cleared when it does; until then what
    /// is in it counts as nothing.
    pub(super) async fn forget_secrets(&mut self) {
        self.keys.awaited = false;
        let removed = self.keys.vaults.files.remove(PATIENCE).await;
        if removed.is_err() {
            self.note(removed);
        }
        if self.keys.chosen.keyring != KeyringItem::None {
            self.clear_keyring().await;
        }
    }

    async fn clear_keyring(&mut self) {
        self.keys.chosen.keyring = KeyringItem::Leftover;
        let noted = self.save_choice().await;
        let removed = match self.look_at_keyring().await {
            Ok(()) => self.keys.vaults.keyring.remove(PATIENCE).await,
            Err(fault) => Err(Failure::Keyring(fault)),
        };
        let result = match (noted, removed) {
            (Ok(()), Ok(())) => {
                self.keys.chosen.keyring = KeyringItem::None;
                self.save_choice().await
            }
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
        };
        self.note(result);
    }

    /// Keeps them there from now on. What was chosen is on disk, and what was kept elsewhere is gone, when this returns.
    pub(super) async fn keep_keys(&mut self, place: KeyPlace) -> Result<(), Problem> {
        let refused = |failure: Failure| match &failure {
            Failure::Disk(_) => failure.cause().problem(500),
            Failure::Keyring(_) => failure.cause().problem(409),
        };
        let secrets = self.account.as_ref().map(|account| account.secrets());
        let signed_in = secrets.is_some();
        if let Some(secrets) = secrets {
            self.save_at(place, secrets).await.map_err(refused)?;
        } else if place == KeyPlace::Keyring {
            self.look_at_keyring().await.map_err(|fault| refused(Failure::Keyring(fault)))?;
        }
        self.keys.chosen.place = place;
        self.keys.failure = None;
        self.save_choice().await.map_err(refused)?;
        if place != KeyPlace::File {
            self.keys.vaults.files.remove(PATIENCE).await.map_err(refused)?;
        }
        if place == KeyPlace::Keyring && !signed_in {
            self.resume_from_keyring().await;
        } else if place != KeyPlace::Keyring && self.keys.chosen.keyring != KeyringItem::None {
            self.clear_keyring().await;
        }
        Ok(())
    }

    /// Looks at a keyring that did not open, now and then.
    pub(super) fn watch_keyring(&mut self, now: Duration) {
        if self.keys.due().is_none_or(|due| now < due) {
            return;
        }
        self.keys.looking = true;
        self.keys.looks += 1;
        let pause = if self.keys.looks < OFTEN { LOOK_OFTEN } else { LOOK_SELDOM };
        self.keys.look_at = now + pause;
        self.work.spawn(async { Outcome::Keyring(secrets::look().await) });
    }

    /// No look is under way any more.
    pub(super) fn forget_look(&mut self) {
        self.keys.looking = false;
    }

    /// What a look showed.
    pub(super) async fn take_look(&mut self, look: Look) {
        self.keys.looking = false;
        if !self.keys.waits() {
            return;
        }
        match look {
            Look::Closed(fault) if self.keys.chosen.place == KeyPlace::Keyring => {
                self.keys.failure = Some(Failure::Keyring(fault));
            }
            Look::Closed(_) => {}
            Look::Open { name } => {
                self.keys.keyring = Some(name);
                if self.keys.chosen.keyring == KeyringItem::Leftover {
                    self.clear_keyring().await;
                }
                if self.keys.chosen.place != KeyPlace::Keyring {
                    return;
                }
                match self.account.as_ref().map(|account| account.secrets()) {
                    Some(secrets) => self.save_secrets(secrets).await,
                    None => self.resume_from_keyring().await,
                }
            }
        }
    }

    async fn resume_from_keyring(&mut self) {
        let config = self.parts.configs.borrow().clone();
        if let Some(secrets) = self.load_keys().await {
            self.resume_with(config, secrets).await;
        }
    }

    pub(super) fn key_storage(&self) -> KeyStorage {
        match (self.keys.chosen.place, self.keys.fault()) {
            (KeyPlace::Memory, _) => KeyStorage::Memory,
            (KeyPlace::File, _) => {
                KeyStorage::File { path: self.parts.store.path::<DeviceKey>().display().to_string() }
            }
            (KeyPlace::Keyring, None) => {
                KeyStorage::Keystore { name: self.keys.keyring.clone().unwrap_or_else(|| "The keyring".to_owned()) }
            }
            (KeyPlace::Keyring, Some(Fault::Locked { name, reason })) => {
                KeyStorage::Unreadable { name: name.clone(), reason: reason.clone(), missing: false }
            }
            (KeyPlace::Keyring, Some(Fault::Missing { reason })) => {
                KeyStorage::Unreadable { name: "The keyring".to_owned(), reason: reason.clone(), missing: true }
            }
        }
    }

    /// What is wrong with where they are, once there is something to be kept.
    pub(super) fn key_trouble(&self) -> Option<Cause> {
        let failure = self.keys.failure.as_ref()?;
        let matters = match failure {
            Failure::Disk(_) => true,
            Failure::Keyring(_) if self.keys.chosen.place == KeyPlace::Keyring => {
                self.account.is_some() || self.keys.awaited
            }
            // Only the leftover of a place that nobody uses any more.
            Failure::Keyring(_) => false,
        };
        matters.then(|| failure.cause())
    }
}
