//! resolv.conf taken over for a while, and given back byte for byte.
//!
//! Before anything changes, what was there is written down in a backup file, durably. Whatever happens afterwards
//! (SIGKILL, power cut), [`Takeover::restore`] finds its way back from it, and never takes away what somebody else has
//! written meanwhile.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::IpAddr,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::fs::XattrFlags;
use serde::{Deserialize, Serialize};

use super::resolv_conf::ResolvConf;

/// glibc reads no more of a line than this, and nobody writes a longer file.
const MAX_FILE: u64 = 64 * 1024;
/// The header of a backup is one line.
const VERSION: u32 = 1;
const LABEL: &str = "security.selinux";
/// Links to these are their managers' own files: the manager goes on writing to it and leaves our file alone.
const MANAGERS: [(&str, &str); 4] = [
    ("/run/systemd/resolve/", "systemd-resolved"),
    ("/run/NetworkManager/", "NetworkManager"),
    ("/run/resolvconf/", "resolvconf"),
    ("/run/connman/", "ConnMan"),
];

/// Why the file stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error("{path} is a link to {target}, and who writes there is not known", path = .path.display(), target = .target.display())]
    UnknownLink { path: PathBuf, target: PathBuf },
    #[error("{} is neither a file nor a link", .0.display())]
    NotAFile(PathBuf),
    #[error("{} is longer than {MAX_FILE} bytes", .0.display())]
    TooLong(PathBuf),
    #[error("cannot change {path}: {error}", path = .path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// What [`Takeover::restore`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restored {
    /// Nothing had been taken over.
    Nothing,
    /// The file of before is back, byte for byte.
    Back,
    /// Somebody had changed our file: the servers of before are back in it, the change stays.
    Cleared,
    /// Somebody had put another file there: it stays.
    LeftAlone,
}

/// What was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Before {
    Missing,
    Link { target: PathBuf },
    File { mode: u32, uid: u32, gid: u32, label: Option<Vec<u8>> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// For people who find the file.
    note: String,
    version: u32,
    stub: IpAddr,
    before: Before,
    /// The file cannot be replaced, only overwritten (a bind mount, in containers): a crash may leave a part of it.
    in_place: bool,
}

struct Backup {
    header: Header,
    content: Vec<u8>,
}

/// The file and where its backup lies.
#[derive(Clone, Debug)]
pub(crate) struct Takeover {
    path: PathBuf,
    backup: PathBuf,
}

impl Takeover {
    /// `backup` must outlive a reboot as `path` does.
    pub(crate) fn new(path: PathBuf, backup: PathBuf) -> Self {
        Self { path, backup }
    }

    /// The text to read servers from: while the file is ours, what stood there before, or what a link's manager writes
    /// by now.
    pub(crate) fn text_before(&self) -> io::Result<Vec<u8>> {
        match self.read_backup()? {
            Some(Backup { header: Header { before: Before::Link { target }, .. }, .. }) => {
                read_bounded(&self.follow(&target))
            }
            Some(backup) => Ok(backup.content),
            None => read_bounded(&self.path),
        }
    }

    /// Whether the file is just as [`Self::take`] left it.
    pub(crate) fn is_taken(&self) -> bool {
        let taken = || -> io::Result<bool> {
            let Some(backup) = self.read_backup()? else { return Ok(false) };
            let is_file = fs::symlink_metadata(&self.path)?.is_file();
            Ok(is_file && read_bounded(&self.path)? == backup.written())
        };
        taken().unwrap_or(false)
    }

    /// Puts a file there that asks `stub`. Call [`Self::restore`] first, unless [`Self::is_taken`].
    pub(crate) fn take(&self, stub: IpAddr) -> Result<(), TakeError> {
        let io = |error| TakeError::Io { path: self.path.clone(), error };
        let (before, content) = self.look()?;
        let note = format!(
            "resolv.conf as it was before postern-netd; to bring it back by hand, copy what follows this line to {}",
            self.path.display()
        );
        let header = Header { note, version: VERSION, stub, before, in_place: false };
        let mut backup = Backup { header, content };
        self.write_backup(&backup).map_err(io)?;
        let (mode, owner) = match &backup.header.before {
            Before::File { mode, uid, gid, .. } => (*mode, Some((*uid, *gid))),
            Before::Missing | Before::Link { .. } => (0o644, None),
        };
        let label = backup.header.before.label();
        let written = backup.written();
        let result = match replace(&self.path, &written, mode, owner, label) {
            Err(error) if cannot_replace(&error) => {
                backup.header.in_place = true;
                self.write_backup(&backup).and_then(|()| overwrite(&self.path, &written))
            }
            result => result,
        };
        result.map_err(|error| {
            // Nothing is lost by an error here: the backup is looked at again at the next start.
            let _ = self.restore();
            io(error)
        })
    }

    /// Gives the file back.
    pub(crate) fn restore(&self) -> io::Result<Restored> {
        let _ = fs::remove_file(temporary(&self.path));
        let Some(backup) = self.read_backup()? else { return Ok(Restored::Nothing) };
        let present = match fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_file() => Some(read_bounded(&self.path)?),
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let restored = match present {
            Some(present) if backup.is_ours(&present) => {
                self.put_back(&backup)?;
                Restored::Back
            }
            Some(present) => {
                let file = ResolvConf::parse(&present);
                if file.asks(backup.header.stub) {
                    let before = self.text_before()?;
                    let cleared = file.without_stub(backup.header.stub, &ResolvConf::parse(&before));
                    self.write_like_present(&cleared)?;
                    Restored::Cleared
                } else {
                    Restored::LeftAlone
                }
            }
            None => Restored::LeftAlone,
        };
        fs::remove_file(&self.backup)?;
        sync_folder(&self.backup)?;
        Ok(restored)
    }

    fn look(&self) -> Result<(Before, Vec<u8>), TakeError> {
        let io = |error| TakeError::Io { path: self.path.clone(), error };
        let metadata = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Before::Missing, Vec::new())),
            Err(error) => return Err(io(error)),
        };
        if metadata.is_symlink() {
            let target = fs::read_link(&self.path).map_err(io)?;
            return match manager_of(&self.follow(&target)) {
                Some(_) => Ok((Before::Link { target }, Vec::new())),
                None => Err(TakeError::UnknownLink { path: self.path.clone(), target }),
            };
        }
        if !metadata.is_file() {
            return Err(TakeError::NotAFile(self.path.clone()));
        }
        if metadata.len() > MAX_FILE {
            return Err(TakeError::TooLong(self.path.clone()));
        }
        let content = read_bounded(&self.path).map_err(io)?;
        let mode = metadata.permissions().mode() & 0o7777;
        let label = label_of(&self.path);
        Ok((Before::File { mode, uid: metadata.uid(), gid: metadata.gid(), label }, content))
    }

    /// Where a link at our path leads, as far as its text says.
    fn follow(&self, target: &Path) -> PathBuf {
        let folder = self.path.parent().unwrap_or_else(|| Path::new("/"));
        let mut path = PathBuf::new();
        for part in folder.join(target).components() {
            if part == std::path::Component::ParentDir {
                path.pop();
            } else {
                path.push(part);
            }
        }
        path
    }

    fn put_back(&self, backup: &Backup) -> io::Result<()> {
        match &backup.header.before {
            Before::Missing => fs::remove_file(&self.path),
            Before::Link { target } => {
                let link = temporary(&self.path);
                symlink(target, &link)?;
                fs::rename(&link, &self.path)?;
                sync_folder(&self.path)
            }
            Before::File { .. } if backup.header.in_place => overwrite(&self.path, &backup.content),
            Before::File { mode, uid, gid, label } => {
                replace(&self.path, &backup.content, *mode, Some((*uid, *gid)), label.as_deref())
            }
        }
    }

    fn write_like_present(&self, content: &[u8]) -> io::Result<()> {
        let metadata = fs::metadata(&self.path)?;
        let mode = metadata.permissions().mode() & 0o7777;
        let label = label_of(&self.path);
        match replace(&self.path, content, mode, Some((metadata.uid(), metadata.gid())), label.as_deref()) {
            Err(error) if cannot_replace(&error) => overwrite(&self.path, content),
            result => result,
        }
    }

    /// `None` when there is none, or one that a crash left unfinished (then nothing was changed yet: it is written before).
    fn read_backup(&self) -> io::Result<Option<Backup>> {
        let bytes = match fs::read(&self.backup) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
        let header = parts.next().and_then(|header| serde_json::from_slice::<Header>(header).ok());
        let (Some(header), Some(content)) = (header.filter(|header| header.version == VERSION), parts.next()) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} is no backup of this version: bring resolv.conf back by hand and remove it",
                    self.backup.display()
                ),
            ));
        };
        Ok(Some(Backup { header, content: content.to_vec() }))
    }

    fn write_backup(&self, backup: &Backup) -> io::Result<()> {
        if let Some(folder) = self.backup.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut bytes = serde_json::to_vec(&backup.header)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&backup.content);
        replace(&self.backup, &bytes, 0o644, None, None)
    }
}

/// Who writes the file that a link leads to.
pub(crate) fn manager_of(target: &Path) -> Option<&'static str> {
    MANAGERS
        .iter()
        .find(|(folder, _)| target.as_os_str().as_bytes().starts_with(folder.as_bytes()))
        .map(|(_, name)| *name)
}

impl Backup {
    /// What was put in place of it.
    fn written(&self) -> Vec<u8> {
        ResolvConf::parse(&self.content).with_stub(self.header.stub)
    }

    /// Whether `present` is what we wrote, or what a crash left of it or of the way back.
    fn is_ours(&self, present: &[u8]) -> bool {
        let written = self.written();
        present == written
            || self.header.in_place && (written.starts_with(present) || self.content.starts_with(present))
    }
}

impl Before {
    fn label(&self) -> Option<&[u8]> {
        match self {
            Self::File { label, .. } => label.as_deref(),
            Self::Missing | Self::Link { .. } => None,
        }
    }
}

/// A name beside the file that nobody else uses; what a crash left there is removed.
fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".postern");
    path.with_file_name(name)
}

/// Replaces the file at once: whoever reads it sees the old or the new one, also after a power cut.
fn replace(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>, label: Option<&[u8]>) -> io::Result<()> {
    let temporary = temporary(path);
    let _ = fs::remove_file(&temporary);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Some(label) = label {
            // Without SELinux there is nothing to keep.
            let _ = rustix::fs::fsetxattr(&file, LABEL, label, XattrFlags::empty());
        }
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    let result = write();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// A bind mount cannot be replaced, a folder may be closed to us while the file is not.
fn cannot_replace(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut content)?;
    Ok(content)
}

fn label_of(path: &Path) -> Option<Vec<u8>> {
    let mut label = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, LABEL, label.as_mut_slice()).ok()?;
    label.truncate(length);
    Some(label)
}

#[cfg(test)]
mod tests;
