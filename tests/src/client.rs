//! Plain TCP clients of a loopback address that say how a connection ended.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// How long an answer may take. Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How long [`reset_and_living`] only listens: a word sent to a connection that was closed is answered with a reset, and
/// would hide that it looked complete.
const LISTENED: Duration = Duration::from_millis(1500);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The other side said that it was done.
    Closed,
    /// It was broken off.
    Reset,
}

/// Sends `bytes` to an echo server, ends the own direction and gives back what came until the end.
pub async fn exchange(to: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        let (mut read, mut write) = stream.split();
        let mut answer = Vec::new();
        let upload = async {
            write.write_all(bytes).await?;
            write.shutdown().await
        };
        tokio::try_join!(upload, read.read_to_end(&mut answer))?;
        io::Result::Ok(answer)
    };
    Ok(tokio::time::timeout(DEADLINE, exchange).await.context("no answer in time")??)
}

/// A connection to an echo server through which one word has gone and come back.
pub async fn open(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(to).await.context("cannot connect")?;
    ask(&mut stream, b"word").await?;
    Ok(stream)
}

/// Sends `bytes` to an echo server over an open connection and waits until they are back.
pub async fn ask(stream: &mut TcpStream, bytes: &[u8]) -> anyhow::Result<()> {
    let asking = async {
        stream.write_all(bytes).await?;
        let mut answer = vec![0; bytes.len()];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(DEADLINE, asking).await.context("no answer in time")??;
    anyhow::ensure!(answer == bytes, "{answer:?} came back for {bytes:?}");
    Ok(())
}

/// Reads until the connection ends, which it is about to do, and says how.
pub async fn end(stream: &mut TcpStream) -> anyhow::Result<End> {
    tokio::time::timeout(DEADLINE, end_whenever(stream)).await.context("the connection does not end")?
}

/// The same of a connection that is to last for as long as others are opened: whoever ends it waits no longer than he
/// wants to.
pub async fn end_whenever(stream: &mut TcpStream) -> anyhow::Result<End> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return Ok(End::Closed),
            Ok(_) => {}
            Err(error) if is_reset(&error) => return Ok(End::Reset),
            Err(error) => return Err(error.into()),
        }
    }
}

/// After something died that carried some of these streams to an echo server: how many were reset, and those that live on,
/// over which a word went and came back. None may look complete.
pub async fn reset_and_living(streams: Vec<TcpStream>) -> anyhow::Result<(usize, Vec<TcpStream>)> {
    let all = streams.len();
    let fates = streams.into_iter().map(async |mut stream| {
        if let Ok(ended) = tokio::time::timeout(LISTENED, end(&mut stream)).await {
            anyhow::ensure!(ended? == End::Reset, "a broken stream looked complete");
            return Ok(None);
        }
        // On a busy machine it may not have been told yet: who is not reset answers.
        match ask(&mut stream, b"still here").await {
            Ok(()) => Ok(Some(stream)),
            Err(error) if error.downcast_ref().is_some_and(is_reset) => Ok(None),
            Err(error) => Err(error.context("a stream is neither reset nor alive")),
        }
    });
    let fates: Vec<_> = futures_util::future::join_all(fates).await.into_iter().collect::<anyhow::Result<_>>()?;
    let living: Vec<_> = fates.into_iter().flatten().collect();
    Ok((all - living.len(), living))
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
