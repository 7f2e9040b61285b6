//! One app for each user and each `POSTERN_HOME`: a second start hands its link to the first and ends.
//!
//! A lock in the runtime folder decides who is first; its socket takes what the second one has to say. This needs no
//! D-Bus, and the kernel releases it when the first one dies, however that happens. Only processes of the same user are
//! listened to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, OpenOptionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt as _, net::UnixListener, sync::mpsc, time::timeout};

/// A message is a link or nothing: far less than this.
const LARGEST: u64 = 8 << 10;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a second start wants of the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// A link to ask about.
    pub link: Option<String>,
    /// Started without a window, by the login; then nothing is to be shown.
    pub hidden: bool,
}

/// Who this process is.
#[derive(Debug)]
pub enum Instance {
    First(First),
    /// Another one runs and has taken the wish.
    Second,
}

/// The lock, held for as long as this lives.
#[derive(Debug)]
pub struct First {
    _lock: File,
    socket: PathBuf,
}

/// Becomes the first instance, or hands the wish to the one that is.
pub fn claim(folder: &Path, wish: &Wish) -> io::Result<Instance> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join("postern-desktop.lock"))?;
    let socket = folder.join("postern-desktop.sock");
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(Instance::First(First { _lock: lock, socket }));
    }
    tell(&socket, wish)?;
    Ok(Instance::Second)
}

/// The first one may still be starting: its socket is waited for.
fn tell(socket: &Path, wish: &Wish) -> io::Result<()> {
    let until = std::time::Instant::now() + PATIENCE;
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if std::time::Instant::now() > until => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&serde_json::to_vec(wish)?)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut taken = [0];
    stream.read_exact(&mut taken)
}

impl First {
    /// Takes the wishes of later starts, for as long as somebody takes them from here.
    pub fn listen(self) -> io::Result<mpsc::Receiver<Wish>> {
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&self.socket)?;
        // Full only when nobody takes wishes; then a second start waits, and says so.
        let (sender, receiver) = mpsc::channel(8);
        tokio::spawn(async move {
            let _first = self;
            while !sender.is_closed() {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let own = rustix::process::geteuid().as_raw();
                if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own) {
                    continue;
                }
                if let Ok(Some(wish)) = timeout(PATIENCE, hear(stream)).await {
                    let _ = sender.send(wish).await;
                }
            }
        });
        Ok(receiver)
    }
}

async fn hear(mut stream: tokio::net::UnixStream) -> Option<Wish> {
    let mut text = Vec::new();
    (&mut stream).take(LARGEST).read_to_end(&mut text).await.ok()?;
    let wish = serde_json::from_slice(&text).ok()?;
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[1]).await.ok()?;
    Some(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_start_hands_its_link_to_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = Wish { link: None, hidden: false };
        let Instance::First(first) = claim(folder.path(), &nothing).unwrap() else { panic!("nobody else runs") };
        let mut wishes = first.listen().unwrap();
        let wish = Wish { link: Some("postern://resource/a".to_owned()), hidden: false };
        let (path, told) = (folder.path().to_owned(), wish.clone());
        let second = tokio::task::spawn_blocking(move || claim(&path, &told)).await.unwrap().unwrap();
        assert!(matches!(second, Instance::Second));
        assert_eq!(wishes.recv().await, Some(wish));
    }

    #[tokio::test]
    async fn a_socket_that_a_dead_one_left_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = Wish { link: None, hidden: false };
        let socket = folder.path().join("postern-desktop.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let Instance::First(first) = claim(folder.path(), &nothing).unwrap() else { panic!("nobody else runs") };
        first.listen().unwrap();
        assert!(UnixStream::connect(&socket).is_ok());
    }

    #[test]
    fn a_first_one_that_does_not_answer_is_an_error_and_not_a_second_window() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = Wish { link: None, hidden: false };
        let _first = claim(folder.path(), &nothing).unwrap();
        assert!(claim(folder.path(), &nothing).is_err());
    }
}
