//! One query to several servers, over UDP or TCP.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::message::{NAME_ERROR, Query, with_id};

/// After this a query has failed.
const TOTAL: Duration = Duration::from_secs(5);
/// A server that is silent gets company after this; one that fails, at once. The order of servers counts: the first may
/// know names that the second denies.
const HEAD_START: Duration = Duration::from_secs(1);
/// A datagram may be lost.
const REPEAT: Duration = Duration::from_millis(1500);

/// How a query is carried: as its client carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Udp,
    Tcp,
}

/// Asks the servers in their order until one gives a good answer (there is such a name, or there is none). Otherwise the
/// answer of one that failed, otherwise none. The answer has the query's id.
pub(crate) async fn exchange(
    message: &[u8],
    query: &Query,
    servers: &[SocketAddr],
    carrier: Carrier,
) -> Option<Vec<u8>> {
    let deadline = Instant::now() + TOTAL;
    let mut asked = JoinSet::new();
    let mut servers = servers.iter().copied();
    let mut failed = None;
    let mut next_start = Instant::now();
    let mut more = true;
    loop {
        if more && (asked.is_empty() || next_start <= Instant::now()) {
            more = match servers.next() {
                Some(server) => {
                    let (message, query) = (message.to_vec(), query.clone());
                    asked.spawn(async move { timeout_at(deadline, ask(message, &query, server, carrier)).await });
                    next_start = Instant::now() + HEAD_START;
                    true
                }
                None => false,
            };
            continue;
        }
        if asked.is_empty() {
            return failed;
        }
        tokio::select! {
            answer = asked.join_next() => match answer {
                Some(Ok(Ok(Ok((answer, code))))) if code == 0 || code == NAME_ERROR => return Some(answer),
                Some(Ok(Ok(Ok((answer, _))))) => {
                    failed.get_or_insert(answer);
                    next_start = Instant::now();
                }
                _ => next_start = Instant::now(),
            },
            () = sleep_until(next_start), if more => {}
        }
    }
}

/// Asks one server, from a port that the kernel chose and with an id of its own.
async fn ask(message: Vec<u8>, query: &Query, server: SocketAddr, carrier: Carrier) -> io::Result<(Vec<u8>, u8)> {
    let id: u16 = rand::random();
    let message = with_id(message, id);
    let (answer, code) = match carrier {
        Carrier::Udp => ask_udp(&message, query, id, server).await?,
        Carrier::Tcp => ask_tcp(&message, query, id, server).await?,
    };
    Ok((with_id(answer, query.id), code))
}

async fn ask_udp(message: &[u8], query: &Query, id: u16, server: SocketAddr) -> io::Result<(Vec<u8>, u8)> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // A connected socket takes datagrams of this server only.
    socket.connect(server).await?;
    let mut answer = vec![0; 65_535];
    loop {
        socket.send(message).await?;
        let repeat = Instant::now() + REPEAT;
        while let Ok(length) = timeout_at(repeat, socket.recv(&mut answer)).await {
            let found = answer.get(..length?).unwrap_or_default();
            // What does not fit is late, or forged: wait on.
            if let Some(code) = query.answered_by(found, id) {
                return Ok((found.to_vec(), code));
            }
        }
    }
}

async fn ask_tcp(message: &[u8], query: &Query, id: u16, server: SocketAddr) -> io::Result<(Vec<u8>, u8)> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, message).await?;
    let answer = read_framed(&mut stream).await?;
    let code = query.answered_by(&answer, id).ok_or(io::ErrorKind::InvalidData)?;
    Ok((answer, code))
}

/// A message behind its length in two bytes, as DNS has it on TCP.
pub(crate) async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}
