//! Where the device key and the sign-in are kept: in files that only the user may read, or nowhere but in memory.

use postern_local_api::{
    cause::Cause,
    message::{KeyPlace, KeyStorage},
};
use postern_proto::problem::Problem;

use super::Shell;
use crate::store::{DeviceKey, KeyStorageChosen, SaveError, SignInRecord, Store};

impl Shell {
    pub(super) fn resume_key_place(&mut self) {
        let chosen = self.parts.store.load_or_warn::<KeyStorageChosen>(&mut self.parts.warnings);
        self.key_place = chosen.map_or(KeyPlace::File, |chosen| chosen.place);
    }

    /// Keeps them there from now on. What was chosen is on disk, and what was kept elsewhere is gone, when this returns.
    pub(super) async fn keep_keys(&mut self, place: KeyPlace) -> Result<(), Problem> {
        if place == KeyPlace::Keyring {
            let reason = "this version of the service uses none".to_owned();
            return Err(Cause::KeyringMissing { reason }.problem(409));
        }
        self.key_place = place;
        let store = self.parts.store.clone();
        let secrets = self.account.as_ref().map(|account| (account.key().clone(), account.record().clone()));
        let save = move || {
            store.save(&KeyStorageChosen { place })?;
            match secrets {
                Some((key, record)) => save_secrets(&store, place, &key, &record),
                None => Ok(()),
            }
        };
        self.saver.run(save).await;
        self.saver.flush().await;
        match self.saver.failure() {
            Some(error) => Err(Cause::NotSaved { error }.problem(500)),
            None => Ok(()),
        }
    }

    pub(super) fn key_storage(&self) -> KeyStorage {
        match self.key_place {
            KeyPlace::Memory => KeyStorage::Memory,
            KeyPlace::File | KeyPlace::Keyring => {
                KeyStorage::File { path: self.parts.store.path::<DeviceKey>().display().to_string() }
            }
        }
    }
}

/// The record comes last: without it the rest counts as no sign-in. In memory only, nothing of them stays on disk.
pub(super) fn save_secrets(
    store: &Store,
    place: KeyPlace,
    key: &DeviceKey,
    record: &SignInRecord,
) -> Result<(), SaveError> {
    if place == KeyPlace::Memory {
        store.remove::<SignInRecord>()?;
        return store.remove::<DeviceKey>();
    }
    store.save(key)?;
    store.save(record)
}
