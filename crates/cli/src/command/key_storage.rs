//! `key-storage`: where the device key and the sign-in are kept.

use postern_local_api::message::{KeyPlace, KeyStorage, KeyStorageChoice};

use crate::{args::Place, context::Context, failure::Failure, screen::Line, text, waiting};

pub(crate) async fn choose(place: Place, context: &mut Context) -> Result<(), Failure> {
    let storage = match place {
        Place::Memory => KeyPlace::Memory,
        Place::File => KeyPlace::File,
        Place::Keyring => KeyPlace::Keyring,
    };
    let service = context.service().await?;
    // A locked keyring asks for its password.
    let choice = KeyStorageChoice { storage };
    let keep = service.set_key_storage(&choice);
    let status = waiting::during("choosing where keys are kept", keep).await?;
    let text = match status.key_storage {
        KeyStorage::Memory => {
            "Device key and sign-in are in memory only: when the service stops, you are signed out.".to_owned()
        }
        KeyStorage::File { path } => format!("The device key is in {path}, and only you may read it."),
        KeyStorage::Keystore { name } => format!("The device key is in {name}."),
        KeyStorage::Unreadable { name, reason, .. } => {
            format!("The device key is in memory only, as {name} cannot be used: {}", text::without_os_code(&reason))
        }
    };
    Ok(context.screen.line(&Line::of(text))?)
}
