//! `key-storage`: where the device key and the sign-in are kept.

use postern_local_api::message::{KeyPlace, KeyStorage, KeyStorageChoice};

use crate::{args::Place, context::Context, failure::Failure, screen::Line};

pub(crate) async fn choose(place: Place, context: &mut Context) -> Result<(), Failure> {
    let storage = match place {
        Place::Memory => KeyPlace::Memory,
        Place::File => KeyPlace::File,
        Place::Keyring => KeyPlace::Keyring,
    };
    let status = context.service().await?.set_key_storage(&KeyStorageChoice { storage }).await?;
    let text = match status.key_storage {
        KeyStorage::Memory => {
            "Device key and sign-in are in memory only: when the service stops, you are signed out.".to_owned()
        }
        KeyStorage::File { path } => format!("The device key is in {path}, and only you may read it."),
        KeyStorage::Keystore { name } => format!("The device key is in {name}."),
        KeyStorage::Unreadable { name, reason } => {
            format!("The device key is in {name}, which does not open: {reason}")
        }
    };
    Ok(context.screen.line(&Line::of(text))?)
}
