//! The far end of every benchmark: a server that echoes, counts or sends, as the first byte asks.
//!
//! | first byte | then |
//! |---|---|
//! | `e` | every byte comes back |
//! | `o` | one byte comes back, then the end |
//! | `u` | bytes are counted until the client has ended its half; their number comes back as a little-endian `u64` |
//! | `U` | the same with a length (little-endian `u32`) before each part, where the client's end would not arrive; 0 ends |
//! | `d`, then microseconds as a little-endian `u64` | bytes for that time, then their number as above, then the end |
//!
//! With `o` the far end closes first, and so does each proxy towards its client: closed streams then linger at listening
//! ports, where they disturb nobody. When clients close first, 28,000 ephemeral ports are used up within two seconds
//! and all that is measured is how the kernel looks for a free one.
//!
//! A transfer counts only when its last byte arrived: a truncated one never looks fast.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const ECHO: u8 = b'e';
pub(crate) const ONCE: u8 = b'o';
pub(crate) const UPLOAD: u8 = b'u';
pub(crate) const UPLOAD_FRAMED: u8 = b'U';
pub(crate) const DOWNLOAD: u8 = b'd';

/// What one system call moves at most, here and in the load generator.
pub(crate) const CHUNK: usize = 256 * 1024;

/// Listeners are asked to queue that many connections; the kernel has its own limit.
const BACKLOG: i32 = 16_384;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Listen at every address, not only on loopback: within a network of the benchmark's own
    #[arg(long)]
    anywhere: bool,
}

/// Runs until it is killed. Its address goes to stdout as the others' does.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let address = if args.anywhere { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let listener = listen_at(address).with_context(|| format!("cannot listen at {address}"))?;
    let address = listener.local_addr()?;
    anstream::println!("{}", serde_json::json!({ "ready": true, "listen": address }));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(async move {
                        // A client that goes away in the middle knows that itself.
                        let _ = serve(stream).await;
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
}

/// A listener on a loopback port that the kernel chose.
pub(crate) fn listen() -> io::Result<TcpListener> {
    listen_at(Ipv4Addr::LOCALHOST)
}

fn listen_at(address: Ipv4Addr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&std::net::SocketAddr::from((address, 0)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

async fn serve(mut stream: tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match stream.read_u8().await? {
        ECHO => echo(&mut stream).await,
        ONCE => {
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await
        }
        UPLOAD => on_a_thread(stream, count),
        UPLOAD_FRAMED => on_a_thread(stream, count_framed),
        DOWNLOAD => {
            let time = Duration::from_micros(stream.read_u64_le().await?);
            on_a_thread(stream, move |stream| send(stream, time))
        }
        _ => Ok(()),
    }
}

/// The buffer is small: thousands of idle streams wait here, and nobody measures this end.
async fn echo(stream: &mut tokio::net::TcpStream) -> io::Result<()> {
    let mut buffer = [0; 64];
    loop {
        let bytes = stream.read(&mut buffer).await?;
        match buffer.get(..bytes) {
            None | Some([]) => return Ok(()),
            Some(read) => stream.write_all(read).await?,
        }
    }
}

/// Bulk transfers go fastest on a blocking thread.
fn on_a_thread(
    stream: tokio::net::TcpStream,
    work: impl FnOnce(TcpStream) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    thread::Builder::new().stack_size(128 * 1024).spawn(move || {
        let _ = work(stream);
    })?;
    Ok(())
}

fn count(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0_u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&total.to_le_bytes()),
            bytes => total += bytes as u64,
        }
    }
}

fn count_framed(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0_u64;
    loop {
        let mut header = [0; 4];
        stream.read_exact(&mut header)?;
        let length = u32::from_le_bytes(header) as usize;
        match buffer.get_mut(..length) {
            Some([]) => return stream.write_all(&total.to_le_bytes()),
            Some(part) => stream.read_exact(part)?,
            None => return Err(io::ErrorKind::InvalidData.into()),
        }
        total += length as u64;
    }
}

fn send(mut stream: TcpStream, time: Duration) -> io::Result<()> {
    let buffer = vec![0; CHUNK];
    let end = Instant::now() + time;
    let mut total = 0_u64;
    while Instant::now() < end {
        stream.write_all(&buffer)?;
        total += buffer.len() as u64;
    }
    stream.write_all(&total.to_le_bytes())
}
