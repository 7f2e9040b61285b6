//! One end of a connection between posternd and netd: a named pipe, whole packets, each after its length. Open devices
//! cannot be handed over here (see `packets`), so beside a packet go names of pipes, which the asker opens.

use std::{
    fs::OpenOptions,
    io,
    os::windows::{
        fs::OpenOptionsExt as _,
        io::{AsHandle as _, IntoRawHandle as _, OwnedHandle},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::windows::named_pipe::{NamedPipeClient, NamedPipeServer, ServerOptions},
    sync::Mutex,
};
use windows_sys::Win32::{
    Foundation::ERROR_PIPE_BUSY,
    Storage::FileSystem::{FILE_FLAG_OVERLAPPED, SECURITY_IDENTIFICATION},
};

use super::security::{Rights, User, client_of, is_the_systems};
use crate::{
    interface::{MAX_QUEUES, Queue},
    netd::MAX_MESSAGE,
};

/// What the asker says first, so that the system may tell who he is.
const GREETING: u8 = b'P';
/// Names of pipes have 256 characters at most.
const MAX_NAME: usize = 256;
/// All instances of the pipe are taken while somebody else connects: for a moment.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
const BUSY_TRIES: usize = 100;

/// What netd gives away for each queue of a device: the name of a pipe that this user alone may open, once.
#[derive(Clone, Debug)]
pub(crate) struct Handover(pub(crate) String);

/// A connection that was accepted.
pub(crate) type Accepted = NamedPipeServer;

/// A connected pipe. The halves are locked for as long as one packet takes.
#[derive(Debug)]
pub(crate) struct Channel {
    reader: Mutex<Reader>,
    writer: Mutex<WriteHalf<Pipe>>,
}

/// What came of a packet so far: a wait that is given up loses nothing.
#[derive(Debug)]
struct Reader {
    pipe: ReadHalf<Pipe>,
    bytes: Vec<u8>,
    /// Who is at the other end, once he has said something.
    peer: Option<OwnedHandle>,
}

/// Either end.
#[derive(Debug)]
enum Pipe {
    Client(NamedPipeClient),
    Server(NamedPipeServer),
}

/// One packet.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) files: Vec<Queue>,
}

/// What arrived.
#[derive(Debug)]
pub(crate) enum Received {
    Packet(Packet),
    /// Longer than [`MAX_MESSAGE`]; the connection is of no use any more.
    TooLong,
    /// The other end is gone.
    Closed,
}

impl Channel {
    /// Takes a connected pipe over.
    pub(crate) fn new(pipe: Accepted) -> io::Result<Self> {
        let peer = pipe.as_handle().try_clone_to_owned()?;
        Ok(Self::over(Pipe::Server(pipe), Some(peer)))
    }

    fn over(pipe: Pipe, peer: Option<OwnedHandle>) -> Self {
        let (reader, writer) = tokio::io::split(pipe);
        Self { reader: Mutex::new(Reader { pipe: reader, bytes: Vec::new(), peer }), writer: Mutex::new(writer) }
    }

    /// Connects to netd, and to nobody else who took its name.
    pub(crate) async fn connect(path: &Path) -> io::Result<Self> {
        let handle = open(path).await?;
        if !is_the_systems(handle.as_handle())? {
            let reason = "the pipe belongs to an ordinary user, not to postern-netd";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        // SAFETY: the handle is that of a pipe, opened for overlapped use, and owned by nobody else.
        let pipe = unsafe { NamedPipeClient::from_raw_handle(handle.into_raw_handle()) }?;
        let channel = Self::over(Pipe::Client(pipe), None);
        channel.writer.lock().await.write_all(&[GREETING]).await?;
        Ok(channel)
    }

    /// The user at the other end and his process, once he has greeted.
    pub(crate) async fn peer(&self) -> io::Result<(User, u32)> {
        let mut reader = self.reader.lock().await;
        if reader.pipe.read_u8().await? != GREETING {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let peer = reader.peer.take().ok_or(io::ErrorKind::NotConnected)?;
        client_of(peer.as_handle())
    }

    pub(crate) async fn send(&self, bytes: &[u8], files: &[Handover]) -> io::Result<()> {
        let mut whole = Vec::with_capacity(bytes.len() + 8);
        put(&mut whole, bytes)?;
        whole.push(u8::try_from(files.len()).map_err(|_| io::ErrorKind::InvalidInput)?);
        for Handover(name) in files {
            put(&mut whole, name.as_bytes())?;
        }
        self.writer.lock().await.write_all(&whole).await
    }

    /// May be given up and called again.
    pub(crate) async fn receive(&self) -> io::Result<Received> {
        let mut reader = self.reader.lock().await;
        loop {
            match parse(&reader.bytes) {
                Parsed::Whole { bytes, names, length } => {
                    let mut files = Vec::new();
                    for name in names {
                        files.push(open(&PathBuf::from(name)).await?);
                    }
                    reader.bytes.drain(..length);
                    return Ok(Received::Packet(Packet { bytes, files }));
                }
                Parsed::TooLong => return Ok(Received::TooLong),
                Parsed::Part => {}
            }
            let Reader { pipe, bytes, .. } = &mut *reader;
            match pipe.read_buf(bytes).await {
                Ok(0) => return Ok(Received::Closed),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Received::Closed),
                other => other?,
            };
        }
    }
}

fn put(whole: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    whole.extend(u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?.to_le_bytes());
    whole.extend(bytes);
    Ok(())
}

enum Parsed {
    Whole { bytes: Vec<u8>, names: Vec<String>, length: usize },
    TooLong,
    Part,
}

fn parse(all: &[u8]) -> Parsed {
    let mut rest = all;
    let bytes = match take(&mut rest, MAX_MESSAGE) {
        Ok(Some(bytes)) if !bytes.is_empty() => bytes.to_vec(),
        Ok(None) => return Parsed::Part,
        Ok(Some(_)) | Err(_) => return Parsed::TooLong,
    };
    let Some((count, mut rest)) = rest.split_first() else { return Parsed::Part };
    if *count > MAX_QUEUES {
        return Parsed::TooLong;
    }
    let mut names = Vec::new();
    for _ in 0..*count {
        match take(&mut rest, MAX_NAME) {
            Ok(Some(name)) => names.push(String::from_utf8_lossy(name).into_owned()),
            Ok(None) => return Parsed::Part,
            Err(_) => return Parsed::TooLong,
        }
    }
    Parsed::Whole { bytes, names, length: all.len() - rest.len() }
}

struct TooLong;

/// Bytes after their length; none when they are not all there yet.
fn take<'a>(rest: &mut &'a [u8], most: usize) -> Result<Option<&'a [u8]>, TooLong> {
    let Some((length, behind)) = rest.split_first_chunk() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > most {
        return Err(TooLong);
    }
    let Some((bytes, behind)) = behind.split_at_checked(length) else { return Ok(None) };
    *rest = behind;
    Ok(Some(bytes))
}

/// Opens a pipe of this machine. Whoever serves it may learn who we are, and do nothing in our name.
async fn open(path: &Path) -> io::Result<OwnedHandle> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(FILE_FLAG_OVERLAPPED).security_qos_flags(SECURITY_IDENTIFICATION);
    for _ in 0..BUSY_TRIES {
        match options.open(path) {
            Err(error) if error.raw_os_error() == Some(ERROR_PIPE_BUSY.cast_signed()) => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            other => return Ok(other?.into()),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Takes connections.
#[derive(Debug)]
pub(crate) struct Listener {
    name: PathBuf,
    /// Waits for the next one, so that there is always somebody to connect to.
    next: NamedPipeServer,
}

impl Listener {
    /// Takes a name that nobody has yet.
    pub(crate) fn bind(name: &Path) -> io::Result<Self> {
        let rights = Rights::for_interactive_users()?;
        let next = make_pipe(ServerOptions::new().first_pipe_instance(true), name, &rights)?;
        Ok(Self { name: name.to_owned(), next })
    }

    pub(crate) async fn accept(&mut self) -> io::Result<Accepted> {
        self.next.connect().await?;
        let rights = Rights::for_interactive_users()?;
        let next = make_pipe(&mut ServerOptions::new(), &self.name, &rights)?;
        Ok(std::mem::replace(&mut self.next, next))
    }
}

/// A new instance of a pipe, for programs of this machine.
pub(crate) fn make_pipe(options: &mut ServerOptions, name: &Path, rights: &Rights) -> io::Result<NamedPipeServer> {
    let mut attributes = rights.attributes();
    options.reject_remote_clients(true);
    // SAFETY: `attributes` is a whole `SECURITY_ATTRIBUTES` whose descriptor lives as long as `rights`.
    unsafe { options.create_with_security_attributes_raw(name, (&raw mut attributes).cast()) }
}

mod ends {
    //! Both ends of a pipe read and write alike.

    use std::{
        io,
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Pipe;

    impl AsyncRead for Pipe {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::Client(pipe) => Pin::new(pipe).poll_read(cx, buffer),
                Self::Server(pipe) => Pin::new(pipe).poll_read(cx, buffer),
            }
        }
    }

    impl AsyncWrite for Pipe {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            match self.get_mut() {
                Self::Client(pipe) => Pin::new(pipe).poll_write(cx, bytes),
                Self::Server(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::Client(pipe) => Pin::new(pipe).poll_flush(cx),
                Self::Server(pipe) => Pin::new(pipe).poll_flush(cx),
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::Client(pipe) => Pin::new(pipe).poll_shutdown(cx),
                Self::Server(pipe) => Pin::new(pipe).poll_shutdown(cx),
            }
        }
    }
}
