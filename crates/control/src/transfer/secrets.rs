//! The keys that are carried over: those of the authority and of leases.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use postern_proto::{id::OrgId, time::UnixMillis};
use postern_tunnel::private_file;
use zeroize::Zeroizing;

use super::TransferError;
use crate::{
    authority::Authority,
    keys::AUTHORITY,
    lease_keys::{PREFIX, SUFFIX},
    sealed::Keyring,
    sql::Connection,
};

/// Where keys lie.
#[derive(Clone)]
pub enum Secrets {
    /// In files of this folder.
    Folder(PathBuf),
    /// Sealed in the database.
    Sealed(Arc<Keyring>),
}

/// One key.
pub(super) struct Secret {
    pub(super) name: String,
    pub(super) created_at: UnixMillis,
    pub(super) content: Zeroizing<Vec<u8>>,
}

impl Secrets {
    pub(super) async fn read(&self, connection: &mut Connection, org: OrgId) -> Result<Vec<Secret>, TransferError> {
        match self {
            Self::Folder(folder) => read_folder(folder),
            Self::Sealed(keyring) => {
                let found = keyring.list(connection, org, "", false).await?;
                let secret = |opened: crate::sealed::Opened| Secret {
                    name: opened.name,
                    created_at: opened.created_at,
                    content: opened.secret,
                };
                Ok(found.into_iter().map(secret).collect())
            }
        }
    }

    pub(super) async fn write(
        &self,
        connection: &mut Connection,
        org: OrgId,
        secret: &Secret,
    ) -> Result<(), TransferError> {
        match self {
            Self::Folder(folder) => write_file(folder, secret),
            Self::Sealed(keyring) => {
                Ok(keyring.put(connection, org, (&secret.name, secret.created_at), &secret.content).await?)
            }
        }
    }
}

fn read_folder(folder: &Path) -> Result<Vec<Secret>, TransferError> {
    let failed = |path: &Path, source: io::Error| TransferError::File { path: path.display().to_string(), source };
    let mut secrets = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (name, created_at) = if path == Authority::key_file(folder) {
            (AUTHORITY.to_owned(), UnixMillis(0))
        } else if let Some(created) = file.strip_suffix(SUFFIX) {
            (format!("{PREFIX}{created}"), UnixMillis(created.parse().unwrap_or(0)))
        } else {
            continue;
        };
        let content = private_file::read(&path).map(Zeroizing::new).map_err(|error| failed(&path, error))?;
        secrets.push(Secret { name, created_at, content });
    }
    Ok(secrets)
}

fn write_file(folder: &Path, secret: &Secret) -> Result<(), TransferError> {
    let path = match secret.name.strip_prefix(PREFIX) {
        // The name becomes a file's: it is a number and nothing else.
        Some(created) if created.bytes().all(|byte| byte.is_ascii_digit()) => folder.join(format!("{created}{SUFFIX}")),
        None if secret.name == AUTHORITY => Authority::key_file(folder),
        _ => return Err(crate::store::StoreError::Unreadable(format!("the secret {:?}", secret.name)).into()),
    };
    match std::fs::read(&path) {
        Ok(there) if there == *secret.content => return Ok(()),
        Ok(_) => return Err(TransferError::OtherKeys(folder.to_owned())),
        Err(_) => {}
    }
    private_file::write(&path, &secret.content)
        .map_err(|source| TransferError::File { path: path.display().to_string(), source })
}
