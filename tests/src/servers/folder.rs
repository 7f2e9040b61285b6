//! Temporary folders that servers under other users may enter.

use std::{
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tempfile::TempDir;

/// A temporary folder that goes when it is dropped. Its path is short (Unix sockets allow 107 bytes).
pub struct Folder(TempDir);

/// Makes a folder that everybody may enter and only we may write to.
pub fn folder() -> anyhow::Result<Folder> {
    let folder = tempfile::Builder::new().prefix("pt-").tempdir().context("cannot make a temporary folder")?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
    Ok(Folder(folder))
}

impl Folder {
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes a folder inside that only `owner` may enter (only we, when it is `None`).
    pub fn private(&self, name: &str, owner: Option<u32>) -> anyhow::Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700))?;
        if let Some(uid) = owner {
            chown(&path, Some(uid), Some(uid)).with_context(|| format!("cannot give {} away", path.display()))?;
        }
        Ok(path)
    }
}
