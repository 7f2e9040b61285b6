//! The system's keyring: the Secret Service of the user's session (GNOME Keyring, KWallet, KeePassXC).
//!
//! One item holds everything, as the last of its sort of this state folder: two folders of one user do not meet.

use std::{collections::HashMap, time::Duration};

use futures_util::StreamExt as _;
use keyring_core::{Entry, Error, api::CredentialStoreApi as _};
use zbus::{Connection, ObjectPath, OwnedObjectPath, OwnedVariant};
use zbus_secret_service_keyring_store::Store as SecretService;
use zeroize::Zeroizing;

use super::{Failure, Fault, Look, SecretStore, Secrets};

const SERVICE: &str = "org.freedesktop.secrets";
const SERVICE_PATH: &str = "/org/freedesktop/secrets";
const ITEM_SERVICE: &str = "postern";
const LABEL: &str = "Postern: device key and sign-in";
/// A keyring that says nothing for so long is not there for us.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Clone, Debug)]
pub struct InKeyring {
    /// Whose item it is: the state folder.
    pub folder: String,
}

impl InKeyring {
    fn entry(&self) -> Result<Entry, Failure> {
        let store = SecretService::new().map_err(failure)?;
        store.build(ITEM_SERVICE, &self.folder, Some(&HashMap::from([("label", LABEL)]))).map_err(failure)
    }
}

impl SecretStore for InKeyring {
    fn load(&self, warnings: &mut Vec<String>) -> Result<Option<Secrets>, Failure> {
        let bytes = match self.entry()?.get_secret() {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(Error::NoEntry) => return Ok(None),
            Err(error) => return Err(failure(error)),
        };
        Ok(serde_json::from_slice(&bytes).map_err(|_| warnings.push(UNREADABLE.to_owned())).ok())
    }

    fn save(&self, secrets: &Secrets) -> Result<(), Failure> {
        let bytes = secrets.to_bytes().map_err(|error| locked(error.to_string()))?;
        self.entry()?.set_secret(&bytes).map_err(failure)
    }

    fn remove(&self) -> Result<(), Failure> {
        match self.entry()?.delete_credential() {
            Ok(()) | Err(Error::NoEntry) => Ok(()),
            Err(Error::Ambiguous(entries)) => {
                entries.iter().try_for_each(|entry| entry.delete_credential().map_err(failure))
            }
            Err(error) => Err(failure(error)),
        }
    }

    fn silent(&self, after: Duration) -> Failure {
        locked(format!("it did not answer within {} s", after.as_secs()))
    }
}

const UNREADABLE: &str = "What the keyring holds for Postern makes no sense; sign in again.";

fn failure(error: Error) -> Failure {
    match error {
        Error::PlatformFailure(error) => Failure::Keyring(Fault::Missing { reason: error.to_string() }),
        Error::NoStorageAccess(error) => locked(error.to_string()),
        other => locked(other.to_string()),
    }
}

fn locked(reason: String) -> Failure {
    Failure::Keyring(Fault::Locked { name: "The keyring".to_owned(), reason })
}

/// Whether the keyring is there and open. Nobody is asked for anything.
pub async fn look() -> Look {
    match tokio::time::timeout(LOOK_DEADLINE, find()).await {
        Ok(Ok(look)) => look,
        Ok(Err(Absent(reason))) => Look::Closed(Fault::Missing { reason }),
        Err(_) => {
            let reason = format!("it did not answer within {} s", LOOK_DEADLINE.as_secs());
            Look::Closed(Fault::Locked { name: "The keyring".to_owned(), reason })
        }
    }
}

/// Opens the keyring; it may ask a person for its password, and the question is taken back after `patience`.
///
/// # Errors
/// A keyring that stays closed.
pub async fn unlock(patience: Duration) -> Result<(), Fault> {
    match look().await {
        Look::Open { .. } => Ok(()),
        Look::Closed(fault @ Fault::Missing { .. }) => Err(fault),
        Look::Closed(Fault::Locked { name, .. }) => match ask_to_unlock(patience).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault::Locked { name, reason: "The question for its password was closed.".to_owned() }),
            Err(error) => Err(Fault::Locked { name, reason: error.to_string() }),
        },
    }
}

#[zbus::proxy(interface = "org.freedesktop.Secret.Prompt", default_service = "org.freedesktop.secrets")]
trait Prompt {
    fn prompt(&self, window_id: &str) -> zbus::Result<()>;
    fn dismiss(&self) -> zbus::Result<()>;
    #[zbus(signal)]
    fn completed(&self, dismissed: bool, result: zbus::Variant<'_>) -> zbus::Result<()>;
}

/// Whether somebody opened it.
async fn ask_to_unlock(patience: Duration) -> zbus::Result<bool> {
    let connection = Connection::session().await?;
    let collection = default_collection(&connection).await.map_err(|Absent(reason)| zbus::Error::Failure(reason))?;
    let interface = Some("org.freedesktop.Secret.Service");
    let reply = connection.call_method(Some(SERVICE), SERVICE_PATH, interface, "Unlock", &([&*collection],)).await?;
    let (_, question): (Vec<OwnedObjectPath>, OwnedObjectPath) = reply.body().deserialize()?;
    if question.as_str() != "/" {
        let question = PromptProxy::builder(&connection).path(question).build().await?;
        let mut answers = question.receive_completed().await?;
        question.prompt("").await?;
        match tokio::time::timeout(patience, answers.next()).await {
            Ok(Some(answer)) if !answer.args()?.dismissed => {}
            Ok(_) => return Ok(false),
            Err(_) => {
                question.dismiss().await?;
                return Ok(false);
            }
        }
    }
    Ok(!is_locked(&connection, &collection).await?)
}

struct Absent(String);

async fn find() -> Result<Look, Absent> {
    let connection = Connection::session()
        .await
        .map_err(|error| Absent(format!("the session bus, on which a keyring would answer, is not there: {error}")))?;
    let collection = default_collection(&connection).await?;
    let name = name(&connection).await.unwrap_or_else(|| "The keyring".to_owned());
    if collection.as_str() == "/" {
        return Err(Absent(format!("{name} has no collection yet; make one with its own program")));
    }
    let locked = is_locked(&connection, &collection).await.map_err(|error| Absent(error.to_string()))?;
    if locked {
        return Ok(Look::Closed(Fault::Locked { name, reason: "It waits for its password.".to_owned() }));
    }
    Ok(Look::Open { name })
}

async fn default_collection(connection: &Connection) -> Result<OwnedObjectPath, Absent> {
    let interface = Some("org.freedesktop.Secret.Service");
    let reply = connection.call_method(Some(SERVICE), SERVICE_PATH, interface, "ReadAlias", &("default")).await;
    let absent = |error: zbus::Error| Absent(format!("nothing on the session bus keeps secrets: {error}"));
    reply.map_err(absent)?.body().deserialize().map_err(absent)
}

async fn is_locked(connection: &Connection, collection: &ObjectPath<'_>) -> zbus::Result<bool> {
    let interface = Some("org.freedesktop.DBus.Properties");
    let body = ("org.freedesktop.Secret.Collection", "Locked");
    let reply = connection.call_method(Some(SERVICE), collection.as_str(), interface, "Get", &body).await?;
    let value: OwnedVariant = reply.body().deserialize()?;
    value.downcast_ref::<bool>()
}

/// What people call the program that keeps the keyring.
async fn name(connection: &Connection) -> Option<String> {
    let bus = zbus::fdo::DBusProxy::new(connection).await.ok()?;
    let process = bus.get_connection_unix_process_id(SERVICE.try_into().ok()?).await.ok()?;
    let program = tokio::fs::read_to_string(format!("/proc/{process}/comm")).await.ok()?;
    let name = match program.trim() {
        // The kernel keeps fifteen characters.
        program if program.starts_with("gnome-keyring") => "GNOME Keyring",
        program if program.starts_with("kwallet") || program.starts_with("ksecret") => "KWallet",
        program if program.starts_with("keepassxc") => "KeePassXC",
        _ => "The keyring",
    };
    Some(name.to_owned())
}
