//! Where the device key and the sign-in are kept.

use serde::{Deserialize, Serialize};

/// Where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum KeyStorage {
    /// In the system's keyring.
    Keystore { name: String },
    /// A file that only the user may read.
    File { path: String },
    /// Nowhere but in the service's memory: they are gone when it stops.
    Memory,
    /// They are to be in the keyring, which does not open now, or is `missing`. What is signed in is in memory only.
    Unreadable {
        name: String,
        reason: String,
        #[serde(default)]
        missing: bool,
    },
}

/// `POST /v1/key-storage`: where they are to be from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStorageChoice {
    pub storage: KeyPlace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPlace {
    Keyring,
    Memory,
    File,
}
